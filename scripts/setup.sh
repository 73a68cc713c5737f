#!/usr/bin/env bash
# Makes the two environments: .venv (the project) and .venv-xtuner (the trainer). Does nothing where both are current.
#   bash scripts/setup.sh [--no-train]
# --no-train leaves out the trainer, which only stage 3 needs. Needs Python 3.11; PYTHON311 names one that is not on PATH.
# torch is the wheel that pip finds: a CPU wheel that pip is told of (PIP_FIND_LINKS) wins over the registry's CUDA build.
set -euo pipefail
cd "$(dirname "$0")/.."
train=1
for argument in "$@"; do
  case $argument in
    --no-train) train=0 ;;
    *) echo "setup.sh: unknown argument '$argument' (known: --no-train)" >&2; exit 2 ;;
  esac
done
# shellcheck source=scripts/make_env.sh
. scripts/make_env.sh
make_env .venv requirements.txt scripts/setup.sh torch==2.13.0
if [ "$train" = 1 ]; then bash scripts/setup_train.sh; fi
