# Sourced by scripts that are one fixed experiment.
# fixed NAME...: of the stages' settings, which .env.example lists, these come from the shell; the others are empty, which
# means the default and overrides .env, until the script sets them.
fixed() {
  local name
  for name in $(sed -nE 's/^([A-Z_]+)=.*/\1/p' .env.example); do
    case " $* " in *" $name "*) export "$name=${!name:-}" ;; *) export "$name=" ;; esac
  done
}
