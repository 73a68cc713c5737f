"""The experiment of scripts/experiment.sh in numbers, tables and figures."""
