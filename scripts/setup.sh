#!/usr/bin/env bash
# Makes the two environments: .venv (the project) and .venv-xtuner (the trainer). Does nothing where both are current.
#   bash scripts/setup.sh [--no-train] [--ray] [--llamacpp] [--dev] [--docs]
# --no-train leaves out the trainer, which only stage 3 needs. --ray, --llamacpp, --dev and --docs add what EXECUTOR=ray,
# SERVE=llamacpp, the checks and the pages need (requirements-ray.txt and so on). Needs Python 3.11; PYTHON311 names one
# that is not on PATH. torch is the wheel that pip finds: a CPU wheel in a folder of PIP_FIND_LINKS wins over the registry's
# CUDA build.
set -euo pipefail
cd "$(dirname "$0")/.."
train=1 extras=()
for argument in "$@"; do
  case $argument in
    --no-train) train=0 ;;
    --ray | --llamacpp | --dev | --docs) extras+=("${argument#--}") ;;
    *) echo "setup.sh: unknown argument '$argument' (known: --no-train, --ray, --llamacpp, --dev, --docs)" >&2; exit 2 ;;
  esac
done
# shellcheck source=scripts/make_env.sh
. scripts/make_env.sh
make_env .venv requirements.txt scripts/setup.sh "2 minutes" torch==2.13.0
for extra in ${extras[@]+"${extras[@]}"}; do
  stamp=$(cat .venv/.stamp "requirements-$extra.txt" | sha256sum)
  if [ "$(cat ".venv/.stamp-$extra" 2>/dev/null)" != "$stamp" ]; then
    pip_install .venv "requirements-$extra.txt" -r "requirements-$extra.txt"
    echo "$stamp" >".venv/.stamp-$extra"
  fi
done
if [ "$train" = 1 ]; then bash scripts/setup_train.sh; fi
