"""Stage 4: roll a model out on test tasks, score it and compare runs."""
