# Sourced by setup.sh and setup_train.sh: makes a virtual environment, once. PYTHON311 names a Python 3.11 not on PATH.
#   make_env FOLDER REQUIREMENTS SCRIPT TIME FIRST [LAST...]
#       does nothing where FOLDER is current. Otherwise pip installs FIRST (words), REQUIREMENTS and LAST, in this order.
#       TIME says how long that takes ("2 minutes"). FOLDER/.stamp, written at the end, holds what FOLDER was made from:
#       a hash over REQUIREMENTS, SCRIPT and this file, and the names of FIRST and LAST.
#   pip_install FOLDER STEP ARGUMENT...
#       prints one line that names the STEP, then calls pip. Of pip's own output only errors are shown.
# shellcheck shell=bash
export PIP_DISABLE_PIP_VERSION_CHECK=1 DS_BUILD_OPS=0 # DeepSpeed builds its operators where it runs
is_311='import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))'

make_env() {
  local env=$1 requirements=$2 script=$3 time=$4 first=$5 stamp python total=2 begin=$SECONDS
  shift 5
  [ $# = 0 ] || total=3
  stamp=$(cat "$requirements" "$script" scripts/make_env.sh | sha256sum)$first$*
  if [ "$(cat "$env/.stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$env/bin/python" ]; then return; fi
  python=${PYTHON311:-python3.11}
  if ! "$python" -c "$is_311" 2>/dev/null; then
    echo "$script: no Python 3.11 with venv under the name $python: install it or set PYTHON311" >&2
    exit 2
  fi
  echo "setup: $env: about $time the first time, plus downloads"
  rm -f "$env/.stamp"
  "$env/bin/python" -c "$is_311" 2>/dev/null || "$python" -m venv --clear "$env"
  # shellcheck disable=SC2086 # names of packages
  pip_install "$env" "$first (1 of $total)" $first
  pip_install "$env" "$requirements (2 of $total)" -r "$requirements"
  if [ $# -gt 0 ]; then pip_install "$env" "$* (3 of $total)" "$@"; fi
  echo "$stamp" >"$env/.stamp"
  echo "setup: $env: done in $((SECONDS - begin)) s"
}

pip_install() {
  echo "setup: $1: installing $2"
  # -qq: with -q pip warns of every package that one of several indexes or folders does not have.
  "$1/bin/python" -m pip install -qq "${@:3}"
}
