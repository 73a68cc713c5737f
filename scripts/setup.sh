#!/usr/bin/env bash
# Makes the two environments: .venv (the project) and .venv-xtuner (the trainer). Does nothing where both are current.
#   bash scripts/setup.sh [--no-train] [--ray]
# --no-train leaves out the trainer, which only stage 3 needs. --ray adds what EXECUTOR=ray needs. Needs Python 3.11;
# PYTHON311 names one that is not on PATH.
# torch is the wheel that pip finds: a CPU wheel in a folder of PIP_FIND_LINKS wins over the registry's CUDA build.
set -euo pipefail
cd "$(dirname "$0")/.."
train=1 ray=0
for argument in "$@"; do
  case $argument in
    --no-train) train=0 ;;
    --ray) ray=1 ;;
    *) echo "setup.sh: unknown argument '$argument' (known: --no-train, --ray)" >&2; exit 2 ;;
  esac
done
# shellcheck source=scripts/make_env.sh
. scripts/make_env.sh
make_env .venv requirements.txt scripts/setup.sh "2 minutes" torch==2.13.0
if [ "$ray" = 1 ]; then
  stamp=$(cat .venv/.stamp requirements-ray.txt | sha256sum)
  if [ "$(cat .venv/.stamp-ray 2>/dev/null)" != "$stamp" ]; then
    pip_install .venv requirements-ray.txt -r requirements-ray.txt
    echo "$stamp" >.venv/.stamp-ray
  fi
fi
if [ "$train" = 1 ]; then bash scripts/setup_train.sh; fi
