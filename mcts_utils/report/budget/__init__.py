"""Search and baselines that spent the same number of completions, compared."""
