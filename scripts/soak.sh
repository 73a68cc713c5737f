#!/usr/bin/env bash
# Kills stages, servers and Ray workers with -9 at random moments; compares every file with an undisturbed run's and
# counts the answers that were paid for twice. Prints a table.
#   bash scripts/soak.sh [KILLS]       (default 100; it takes about 10 s for each)
# SOAK_FLAGS   further flags of `python -m mcts_utils.bench.soak`, such as "--arms search,revise --seed 7"
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if [ ! -x "$(command -v "$python")" ]; then
  echo "soak.sh: $python is missing: run bash scripts/setup.sh" >&2
  exit 2
fi
# shellcheck disable=SC2086 # flags are words
exec "$python" -m mcts_utils.bench.soak --kills "${1:-100}" ${SOAK_FLAGS:-}
