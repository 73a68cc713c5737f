"""Tables of finished runs: one round, one iteration, several iterations."""
