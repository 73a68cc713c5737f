# shellcheck shell=bash
# Sourced by run_all.sh: steps of a long run that are done once, in order, and can be shown instead of run.
# The caller sets `run` (folder), `dry` (1: show), `python`, and sources processes.sh first.
#   die TEXT [CODE]           one line on stderr, exit code 2
#   setting NAME [DEFAULT]    the variable's value, else what .env says, else the default
#   whole NAME LEAST          ends the script unless the variable's value is a whole number, at least LEAST
#   one_of NAME VALUE...      ends it unless the value is one of these
#   nth N WORD...             the N-th word, or the last one where there are fewer
#   show WORD...              prints a command so that it can be pasted; a word X=@NAME is printed as X="$NAME"
#   launch NAME LOG WORD...   starts a server once and sets NAME to its URL, NAME_pid to its process
#   halt NAME                 stops it, if it runs
#   step NAME FILE WORD...    runs the command, unless it was run before in this very way and FILE, which it writes last, is
#                             as it was. First it calls `ready NEED` for each of `needs`. Put before it: may_fail=1, exit code
#                             1 ("some tasks failed") is tried once more, then told; into=1, what it prints goes to FILE too,
#                             and exit code 2 is only told if it printed something
# A step's way is its command and everything done before it: a change in one step reopens all that follow.

die() { echo "$(basename "$0"): $1" >&2; exit "${2:-2}"; }

setting() {
  local value=${!1-}
  if [ -z "${!1+set}" ] && [ -f .env ]; then
    value=$("$python" -c 'import sys, dotenv; print(dotenv.dotenv_values(".env").get(sys.argv[1]) or "")' "$1")
  fi
  printf %s "${value:-${2-}}"
}

whole() {
  case ${!1} in '' | *[!0-9]*) die "$1 must be a whole number: '${!1}'" ;; esac
  [ "${!1}" -ge "$2" ] || die "$1 must be at least $2: '${!1}'"
}

one_of() {
  local name=$1 value
  shift
  for value in "$@"; do [ "${!name}" != "$value" ] || return 0; done
  die "$name must be one of $*: '${!name}'"
}

upper() { printf %s "$1" | tr '[:lower:]' '[:upper:]'; }

nth() {
  local n=$1
  shift
  [ "$n" -le $# ] || n=$#
  printf %s "${!n}"
}

from_variable='^([A-Z_]+)=@([A-Za-z_]+)$'
show() {
  local word line=
  for word in "$@"; do
    if [[ $word =~ $from_variable ]]; then
      line+="${BASH_REMATCH[1]}=\"\$${BASH_REMATCH[2]}\" "
    elif [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      line+="$word "
    else
      line+="$(printf %q "$word") "
    fi
  done
  printf '%s\n' "${line% }"
}

words=() # what resolve made of its arguments
resolve() {
  local word name
  words=()
  for word in "$@"; do
    if [[ $word =~ $from_variable ]]; then
      name=${BASH_REMATCH[2]} && words+=("${BASH_REMATCH[1]}=${!name}")
    else
      words+=("$word")
    fi
  done
}

launch() {
  local name=$1 log=$2
  shift 2
  [ -z "${!name:-}" ] || return 0
  if [ "$dry" = 1 ]; then
    echo "start $(printf %q "$log") $(show "$@"); $name=\$url ${name}_pid=\$pid"
    printf -v "$name" shown
    return
  fi
  start "$log" "$@"
  printf -v "$name" %s "$url"
  printf -v "${name}_pid" %s "$pid"
}

halt() {
  local of="$1_pid"
  [ -n "${!1:-}" ] || return 0
  if [ "$dry" = 1 ]; then
    echo "stop \"\$$of\""
  else
    stop "${!of}"
  fi
  printf -v "$1" ''
}

chain= # hash of all that was done so far; empty in a dry run behind the first step that is not done
digest() { sha256sum | cut -c -64; }

step() {
  local name=$1 file=$2 stamp=$run/done/$1 way code=0 need again=${may_fail:-0} output=
  shift 2
  [ -z "${into:-}" ] || output=$file
  way=$(printf '%s\n' "$chain" "$*" | digest)
  if [ -n "$chain" ] && [ -f "$stamp" ] && [ -f "$file" ] && [ "$(cat "$stamp")" = "$way $(digest <"$file")" ]; then
    chain=$(digest <"$stamp")
    echo "# done before: $name"
    return
  fi
  # shellcheck disable=SC2154 # the caller's
  for need in "${needs[@]+"${needs[@]}"}"; do ready "$need"; done
  if [ "$dry" = 1 ]; then
    chain=
    echo "$(show "$@")${output:+ | tee $(printf %q "$output")}"
    return
  fi
  echo "== $name"
  resolve "$@"
  while :; do
    code=0
    if [ -n "$output" ]; then
      attend "${words[@]}" >"$output.part" || code=$?
      cat "$output.part"
    else
      attend "${words[@]}" || code=$?
    fi
    [ "$code" = 1 ] && [ "$again" = 1 ] || break
    again=2
  done
  if [ "$code" = 2 ] && [ -n "$output" ] && [ -s "$output.part" ]; then
    echo "$(basename "$0"): $name: not everything is as it should be (exit code 2)" >&2
    code=0
  fi
  case $code$again in
    0*) ;;
    12) echo "$(basename "$0"): $name: some tasks failed twice; the run goes on without them (the files say why)" >&2 ;;
    *) die "stopped at $name (exit code $code); the same command goes on from there" "$code" ;;
  esac
  [ -z "$output" ] || mv "$output.part" "$output"
  mkdir -p "$(dirname "$stamp")"
  echo "$way $(digest <"$file")" >"$stamp"
  chain=$(digest <"$stamp")
}
