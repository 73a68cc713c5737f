"""How the bundled actor is made: demonstrations, tokenizer, training, card. Not used by the pipeline's stages."""
