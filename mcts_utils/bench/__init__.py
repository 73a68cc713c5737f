"""How fast the pipeline is against an endpoint of known speed: `bash scripts/bench.sh`. Measures, asserts nothing."""
