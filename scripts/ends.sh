# Sourced by scripts that start others: what they start ends with them, also after INT, TERM or kill -9.
export END_WITH=${END_WITH:-$$}
child() { "$@" & wait $!; } # bash acts on a signal during `wait`, not while a command in the foreground goes on
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
