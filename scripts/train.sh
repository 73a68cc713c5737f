#!/usr/bin/env bash
# Stage 3 by itself: records -> XTuner -> a model folder. Flags and exit codes: head of xtuner_config/train.py.
#   bash scripts/train.sh --data runs/x/records/textcraft_centric.jsonl --model_dir models/tiny_actor --output_dir runs/x/model
# Several nodes with one shared folder: the same line on each, with NNODES, NODE_RANK, ADDR and PORT; NPROC_PER_NODE is
# the GPUs of a node (default: as many as the config is for). In Slurm: srun --ntasks-per-node=1 bash scripts/train.sh ...
# PYTHON names another interpreter than .venv's; XTUNER_PYTHON the trainer's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "train.sh: $python is missing: run bash scripts/setup.sh" >&2; exit 2; }
exec "$python" "$root/xtuner_config/train.py" "$@"
