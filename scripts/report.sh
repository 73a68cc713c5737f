#!/usr/bin/env bash
# Writes the page that shows what happened in a run: one HTML file that needs no network.
#   bash scripts/report.sh RUN_DIR [--output FILE] [--split] [--watch SECONDS] [--price IN OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m mcts_utils.report view "$@"
