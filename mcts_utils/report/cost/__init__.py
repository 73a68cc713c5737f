"""Estimate the cost of a whole run from a sample of tasks."""
