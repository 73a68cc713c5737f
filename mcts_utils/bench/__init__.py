"""The benchmark: the pipeline's speed against an endpoint of known speed (scripts/bench.sh). It asserts nothing."""
