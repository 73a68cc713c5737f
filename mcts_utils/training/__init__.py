"""Stage 3: train a model on the records of stage 2 with XTuner, and write it as a folder that `transformers` loads."""
