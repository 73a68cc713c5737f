#!/usr/bin/env bash
# Makes the two environments: .venv (the project) and .venv-xtuner (the trainer). Does nothing where both are current.
#   bash scripts/setup.sh [--no-train]
# --no-train leaves out the trainer, which only stage 3 needs. Needs Python 3.11; PYTHON311 names one that is not on PATH.
# torch is the wheel that pip finds: a CPU wheel that pip is told of (PIP_FIND_LINKS) wins over the registry's CUDA build.
set -euo pipefail
cd "$(dirname "$0")/.."
die() { echo "setup.sh: $1" >&2; exit 2; }
train=1
for argument in "$@"; do
  case $argument in
    --no-train) train=0 ;;
    *) die "unknown argument '$argument' (known: --no-train)" ;;
  esac
done
export PIP_DISABLE_PIP_VERSION_CHECK=1 DS_BUILD_OPS=0 # DeepSpeed builds its operators where it runs
is_311='import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))'

# make_env FOLDER REQUIREMENTS FIRST [LAST...]: pip installs FIRST, REQUIREMENTS and LAST, in that order. A stamp, written
# when all is in, makes the next call a comparison of two hashes.
make_env() {
  local env=$1 requirements=$2 first=$3 stamp python
  shift 3
  stamp=$(cat "$requirements" scripts/setup.sh | sha256sum)
  if [ "$(cat "$env/.stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$env/bin/python" ]; then return; fi
  python=${PYTHON311:-python3.11}
  "$python" -c "$is_311" 2>/dev/null || die "no Python 3.11 with venv under the name $python: install it or set PYTHON311"
  echo "setup.sh: $env, some minutes the first time"
  rm -f "$env/.stamp"
  "$env/bin/python" -c "$is_311" 2>/dev/null || "$python" -m venv --clear "$env"
  # shellcheck disable=SC2086 # names of packages
  "$env/bin/python" -m pip install --quiet $first
  "$env/bin/python" -m pip install --quiet -r "$requirements"
  if [ $# -gt 0 ]; then "$env/bin/python" -m pip install --quiet "$@"; fi
  echo "$stamp" >"$env/.stamp"
}

make_env .venv requirements.txt torch==2.13.0
if [ "$train" = 1 ]; then
  # XTuner imports torchvision. Where there is no GPU a stub takes its place: the registry's wheel is a CUDA build.
  vision=$(command -v nvidia-smi >/dev/null 2>&1 && echo torchvision || true)
  make_env .venv-xtuner requirements-train.txt "torch==2.13.0 $vision" --no-deps xtuner==0.2.0 mmengine==0.10.6
fi
