"""Numbers, tables and figures of scripts/experiment.sh."""
