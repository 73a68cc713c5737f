# shellcheck shell=bash
# Sourced by the scripts that need servers: starts them in the background, stops each by its own pid at the end.
#   start LOG COMMAND...   runs COMMAND and waits until its output names a URL ("... on http://...", "... at http://...",
#                          "export X=http://..."); sets `url` and `pid`. START_SECONDS (60): how long it waits
#   stop PID               stops one of them
#   stop_all               stops everything that was started; runs at the exit of the script as well
#   attend COMMAND...      runs COMMAND to its end; a signal to the script ends it too, at once
# `attended` holds the pids of work that uses the servers: stop_all ends it before them
started=()
attended=()

start() {
  local log=$1 deadline=$((SECONDS + ${START_SECONDS:-60}))
  shift
  : >"$log" # it is read before the command has opened it
  # A process group of its own: Ctrl-C reaches the script alone, which ends the work before the servers.
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  started+=("$pid")
  while [ "$SECONDS" -lt "$deadline" ]; do
    url=$(sed -nE 's/^(.* (on|at) |export [A-Z_]+=)(http[^ ]+)$/\3/p' "$log" | head -n 1)
    [ -n "$url" ] && return
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "$(basename "$0"): '$*' did not start: $(tail -n 1 "$log")" >&2
      exit 1
    fi
    sleep 0.2 &
    wait $! # a signal ends this wait at once
  done
  echo "$(basename "$0"): '$*' named no address for ${START_SECONDS:-60} s, see $log" >&2
  exit 1
}

stop() {
  local one left=()
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  for one in "${started[@]+"${started[@]}"}"; do [ "$one" = "$1" ] || left+=("$one"); done
  started=("${left[@]+"${left[@]}"}")
}

stop_all() {
  end_all "${attended[@]+"${attended[@]}"}"
  end_all "${started[@]+"${started[@]}"}"
  started=() attended=()
}
end_all() { # PID...
  local one
  for one in "$@"; do kill "$one" 2>/dev/null || true; done
  for one in "$@"; do wait "$one" 2>/dev/null || true; done
}

attend() {
  local code=0
  set -m
  "$@" </dev/null &
  attended=("$!")
  set +m
  wait "${attended[0]}" || code=$?
  attended=()
  return "$code"
}
trap stop_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
