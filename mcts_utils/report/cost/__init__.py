"""What a whole run will cost, from a sample of tasks."""
