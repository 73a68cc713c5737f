#!/usr/bin/env bash
# All four stages on worlds in which the bundled actor has no skill: a scripted player with slips stands in for the model.
#
#   TASK=sciworld bash scripts/demo.sh     or webshop; multi: textcraft, sciworld and webshop, and one model on all records
#
# The player (a chat endpoint, `python -m mcts_utils.servers.mock_llm`) knows the solutions and slips with chance NOISE (0.3) per
# turn, so that trees hold good and bad paths; it judges too. Searched, executed, written and trained is for real; only who
# acts is scripted, and the output says so. The trained model is run on EVAL_TRAINED (4) test tasks of each world, to show
# that stage 4 takes it: nobody learns ScienceWorld from some dozens of records, and no gain is claimed.
# N_TRAIN (24; with ScienceWorld 8) and N_TEST (24): tasks per world. SEED, RUN_DIR (runs/demo_$TASK). The same command again resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
world=${TASK:-multi}
case $world in
  multi) TASKS="textcraft sciworld webshop" ;;
  textcraft | sciworld | webshop) TASKS=$world ;;
  *) echo "demo_scripted.sh: TASK must be textcraft, sciworld, webshop or multi: '$world'" >&2; exit 2 ;;
esac
# One fixed experiment: nothing of a person's .env or shell may change it. Empty means the default, and wins over .env.
export OPENAI_API_KEY= OPENAI_BASE_URL= MODEL_NAME= PROMPT= TEMP= UCT_C= CONCURRENCY= WORKERS= BETA= MAX_DEPTH= ETA= GENERAL_DATA=
export ENV_SERVER_BASE_TEXTCRAFT= ENV_SERVER_BASE_SCIWORLD= ENV_SERVER_BASE_WEBSHOP= EXECUTOR= TRAIN_FLAGS=
# One iteration of the whole run; the player is evaluated too, and every record executed once more.
export TASKS PLAYER=scripted ITERATIONS=1 ALPHAS=0.5 EPOCHS=${TRAIN_EPOCHS:-1} EVAL_BASE=0 EVAL_PLAYER=1 VERIFY=1 DRY_RUN=${DRY_RUN:-0}
case $TASKS in *sciworld*) export N_TRAIN=${N_TRAIN:-8} ;; esac # replays of 40 steps: cleaning takes its time
export MODEL_DIR=models/tiny_actor TRAIN_CONFIG=tiny_actor SERVE=local SERVE_PORT=0 SEED=${SEED:-0} RUN_DIR=${RUN_DIR:-runs/demo_$world}
export ITERA=${ITERA:-3} N_GEN=4 N_ROLLOUT=${N_ROLLOUT:-3} MAX_TOKEN_LENGTH=64 EVAL_TASKS=${EVAL_TRAINED:-4} EVAL_STEPS=10
exec bash scripts/run_all.sh
