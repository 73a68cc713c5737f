"""The page of a run: what its search tried, where the judge cut, what was trained, what it changed. One HTML file."""
