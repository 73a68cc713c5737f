"""Stage 3: stage 2's records -> XTuner -> a model folder that `transformers` loads."""
