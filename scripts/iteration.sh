#!/usr/bin/env bash
# One iteration of Agent-R with your own model and environment server: collect, revise, train, evaluate.
#
#   ENV_SERVER_BASE=http://127.0.0.1:36001 MODEL_DIR=models/tiny_actor ITERATION=1 bash scripts/iteration.sh
#
# ITERATION=1|2|3  sets ALPHA 0.5, 0.7, 1.0 (Section 4.2) and EPOCHS 3, 1, 1 (Appendix C.1), unless the shell sets them
# RUN_DIR          folder of all results; default runs/iteration_$ITERATION
# STEPS            which of "warm_start collect revise train evaluate" to run; default all but the first. Each resumes if it
#                  was stopped. warm_start trains MODEL_DIR on expert episodes; the steps after it begin with that model,
#                  RUN_DIR/warm_start/model
# WARM_N           its episodes: 240. WARM_NOISE (0): share with a slip and its repair. WARM_EPOCHS: 3. WARM_IDS: other tasks
#                  than TASK_IDS. WARM_DATA: AgentGym's trajectories, a file or folder, in place of the bundled expert
# TASK_IDS         training tasks: train (default), a list such as 0-9,31, or a file
# STRATEGY         live: for an environment that cannot be replayed; default mcts
# EVAL_STEPS       steps of a test episode; default 100. EVAL_IDS: test tasks; default test, all of them
# GENERAL_DATA     file of ShareGPT rows to mix in; ETA (default 0.2, Section 3.2) is the share of agent rows
# REHEARSE         1: train on the model's own verdicts too, so that it can still judge in the next iteration
# TRAIN_CONFIG     full, lora, qlora, tiny_actor (default: by the size of the model); TRAIN_FLAGS: further flags of train.py
# The actor is MODEL_DIR (local weights) or OPENAI_BASE_URL with MODEL_NAME. Training always starts from MODEL_DIR.
# With an endpoint, serve the trained model, point OPENAI_BASE_URL at it and run STEPS=evaluate.
set -euo pipefail
case ${TASK-} in /*) ;; *.py:*) export TASK=$PWD/$TASK ;; esac # a file of your own, relative to here
cd "$(dirname "$0")/.."
. scripts/ends.sh
python=${PYTHON:-.venv/bin/python}
die() { echo "iteration.sh: $1" >&2; exit 2; }
[ -x "$(command -v "$python")" ] || die "$python is missing: run bash scripts/setup.sh"
setting() { # NAME: the variable's value, else that of .env, as the stages read it
  if [ -n "${!1+set}" ] || [ ! -f .env ]; then
    printf %s "${!1-}"
  else
    "$python" -c 'import sys, dotenv; print(dotenv.dotenv_values(".env", encoding="utf-8-sig").get(sys.argv[1]) or "")' "$1"
  fi
}
iteration=${ITERATION:-1}
case $iteration in
  1) alpha=0.5 epochs=3 ;;
  2) alpha=0.7 epochs=1 ;;
  3) alpha=1.0 epochs=1 ;;
  *) die "ITERATION must be 1, 2 or 3: '$iteration'" ;;
esac
export ALPHA=${ALPHA:-$alpha}
run=${RUN_DIR:-runs/iteration_$iteration}
steps=${STEPS:-collect revise train evaluate}
model=$(setting MODEL_DIR)
endpoint=$(setting OPENAI_BASE_URL)
name=$(setting MODEL_NAME)
name=${name:-$(basename "$model")}
task=$(setting TASK)
task=${task:-textcraft}
case $task in *:*) task=$("$python" -c 'import sys; from mcts_utils.storage.layout import safe_name
from mcts_utils.servers.yours.source import name_of; print(safe_name(name_of(sys.argv[1])))' "$task") || die "TASK names no environment: '$task'" ;; esac
seed=$(setting SEED)
seed=${seed:-0}
kinds=(centric good)
case ${REHEARSE:-0} in 0) ;; 1) kinds+=(verdicts) ;; *) die "REHEARSE must be 0 or 1: '$REHEARSE'" ;; esac
for step in $steps; do
  case $step in warm_start | collect | revise | train | evaluate) ;; *) die "STEPS knows warm_start, collect, revise, train and evaluate: '$step'" ;; esac
done
for number in EPOCHS WARM_N WARM_EPOCHS EVAL_STEPS; do
  [[ ${!number:-1} =~ ^[1-9][0-9]{0,5}$ ]] || die "$number must be a whole number between 1 and 999999: '${!number}'"
done
for share in WARM_NOISE ETA; do
  [[ ${!share:-1} =~ ^(0|0?\.[0-9]+|1|1\.0+)$ ]] || die "$share must be a number from 0 to 1: '${!share}'"
done
[ -z "${GENERAL_DATA:-}" ] || [ -f "$GENERAL_DATA" ] || die "GENERAL_DATA is no file: '$GENERAL_DATA'"
[ -z "${WARM_DATA:-}" ] || [ -e "$WARM_DATA" ] || die "WARM_DATA is no file or folder: '$WARM_DATA'"
case " $steps " in
  " warm_start ") ;;
  *" warm_start "*) [ -z "$endpoint" ] || die "OPENAI_BASE_URL serves no warm-started model: run STEPS=warm_start alone, then serve it" ;;
esac
[ -n "$name" ] || die "set MODEL_DIR, or OPENAI_BASE_URL and MODEL_NAME"
trees=$("$python" -c 'import sys; from mcts_utils.storage.layout import tree_folder
print(tree_folder(*sys.argv[1:]))' "$run/mcts_result" "$task" "$name" 2>/dev/null) || die "MODEL_NAME cannot name a folder: '$name'"
mkdir -p "$run"

train() { # output folder, epochs, data...
  [ -n "$model" ] || die "MODEL_DIR is not set: the weights to train from"
  # shellcheck disable=SC2086 # flags are words
  child "$python" xtuner_config/train.py --data "${@:3}" ${TRAIN_CONFIG:+--config "$TRAIN_CONFIG"} --model_dir "$model" \
    --output_dir "$1" --epochs "$2" --seed "$seed" ${TRAIN_FLAGS:-}
}

trained=$run/model # what is evaluated
for step in $steps; do
  case $step in
    warm_start)
      if [ -n "${WARM_DATA:-}" ]; then
        source=(--input_dir "$WARM_DATA")
      else
        source=(--task_ids "${WARM_IDS:-${TASK_IDS:-train}}" --noise "${WARM_NOISE:-0}")
      fi
      child "$python" path_collection.py --data_type expert --n "${WARM_N:-240}" "${source[@]}" --output_dir "$run/warm_start/records"
      train "$run/warm_start/model" "${WARM_EPOCHS:-3}" "$run/warm_start/records/${task}_expert.jsonl"
      export MODEL_DIR=$run/warm_start/model
      model=$MODEL_DIR trained=$MODEL_DIR
      ;;
    collect)
      child "$python" mcts_collection.py --task_ids "${TASK_IDS:-train}" --model_name "$name" --output_dir "$run/mcts_result" \
        ${STRATEGY:+--strategy "$STRATEGY"}
      ;;
    revise)
      for kind in "${kinds[@]}"; do
        child "$python" path_collection.py --input_dir "$trees" --output_dir "$run/records" \
          --data_type "$kind" --revise 1 --model_name "$name"
      done
      ;;
    train)
      files=()
      for kind in "${kinds[@]}"; do files+=("$run/records/${task}_$kind.jsonl"); done
      trained=$run/model
      train "$trained" "${EPOCHS:-$epochs}" "${files[@]}" ${GENERAL_DATA:+--general "$GENERAL_DATA" --eta "${ETA:-0.2}"}
      ;;
    evaluate)
      if [ -n "$endpoint" ]; then
        MODEL_TYPE=${MODEL_TYPE:-after} child "$python" eval.py --model_name "$name" --task_ids "${EVAL_IDS:-test}" \
          --max_steps "${EVAL_STEPS:-100}" --output_dir "$run/test_result"
      else
        MODEL_DIR=$trained MODEL_TYPE=${MODEL_TYPE:-after} child "$python" eval.py --model_name "$name" \
          --task_ids "${EVAL_IDS:-test}" --max_steps "${EVAL_STEPS:-100}" --output_dir "$run/test_result"
      fi
      ;;
  esac
done
child "$python" -m mcts_utils.report view "$run" || true # nothing to see after STEPS=train alone
