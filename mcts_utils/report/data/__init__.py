"""Describe the training data of a run: counts, lengths, depth of the cuts, drop reasons."""
