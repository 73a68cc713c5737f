"""Programs that run in the trainer's environment: they import nothing else of this package."""
