"""Metrics of evaluation episodes: scores, behaviour, paired comparisons. Pure; statistics come from libraries."""
