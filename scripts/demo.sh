#!/usr/bin/env bash
# One iteration of Agent-R from a fresh clone, on the bundled TextCraft and the bundled actor.
#
#   bash scripts/demo.sh
#   TASK=sciworld bash scripts/demo.sh     (or webshop, or multi) other environments: see demo_scripted.sh
#
# Installs the two virtual environments if they are missing, starts the server, evaluates the actor on held-out goals,
# searches, builds verified revisions, trains with XTuner, evaluates again, prints one table and stops the server. Takes
# about 9 minutes on 2 cores, without installation. The same command again resumes; remove runs/demo to start over.
# SEED (0): seed of search, records and training. RUN_DIR (runs/demo): folder of all results.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ends.sh
child bash scripts/setup.sh
case ${TASK:-textcraft} in
  textcraft) ;;
  sciworld | webshop | multi) exec bash scripts/demo_scripted.sh ;;
  *) echo "demo.sh: TASK must be textcraft, sciworld, webshop or multi: '$TASK'" >&2; exit 2 ;;
esac
python=.venv/bin/python
run=${RUN_DIR:-runs/demo}
mkdir -p "$run"
# The demo is one fixed experiment, which neither .env nor the shell may change. An empty value means the default and
# overrides .env.
export OPENAI_BASE_URL= OPENAI_API_KEY= PROMPT= TEMP= UCT_C= CONCURRENCY= WORKERS= ALPHA= BETA= EPOCHS= ETA= GENERAL_DATA=
export ITERATION=1 TASK=textcraft MODEL_NAME=tiny_actor SEED=${SEED:-0} PYTHON=$python RUN_DIR=$run
export MAX_DEPTH=${MAX_DEPTH:-14} ITERA=${ITERA:-3} N_GEN=4 N_ROLLOUT=${N_ROLLOUT:-2} MAX_TOKEN_LENGTH=64
export TRAIN_CONFIG=tiny_actor TRAIN_FLAGS=${TRAIN_FLAGS:-}
base=models/tiny_actor

server=("$python" -m mcts_utils.servers.textcraft --port 0)
read -r ENV_SERVER_BASE pid < <("$python" -m mcts_utils.pipeline.processes 60 "$run/server.log" "${server[@]}")
trap 'kill "$pid" $(jobs -p) || true; wait' EXIT
export ENV_SERVER_BASE

# Every second training goal, of all depths: as many as the time allows.
"$python" - >"$run/tasks.txt" <<'PY'
from mcts_utils.servers.textcraft.world import load_world
print(",".join(map(str, load_world().split()["train"][::2])))
PY
export TASK_IDS=$run/tasks.txt

evaluate() { # model folder, name of the run
  MODEL_DIR=$1 MODEL_TYPE=$2 child "$python" eval.py --max_steps 20 --output_dir "$run/test_result"
}
recover() { # the same failed prefixes for both models
  MODEL_DIR=$1 MODEL_TYPE=$2 child "$python" eval.py --mode revise --max_steps 20 --output_dir "$run/test_result" \
    --from "$run/test_result/textcraft/tiny_actor_before" --panel "$run/panel.json"
}

echo "== 1/6 the bundled actor on the held-out goals"
evaluate "$base" before
recover "$base" before
echo "== 2/6 search on training goals"
MODEL_DIR=$base STEPS=collect child bash scripts/iteration.sh
echo "== 3/6 revision records, every one executed"
MODEL_DIR=$base STEPS=revise child bash scripts/iteration.sh
verify() {
  for kind in centric good; do
    "$python" path_collection.py --verify "$run/records/textcraft_$kind.jsonl"
  done | tee "$run/verified.txt"
}
child verify
echo "== 4/6 training with XTuner"
MODEL_DIR=$base STEPS=train child bash scripts/iteration.sh
echo "== 5/6 the trained actor on the same goals"
evaluate "$run/model" after
recover "$run/model" after
echo "== 6/6 the round"
child "$python" -m mcts_utils.report.runs.round "$run"
child "$python" -m mcts_utils.report view "$run"
child "$python" -m mcts_utils verify "$run"
