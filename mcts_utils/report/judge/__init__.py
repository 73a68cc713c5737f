"""Compare the judge's verdicts with oracles."""
