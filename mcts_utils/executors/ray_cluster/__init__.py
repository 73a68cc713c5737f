"""EXECUTOR=ray: jobs run in worker processes on the nodes of a Ray cluster. Only the driver writes results."""
