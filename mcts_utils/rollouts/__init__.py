"""One actor in one environment: steps, whole episodes, replays."""
