"""Make the bundled actor: demonstrations, tokenizer, training, model card. The pipeline's stages do not use it."""
