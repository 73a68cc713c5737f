# Sourced by setup.sh and setup_train.sh: one function that makes a virtual environment once.
#   make_env FOLDER REQUIREMENTS SCRIPT FIRST [LAST...]
# pip installs FIRST (words), REQUIREMENTS and LAST, in that order. A stamp, written when all is in, makes the next call a
# comparison of hashes over REQUIREMENTS, SCRIPT and this file. PYTHON311 names a Python 3.11 that is not on PATH.
# shellcheck shell=bash
export PIP_DISABLE_PIP_VERSION_CHECK=1 DS_BUILD_OPS=0 # DeepSpeed builds its operators where it runs
is_311='import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))'

make_env() {
  local env=$1 requirements=$2 script=$3 first=$4 stamp python
  shift 4
  stamp=$(cat "$requirements" "$script" scripts/make_env.sh | sha256sum)$first$*
  if [ "$(cat "$env/.stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$env/bin/python" ]; then return; fi
  python=${PYTHON311:-python3.11}
  if ! "$python" -c "$is_311" 2>/dev/null; then
    echo "$script: no Python 3.11 with venv under the name $python: install it or set PYTHON311" >&2
    exit 2
  fi
  echo "$script: $env, some minutes the first time"
  rm -f "$env/.stamp"
  "$env/bin/python" -c "$is_311" 2>/dev/null || "$python" -m venv --clear "$env"
  # shellcheck disable=SC2086 # names of packages
  "$env/bin/python" -m pip install --quiet $first
  "$env/bin/python" -m pip install --quiet -r "$requirements"
  if [ $# -gt 0 ]; then "$env/bin/python" -m pip install --quiet "$@"; fi
  echo "$stamp" >"$env/.stamp"
}
