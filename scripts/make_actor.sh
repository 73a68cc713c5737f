#!/usr/bin/env bash
# Trains the bundled actor again from random weights: base, habits, card. Takes about an hour on 2 idle cores and 12 GiB of
# memory.
#   bash scripts/make_actor.sh [OUTPUT]        (default runs/tiny_actor/model; models/tiny_actor is the published one)
# TOKENS: length of both trainings, to try the script. SEED: 0, as for the published model.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ends.sh
python=${PYTHON:-.venv/bin/python}
output=${1:-runs/tiny_actor/model}
base=runs/tiny_actor/base
# One thread per process (two are slower at this width). Freed memory is kept, not returned to the system.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456
flags=(--seed "${SEED:-0}")
[ -z "${TOKENS:-}" ] || flags+=(--tokens "$TOKENS")
child "$python" -m mcts_utils.tiny_actor.make base --output "$base" "${flags[@]}"
child "$python" -m mcts_utils.tiny_actor.make habits --base "$base" --output "$output" "${flags[@]}"
child "$python" -m mcts_utils.tiny_actor.card --base "$base" --model "$output"
