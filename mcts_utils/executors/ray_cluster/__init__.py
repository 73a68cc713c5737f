"""EXECUTOR=ray: jobs on worker processes all over a Ray cluster. Only the driver writes results."""
