"""Whole runs: steps that are done once, with the servers that they need. The commands are in scripts/."""
