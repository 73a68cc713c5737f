#!/usr/bin/env bash
# All four stages on worlds in which the bundled actor has no skill: a scripted player with slips stands in for the model.
#
#   TASK=sciworld bash scripts/demo.sh     or webshop; multi: textcraft, sciworld and webshop, and one model on all records
#
# The player (a chat endpoint, `python -m mcts_utils.servers.chat`) knows the solutions and slips with chance NOISE (0.3) per
# turn, so that trees hold good and bad paths; it judges too. Searched, executed, written and trained is for real; only who
# acts is scripted, and the output says so. The trained model is run on EVAL_TRAINED (4) test tasks of each world, to show
# that stage 4 takes it: nobody learns ScienceWorld from some dozens of records, and no gain is claimed.
# N_TRAIN and N_TEST: tasks per world. SEED, RUN_DIR (runs/demo_$TASK). The same command again resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
world=${TASK:-multi}
run=${RUN_DIR:-runs/demo_$world}
worlds=$world
[ "$world" != multi ] || worlds="textcraft sciworld webshop"
mkdir -p "$run"
# One fixed experiment: nothing of a person's .env or shell may change it. Empty means the default, and wins over .env.
export OPENAI_API_KEY= TEMP= UCT_C= CONCURRENCY= WORKERS= ALPHA= BETA= EPOCHS= ETA= GENERAL_DATA= MODEL_DIR= MODEL_TYPE=
export ITERATION=1 SEED=${SEED:-0} PYTHON=$python PROMPT=brief MODEL_NAME=scripted MAX_TOKEN_LENGTH=64
export ITERA=${ITERA:-3} N_GEN=4 N_ROLLOUT=${N_ROLLOUT:-3}
noise=${NOISE:-0.3}
actor=models/tiny_actor
. scripts/processes.sh

# Server and player of one world, its own tasks, its longest path.
open_world() {
  export TASK=$1
  mkdir -p "$run/$TASK"
  start "$run/$TASK/server.log" "$python" -m "mcts_utils.servers.$TASK" --port 0
  export ENV_SERVER_BASE=$url
  start "$run/$TASK/player.log" "$python" -m mcts_utils.servers.chat --port 0 --env "$TASK" --noise "$noise"
  export OPENAI_BASE_URL=$url
  case $TASK in
    textcraft) MAX_DEPTH=20 ;;
    sciworld) MAX_DEPTH=50 ;;
    webshop) MAX_DEPTH=15 ;;
  esac
  export MAX_DEPTH
}

for one in $worlds; do
  open_world "$one"
  echo "== $TASK: a scripted player with slips (chance $noise per turn), in place of a model that could play this"
  "$python" -m mcts_utils.servers.demo_tasks "$TASK" --train "${N_TRAIN:-24}" --test "${N_TEST:-24}" --folder "$run/$TASK"
  echo "== $TASK 1/4 the player on test tasks"
  MODEL_TYPE=player "$python" eval.py --task_ids "$(cat "$run/$TASK/test.txt")" --max_steps "$MAX_DEPTH" --output_dir "$run/$TASK/test_result"
  echo "== $TASK 2/4 search"
  RUN_DIR=$run/$TASK TASK_IDS=$run/$TASK/train.txt STEPS=collect bash scripts/iteration.sh
  echo "== $TASK 3/4 revision records, every one executed"
  RUN_DIR=$run/$TASK STEPS=revise bash scripts/iteration.sh
  for kind in centric good; do
    "$python" path_collection.py --verify "$run/$TASK/records/${TASK}_$kind.jsonl"
  done | tee "$run/$TASK/verified.txt"
  stop_all
done

echo "== one training file from: $worlds"
records=()
for one in $worlds; do records+=("$run/$one/records/${one}_centric.jsonl" "$run/$one/records/${one}_good.jsonl"); done
"$python" xtuner_config/train.py --data "${records[@]}" --config tiny_actor --model_dir "$actor" --output_dir "$run/model" \
  --epochs "${TRAIN_EPOCHS:-1}" --seed "$SEED"

for one in $worlds; do
  open_world "$one"
  echo "== $TASK 4/4 the trained model on ${EVAL_TRAINED:-4} test tasks: that it runs, not that it can play"
  ids=$(cut -d, -f "1-${EVAL_TRAINED:-4}" "$run/$TASK/test.txt")
  OPENAI_BASE_URL= MODEL_DIR=$run/model MODEL_NAME=tiny_actor MODEL_TYPE=trained "$python" eval.py --task_ids "$ids" \
    --max_steps 10 --output_dir "$run/$TASK/trained_result"
  stop_all
done
# shellcheck disable=SC2086 # names of worlds
"$python" -m mcts_utils.report.stages "$run" $worlds
echo "Scripted players acted in: $worlds. The figures say that the stages work there, nothing of a model's skill."
