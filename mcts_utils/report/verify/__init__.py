"""Check a run's folder: hashes, lineage, loss flags, test goals, weights, summaries (`python -m mcts_utils verify`)."""
