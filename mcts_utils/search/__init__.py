"""Stage 1: one Monte Carlo tree search per task, and the baselines that spend the same calls."""
