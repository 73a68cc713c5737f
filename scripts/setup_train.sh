#!/usr/bin/env bash
# Makes the trainer's environment, .venv-xtuner, for a CPU or for GPUs. Does nothing where it is current.
#   bash scripts/setup_train.sh
# Needs Python 3.11; PYTHON311 names one that is not on PATH. The pins are in requirements-train.txt. torch is the wheel
# that pip finds: on a GPU host the registry's CUDA build, unless a CPU wheel lies in a folder of PIP_FIND_LINKS.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 0 ] || { echo "setup_train.sh: it takes no arguments, not '$1'" >&2; exit 2; }
# shellcheck source=scripts/make_env.sh
. scripts/make_env.sh
# XTuner imports torchvision. Where there is no GPU a stub takes its place: the registry's wheel is a CUDA build.
vision=
if command -v nvidia-smi >/dev/null 2>&1; then vision=torchvision; fi
make_env .venv-xtuner requirements-train.txt scripts/setup_train.sh "2 minutes" "torch==2.13.0${vision:+ $vision}" \
  --no-deps xtuner==0.2.0 mmengine==0.10.6
