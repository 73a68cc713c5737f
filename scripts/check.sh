#!/usr/bin/env bash
# ruff, mypy, pytest: what CI runs once the environment is there. Stops at the first that fails.
#   bash scripts/check.sh [pytest arguments]
# PYTHON names another interpreter than .venv's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if ! "$python" -c 'import ruff, mypy, pytest' 2>/dev/null; then
  echo "check.sh: $python lacks ruff, mypy or pytest: run bash scripts/setup.sh, or set PYTHON" >&2
  exit 2
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
exec "$python" -m pytest "$@"
