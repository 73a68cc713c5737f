#!/usr/bin/env bash
# One iteration of Agent-R from a fresh clone, on the bundled TextCraft and the bundled actor.
#
#   bash scripts/demo.sh
#   TASK=sciworld bash scripts/demo.sh     (or webshop, or multi) other environments: see demo_scripted.sh
#
# Installs the two virtual environments if they are missing, starts the server, evaluates the actor on held-out goals,
# searches, builds verified revisions, trains with XTuner, evaluates again, prints one table and stops the server. Takes
# about 6 minutes on 2 cores, without installation. The same command again resumes; remove runs/demo to start over.
# SEED (0): seed of search, records and training. RUN_DIR (runs/demo): folder of all results. PYTHON: interpreter of the
# project; then nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ends.sh
[ -n "${PYTHON:-}" ] || child bash scripts/setup.sh
case ${TASK:-textcraft} in
  textcraft) ;;
  sciworld | webshop | multi) exec bash scripts/demo_scripted.sh ;;
  *) echo "demo.sh: TASK must be textcraft, sciworld, webshop or multi: '$TASK'" >&2; exit 2 ;;
esac
python=${PYTHON:-.venv/bin/python}
run=${RUN_DIR:-runs/demo}
mkdir -p "$run"
. scripts/fixed.sh
fixed SEED MAX_DEPTH ITERA N_ROLLOUT
export TASK=textcraft MODEL_NAME=tiny_actor SEED=${SEED:-0} ALPHA=0.5
export MAX_DEPTH=${MAX_DEPTH:-14} ITERA=${ITERA:-3} N_GEN=4 N_ROLLOUT=${N_ROLLOUT:-2} MAX_TOKEN_LENGTH=64
base=models/tiny_actor

server=("$python" -m mcts_utils.servers.textcraft --port 0)
read -r ENV_SERVER_BASE pid < <("$python" -m mcts_utils.pipeline.processes 60 "$run/server.log" "${server[@]}")
trap 'kill "$pid" $(jobs -p) 2>/dev/null || true; wait' EXIT
export ENV_SERVER_BASE

# Every second training goal, of all depths: as many as the time allows.
"$python" - >"$run/tasks.txt" <<'PY'
from mcts_utils.servers.textcraft.world import load_world
print(",".join(map(str, load_world().split()["train"][::2])))
PY

# Two parts run at once, with their progress in lines: one part's starts and ends fill no core. The first that fails
# ends the demo, and with it the other.
together() {
  for part in "$@"; do
    { . scripts/ends.sh; $part; } 2>&1 | cat &
  done
  wait -n
  wait -n
}
evaluate() { # before or after the training
  MODEL_DIR=$(model "$1") MODEL_TYPE=$1 child "$python" eval.py --max_steps 20 --output_dir "$run/test_result"
}
recover() { # the same failed prefixes for both models
  MODEL_DIR=$(model "$1") MODEL_TYPE=$1 child "$python" eval.py --mode revise --max_steps 20 \
    --output_dir "$run/test_result" --from "$run/test_result/textcraft/tiny_actor_before" --panel "$run/panel.json"
}
model() { if [ "$1" = before ]; then echo "$base"; else echo "$run/model"; fi; }
search() {
  MODEL_DIR=$base child "$python" mcts_collection.py --task_ids "$run/tasks.txt" --output_dir "$run/mcts_result"
}
revise() { # kind of records
  MODEL_DIR=$base child "$python" path_collection.py --input_dir "$run/mcts_result/textcraft/tiny_actor" \
    --output_dir "$run/records" --data_type "$1" --revise 1
}
execute() {
  for kind in centric good; do
    child "$python" path_collection.py --verify "$run/records/textcraft_$kind.jsonl" > >(tee "$run/verified_$kind.txt")
  done
}
beside() {
  execute
  recover before
}
train() {
  # shellcheck disable=SC2086 # flags are words
  child "$python" xtuner_config/train.py --data "$run/records/textcraft_"{centric,good}.jsonl --config tiny_actor \
    --model_dir "$base" --output_dir "$run/model" --epochs 3 --seed "$SEED" ${TRAIN_FLAGS:-}
}
view() { child "$python" -m mcts_utils.report view "$run"; }
verify() { child "$python" -m mcts_utils verify "$run"; }

echo "== 1/5 the bundled actor on the held-out goals; beside it, search on training goals"
together 'evaluate before' search
echo "== 2/5 revision records"
together 'revise centric' 'revise good'
echo "== 3/5 training with XTuner; beside it, every record is executed again, and the bundled actor goes on from its failures"
together train beside
echo "== 4/5 the trained actor on the same goals"
together 'evaluate after' 'recover after'
echo "== 5/5 the round"
child "$python" -m mcts_utils.report.runs.round "$run"
together view verify
