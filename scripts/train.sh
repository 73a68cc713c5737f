#!/usr/bin/env bash
# Stage 3 alone: trains a model on records with XTuner. Flags and exit codes: mcts_utils/training/train.py.
#   bash scripts/train.sh --data runs/x/records/textcraft_centric.jsonl --model_dir models/tiny_actor --output_dir runs/x/model
# On several nodes with a shared folder, run the same line on each, with NNODES, NODE_RANK, ADDR and PORT; NPROC_PER_NODE
# is the number of GPUs of a node (default: that of the config). In Slurm: srun --ntasks-per-node=1 bash scripts/train.sh ...
# PYTHON: interpreter of the project, default .venv/bin/python. XTUNER_PYTHON: interpreter of the trainer.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "train.sh: $python is missing: run bash scripts/setup.sh" >&2; exit 2; }
exec "$python" "$root/xtuner_config/train.py" "$@"
