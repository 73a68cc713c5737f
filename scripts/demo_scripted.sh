#!/usr/bin/env bash
# All four stages on environments that the bundled actor cannot play: a scripted player takes the place of the model.
#
#   TASK=sciworld bash scripts/demo.sh     or webshop; multi: textcraft, sciworld and webshop, and one model on all records
#
# The player (a chat endpoint, `python -m mcts_utils.servers.mock_llm`) knows the solutions and makes a mistake in a turn with
# probability NOISE (0.3), so that trees hold good and bad paths; it judges too. Search, execution, records and training are
# the usual ones; only the actor is scripted, and the output says so. The trained model is evaluated on EVAL_TRAINED (4) test
# tasks of each environment, to show that stage 4 runs with it. A few dozen records do not teach ScienceWorld: no gain is
# claimed.
# N_TRAIN (24; with ScienceWorld 8) and N_TEST (24): tasks per environment. SEED, RUN_DIR (runs/demo_$TASK). The same command
# again resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
world=${TASK:-multi}
case $world in
  multi) TASKS="textcraft sciworld webshop" ;;
  textcraft | sciworld | webshop) TASKS=$world ;;
  *) echo "demo_scripted.sh: TASK must be textcraft, sciworld, webshop or multi: '$world'" >&2; exit 2 ;;
esac
. scripts/fixed.sh
fixed SEED ITERA N_ROLLOUT
export ENV_SERVER_BASE_TEXTCRAFT= ENV_SERVER_BASE_SCIWORLD= ENV_SERVER_BASE_WEBSHOP= ETA= GENERAL_DATA= TRAIN_FLAGS=
# One iteration of run_all.sh; the player is evaluated too, and every record is executed again.
export TASKS PLAYER=scripted ITERATIONS=1 ALPHAS=0.5 EPOCHS=${TRAIN_EPOCHS:-1} EVAL_BASE=0 EVAL_PLAYER=1 VERIFY=1 DRY_RUN=${DRY_RUN:-0}
case $TASKS in *sciworld*) export N_TRAIN=${N_TRAIN:-8} ;; esac # pruning replays 40 steps many times, which is slow
export MODEL_DIR=models/tiny_actor TRAIN_CONFIG=tiny_actor SERVE=local SERVE_PORT=0 SEED=${SEED:-0} RUN_DIR=${RUN_DIR:-runs/demo_$world}
export ITERA=${ITERA:-3} N_GEN=4 N_ROLLOUT=${N_ROLLOUT:-3} MAX_TOKEN_LENGTH=64 EVAL_TASKS=${EVAL_TRAINED:-4} EVAL_STEPS=10
exec bash scripts/run_all.sh
