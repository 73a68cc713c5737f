#!/usr/bin/env bash
# Stage 3 by itself: records -> XTuner -> a model folder. Flags and exit codes: head of xtuner_config/train.py.
#   bash scripts/train.sh --data runs/x/records/textcraft_centric.jsonl --model_dir models/tiny_actor --output_dir runs/x/model
# PYTHON names another interpreter than .venv's; XTUNER_PYTHON the trainer's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "train.sh: $python is missing: run bash scripts/setup.sh" >&2; exit 2; }
exec "$python" "$root/xtuner_config/train.py" "$@"
