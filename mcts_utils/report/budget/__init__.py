"""Compare search strategies that spent the same number of completions."""
