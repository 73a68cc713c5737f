#!/usr/bin/env bash
# A real language model through the whole loop: untrained, after a warm start, after one to three iterations of Agent-R.
#
#   bash scripts/get_model.sh smollm2       models/smollm2, once
#   bash scripts/real_model.sh              resumes; SIZE=full for the larger one
#   DRY_RUN=1 bash scripts/real_model.sh    prints the estimate and every command, and runs nothing
#   DEVICE=cuda DRY_RUN=1 ...               the estimate for one GPU alone
#
# First TextCraft (experiment.sh's program): for each seed a warm start on the expert's episodes, then Agent-R beside
# Optimal + Good and Direct-Revision, each trained on ROWS rows an iteration. Then run_all.sh: one iteration of WebShop, one of
# ScienceWorld, one of all three with one model. What is compared, and how, was written down before: results/PLAN.md.
# Writes RUN_DIR and RESULTS (tables and figures of TextCraft, the other runs' summary.json).
#
# BASE_MODEL    models/smollm2 (or MODEL_DIR)    RUN_DIR runs/real_model    RESULTS results/NAME
# SIZE          small: 25 training goals an iteration, 100 held-out goals; full: 88 and 198, a deeper search
# SEEDS "0 1", ITERATIONS 3, ROWS (48; 192), WARM_N (200; 350), WARM_NOISE 0.2, WARM_EPOCHS 1, PROMPT full
# ARMS          "agent_r direct optimal_good"; empty: no TextCraft, the second part alone
# REVISE        0: revisions are cut at the first refused step; 1: BASE_MODEL judges. SmolLM2-135M gives no verdict that parses
# TRAIN_CONFIG, TRAIN_FLAGS: of xtuner_config/train.py (cpu; full with DEVICE=cuda)
# WORLDS        environments of the second part, runs divided by ";". N_TRAIN, N_TEST: tasks of each; WORLD_WARM: expert episodes;
#               WORLD_STEPS 30: steps of an evaluation; WORLD_DEPTH: MAX_DEPTH of a search there (empty: its default)
# LANES         cells at once: 1, since the model uses all cores
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ends.sh
export PYTHON=${PYTHON:-.venv/bin/python}
die() { echo "real_model.sh: $1" >&2; exit 2; }
[ -x "$(command -v "$PYTHON")" ] || die "$PYTHON is missing: run bash scripts/setup.sh"
export BASE_MODEL=${BASE_MODEL:-${MODEL_DIR:-models/smollm2}} DRY_RUN=${DRY_RUN:-0} SIZE=${SIZE:-small}
[ -f "$BASE_MODEL/config.json" ] || [ "$DRY_RUN" = 1 ] || die "BASE_MODEL is no model folder: '$BASE_MODEL' (bash scripts/get_model.sh smollm2)"
. scripts/fixed.sh
fixed MAX_DEPTH ITERA N_GEN N_ROLLOUT PROMPT MAX_TOKEN_LENGTH CONCURRENCY CHAT_TEMPLATE NUMBER_FORMAT CACHE_GB
case $SIZE in
  small) share=14 goals=100 rows=48 warm=200 itera=2 rollout=3 depth=12 train=12 test=30 world=60 ;;
  full) share=4 goals=198 rows=192 warm=350 itera=4 rollout=4 depth=14 train=48 test=100 world=240 ;;
  *) die "SIZE must be small or full: '$SIZE'" ;;
esac
config=cpu
if [ "${DEVICE:-}" = cuda ] || nvidia-smi >/dev/null 2>&1; then config=full; fi
name=$(basename "$BASE_MODEL") && name=${name//[^A-Za-z0-9._=+@-]/_} # as folders of this model are named
run=${RUN_DIR:-runs/real_model}
export RESULTS=${RESULTS:-results/$name} SEEDS=${SEEDS:-0 1} ITERATIONS=${ITERATIONS:-3} LANES=${LANES:-1} SHARE=${SHARE:-$share}
export ARMS=${ARMS-agent_r direct optimal_good} CONTROLS= ABLATIONS= RECOVERY=0 REVISE=${REVISE:-0} REVISE_STEPS=10 ROWS=${ROWS:-$rows}
export WARM_N=${WARM_N:-$warm} WARM_NOISE=${WARM_NOISE:-0.2} WARM_EPOCHS=${WARM_EPOCHS:-1} WARM_DATA= WARM_IDS=train
export TRAIN_CONFIG=${TRAIN_CONFIG:-$config} TRAIN_FLAGS=${TRAIN_FLAGS:---lr 3e-4 --accumulation 4 --max_length 4096}
export EVAL_STEPS=${EVAL_STEPS:-12} MAX_DEPTH=${MAX_DEPTH:-$depth} ITERA=${ITERA:-$itera} N_GEN=${N_GEN:-2} N_ROLLOUT=${N_ROLLOUT:-$rollout}
export WORLD_STEPS=${WORLD_STEPS:-30} WORLD_WARM=${WORLD_WARM:-$world}
export N_TRAIN=${N_TRAIN:-$train} N_TEST=${N_TEST:-$test} WORLDS=${WORLDS-webshop;sciworld;textcraft sciworld webshop}
export CONCURRENCY=${CONCURRENCY:-32}
export TASK=textcraft MODEL_NAME=$name PROMPT=${PROMPT:-full} MAX_TOKEN_LENGTH=${MAX_TOKEN_LENGTH:-48} COMMAND="bash scripts/real_model.sh"
ids() { "$PYTHON" -m mcts_utils.servers.demo_tasks "$1" --train "$N_TRAIN" --test "$2" | sed -n "$3p"; } # TASK TESTS LINE
EVAL_IDS=${EVAL_IDS:-$(ids textcraft "$goals" 2)}
export EVAL_IDS

echo "# How long it will take ($SIZE; $BASE_MODEL), part by part:"
child "$PYTHON" -m mcts_utils.pipeline.forecast
if [ -n "$ARMS" ]; then
  echo "# TextCraft: $ARMS"
  RUN_DIR=$run/arms child "$PYTHON" -m mcts_utils.pipeline.experiment
fi
failed=()
IFS=';' read -ra worlds <<<"$WORLDS"
for tasks in "${worlds[@]}"; do
  folder=${tasks// /_}
  echo "# One iteration: $tasks"
  for task in $tasks; do
    export "TASK_IDS_${task^^}=$(ids "$task" "$N_TEST" 1)" "TEST_IDS_${task^^}=$(ids "$task" "$N_TEST" 2)"
  done
  TASKS=$tasks ITERATIONS=1 STEPS=warm_start SAMPLE=0 MODEL_DIR=$BASE_MODEL MODEL_NAME= SERVE=${SERVE:-local} SERVE_PORT=${SERVE_PORT:-0} EPOCHS=3 \
    RUN_DIR=$run/$folder MAX_DEPTH=${WORLD_DEPTH:-} EVAL_STEPS=$WORLD_STEPS WARM_N=$WORLD_WARM child bash scripts/run_all.sh || {
    code=$?
    [ "$code" -lt 128 ] || exit "$code" # a signal
    failed+=("$folder") # such as a model that found no good path to train on; the others go on
    continue
  }
  [ "$DRY_RUN" = 1 ] || { mkdir -p "$RESULTS" && cp "$run/$folder/summary.json" "$RESULTS/$folder.json"; }
done
[ ${#failed[@]} = 0 ] || { echo "real_model.sh: not finished: ${failed[*]} (each says why above)" >&2; exit 1; }
