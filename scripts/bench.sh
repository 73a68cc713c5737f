#!/usr/bin/env bash
# Measures the speed of the pipeline against an endpoint of known speed; prints a table, writes runs/bench/summary.json.
#   bash scripts/bench.sh
#   BENCH_TASKS=4 BENCH_SERIAL_TASKS=1 BENCH_ITERA=1 BENCH_DIR=runs/bench_small bash scripts/bench.sh    (a short run)
# BENCH_PARTS      slots_16,slots_64,auto,revision,public,descent,serial,serial_reference,
#                  own_world,local_model (default: all)
#                  and, only if named, long: BENCH_TREES (10000) small trees through stages 1 and 2; memory, files, threads
# BENCH_FLAGS      further flags of `python -m mcts_utils.bench`, such as "--latency_64 0.1"
# The endpoint is a stub that follows a plan with random mistakes. Endpoint and environment server are separate processes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if [ ! -x "$(command -v "$python")" ]; then
  echo "bench.sh: $python is missing: run bash scripts/setup.sh" >&2
  exit 2
fi
# shellcheck disable=SC2086 # flags are words
exec "$python" -m mcts_utils.bench --tasks "${BENCH_TASKS:-64}" --serial_tasks "${BENCH_SERIAL_TASKS:-4}" \
  --itera "${BENCH_ITERA:-4}" --trees "${BENCH_TREES:-10000}" --output_dir "${BENCH_DIR:-runs/bench}" \
  ${BENCH_PARTS:+--parts "$BENCH_PARTS"} ${BENCH_FLAGS:-}
