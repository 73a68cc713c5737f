#!/usr/bin/env bash
# The training arms of the paper with the bundled TextCraft and the bundled actor: three iterations, three seeds.
#
#   bash scripts/experiment.sh          takes hours on 2 cores; the same command again resumes
#
# Arms (Figure 3): optimal, optimal_good, direct (direct revision + good), agent_r (revision + good), dpo (preference pairs).
# The untrained actor judges for agent_r in every iteration: a small model that is trained on trajectories alone forgets
# how to judge.
# Ablations of agent_r, one iteration each: agent_r_unverified, agent_r_uncleaned, agent_r_duplicates, and agent_r_raw, which
# combines the three. Two iterations: agent_r_self (the trained model judges). All iterations: agent_r_rehearsal (the trained
# model judges and is trained on its own verdicts too) and agent_r_optimal (revisions, and only the shortest good path of
# each task).
# Controls, one iteration each: optimal_good_long (as many training steps as agent_r, by more epochs), best_of_n and
# direct_search (agent_r's kinds of records from as many model calls without a search: rollouts, or rollouts that continue
# after a revision signal). The other arms of a seed share the search of iteration 1; later iterations search for each arm.
# Not among the defaults: live (agent_r's kinds from live revision, which replays nothing).
# Every model is evaluated on the held-out goals (Table 2) and on the untrained actor's failed prefixes (Table 3).
# Writes RUN_DIR/..., and at the end RESULTS (with REPORT=1 only RESULTS, from the files that exist): tables and figures, the
# judge compared with oracles (judge_I.json for iteration I; judge_rehearsal_I.json if the trained model judges), the
# training data (data.json), the records per model call of search and baselines (budget_seed_S.json).
#
# RUN_DIR      runs/experiment          RESULTS   results
# SEEDS        "0 1 2"                  ITERATIONS 3
# ARMS         "agent_r direct optimal_good optimal dpo"    CONTROLS "optimal_good_long best_of_n direct_search"
# ABLATIONS    "unverified uncleaned duplicates raw self rehearsal optimal"
# LANES        number of cells that run at once; default: the number of cores. A cell is one iteration of one arm and seed
# SHARE        4: an iteration searches every SHARE-th training goal; different ones in each iteration
# ITERA, N_GEN, N_ROLLOUT, MAX_DEPTH: settings of the search (3, 4, 2, 14). EVAL_STEPS 20, REVISE_STEPS 10, EVAL_IDS test
# TRAIN_FLAGS  "--accumulation 4"
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$PYTHON")" ] || bash scripts/setup.sh
export RUN_DIR=${RUN_DIR:-runs/experiment} RESULTS=${RESULTS:-results} SEEDS=${SEEDS:-0 1 2} ITERATIONS=${ITERATIONS:-3}
export ARMS=${ARMS-agent_r direct optimal_good optimal dpo} CONTROLS=${CONTROLS-optimal_good_long best_of_n direct_search}
export ABLATIONS=${ABLATIONS-unverified uncleaned duplicates raw self rehearsal optimal}
export LANES=${LANES:-$(nproc)} SHARE=${SHARE:-4}
. scripts/fixed.sh
fixed MAX_DEPTH ITERA N_GEN N_ROLLOUT
export WARM_N=0 WARM_NOISE=0 WARM_EPOCHS=3 ROWS=0 REVISE=1 RECOVERY=1 DRY_RUN=${DRY_RUN:-0} COMMAND="bash scripts/experiment.sh"
export TASK=textcraft BASE_MODEL=models/tiny_actor MODEL_NAME=tiny_actor TRAIN_CONFIG=tiny_actor MAX_DEPTH=${MAX_DEPTH:-14} ITERA=${ITERA:-3} N_GEN=${N_GEN:-4} N_ROLLOUT=${N_ROLLOUT:-2}
export EVAL_STEPS=${EVAL_STEPS:-20} REVISE_STEPS=${REVISE_STEPS:-10} EVAL_IDS=${EVAL_IDS:-test} TRAIN_FLAGS=${TRAIN_FLAGS:---accumulation 4}
export MAX_TOKEN_LENGTH=64 OMP_NUM_THREADS=1
exec "$PYTHON" -m mcts_utils.pipeline.experiment
