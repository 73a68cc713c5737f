"""Measure whether an environment can be searched: whether it replays, copies, ends, keeps its rewards in range."""
