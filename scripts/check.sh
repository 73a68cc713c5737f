#!/usr/bin/env bash
# Runs ruff, mypy, the documentation's build and pytest, as CI does. Stops at the first one that fails.
#   bash scripts/check.sh [--fast] [pytest arguments]
# --fast leaves out the documentation and the tests that are slow, run a whole pipeline, or need the trainer, Java or Ray;
# mypy runs beside the tests.
# pytest runs in three processes, for two cores: tests wait for servers, too. -n 0 among its arguments: in one.
# PYTHON: interpreter; default .venv/bin/python.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
fast=0 arguments=(-n 3 --dist loadgroup --no-loadscope-reorder)
for argument in "$@"; do
  case $argument in
    --fast) fast=1 && arguments+=(-m "not (slow or pipeline or trainer or java or ray)") ;;
    *) arguments+=("$argument") ;;
  esac
done
if ! "$python" -c 'import ruff, mypy, pytest, xdist' 2>/dev/null; then
  echo "check.sh: $python lacks ruff, mypy, pytest or pytest-xdist: run bash scripts/setup.sh --dev, or set PYTHON" >&2
  exit 2
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
if [ "$fast" = 1 ]; then # beside the tests
  "$python" -m mypy &
else # side by side: each takes one core
  bash scripts/docs.sh &
  code=0 && "$python" -m mypy || code=$?
  wait $!
  [ "$code" = 0 ] || exit "$code"
fi
# Hundreds of processes read the same modules: they are compiled once.
unset PYTHONDONTWRITEBYTECODE
# Test processes share the cores: one thread for each model that they or their children compute with.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
code=0 && "$python" -m pytest "${arguments[@]}" || code=$?
if [ "$fast" = 1 ]; then wait $! || { echo "check.sh: mypy has found errors, see above" >&2 && exit 1; }; fi
exit "$code"
