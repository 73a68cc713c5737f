#!/usr/bin/env bash
# All of Agent-R: several iterations over several environments, with one model trained on the records of all of them.
#
#   MODEL_DIR=/models/Llama-3.1-8B-Instruct bash scripts/run_all.sh
#   DRY_RUN=1 ... bash scripts/run_all.sh      prints every command, and an estimate of the cost from a small sample
#
# Every iteration searches and revises in each environment, trains on all records together, serves the new model and
# evaluates it. The next one starts from that model. The same command again resumes; finished steps are not repeated.
#
# MODEL_DIR          the weights to start from
# TASKS              "textcraft sciworld webshop". ENV_SERVER_BASE_TEXTCRAFT (_SCIWORLD, _WEBSHOP): address of a public
#                    or bundled server; if it is empty, the bundled server is started. An environment of your own is one, too:
#                    TASKS="./my_env.py:make", its variables end with _MY_ENV_MAKE (docs/your-environment.md)
# ITERATIONS         3. ALPHAS "0.5 0.7 1.0" (Section 4.2), EPOCHS "3 1 1" (Appendix C.1): one value per
#                    iteration; the last one holds for all further ones
# RUN_DIR            runs/run_all: iteration_K/TASK/{mcts_result,records,test_result}, iteration_K/model, a summary.json of
#                    each iteration and of all; iteration_0 is the evaluation of MODEL_DIR (EVAL_BASE=0: none)
# TASK_IDS_TEXTCRAFT ... train (default), a list such as 0-9,31, or a file. TEST_IDS_TEXTCRAFT ...: test tasks, default test
# STEPS=warm_start   train MODEL_DIR on expert episodes first; iteration 1 begins with that model, iteration_0 evaluates it.
#                    WARM_N (240): episodes of each environment; WARM_NOISE (0): share with a slip and its repair; WARM_EPOCHS
#                    (3); WARM_IDS: other tasks than TASK_IDS_...; WARM_DATA: AgentGym's trajectories, a file or folder, in
#                    place of the bundled experts
# MAX_DEPTH          most steps of a search path: 20, ScienceWorld 50. EVAL_STEPS: most steps of a test episode, 100. Other
#                    settings of the stages (ITERA, N_ROLLOUT, CONCURRENCY, SEED ...) come from the shell or .env
# OPENAI_BASE_URL    an endpoint that serves MODEL_DIR as MODEL_NAME; it answers until the first model is trained. Trained
#                    models are served by scripts/serve.sh: SERVE=vllm|local, SERVE_PORT (8000)
# TRAIN_CONFIG       full, lora, qlora, tiny_actor or another of xtuner_config/ (by the size of MODEL_DIR); TRAIN_FLAGS: further flags
#                    of train.py
# REHEARSE=1         train on the judge's own verdicts too, so that the model can still judge in the next iteration
# REVISE=0           no judge: revisions are cut at the first refused step
# GENERAL_DATA       file of ShareGPT rows to mix in; ETA (0.2, Section 3.2) is the share of agent rows
# PLAYER=scripted    to try the script on a small machine: a scripted player searches and judges in place of a model. It knows
#                    the bundled servers' solutions and makes a mistake in a turn with probability NOISE (0.3). N_TRAIN,
#                    N_TEST (24): tasks of each environment; EVAL_TASKS: number of test tasks for the model; EVAL_PLAYER=1:
#                    evaluate the player too
# VERIFY=1           execute all records again and report
# DRY_RUN=1          SAMPLE (2): tasks of each environment to measure; 0: no estimate. Assumed rates: TOKENS_PER_SECOND and
#                    PREFILL_TOKENS_PER_SECOND of the endpoint, TRAIN_TOKENS_PER_SECOND of a GPU, GPUS, DOLLARS_PER_GPU_HOUR,
#                    OVERHEAD_MINUTES of an iteration; the output states their values
set -euo pipefail
case ${TASKS-} in *.py:*) # files of your own, relative to here
  # shellcheck disable=SC2086 # environments are words
  TASKS=$(for task in $TASKS; do case $task in /*) ;; *.py:*) task=$PWD/$task ;; esac; printf ' %s' "$task"; done) ;;
esac
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$PYTHON")" ] || { echo "run_all.sh: $PYTHON is missing: run bash scripts/setup.sh" >&2; exit 2; }
export TASKS=${TASKS:-textcraft sciworld webshop} ITERATIONS=${ITERATIONS:-3} ALPHAS=${ALPHAS:-0.5 0.7 1.0} EPOCHS=${EPOCHS:-3 1 1}
export RUN_DIR=${RUN_DIR:-runs/run_all} EVAL_BASE=${EVAL_BASE:-1} EVAL_STEPS=${EVAL_STEPS:-100} VERIFY=${VERIFY:-0} REHEARSE=${REHEARSE:-0} REVISE=${REVISE:-1}
export STEPS=${STEPS:-} WARM_N=${WARM_N:-240} WARM_NOISE=${WARM_NOISE:-0} WARM_EPOCHS=${WARM_EPOCHS:-3} WARM_DATA=${WARM_DATA:-} WARM_IDS=${WARM_IDS:-}
export SERVE_PORT=${SERVE_PORT:-8000} TRAIN_CONFIG=${TRAIN_CONFIG:-} TRAIN_FLAGS=${TRAIN_FLAGS:-}
export GENERAL_DATA=${GENERAL_DATA:-} ETA=${ETA:-0.2} PLAYER=${PLAYER:-model} NOISE=${NOISE:-0.3} N_TRAIN=${N_TRAIN:-24} N_TEST=${N_TEST:-24}
export EVAL_TASKS=${EVAL_TASKS:-0} EVAL_PLAYER=${EVAL_PLAYER:-0} DRY_RUN=${DRY_RUN:-0} SAMPLE=${SAMPLE:-2}
export TOKENS_PER_SECOND=${TOKENS_PER_SECOND:-2000} PREFILL_TOKENS_PER_SECOND=${PREFILL_TOKENS_PER_SECOND:-10000}
export TRAIN_TOKENS_PER_SECOND=${TRAIN_TOKENS_PER_SECOND:-1500} GPUS=${GPUS:-8} DOLLARS_PER_GPU_HOUR=${DOLLARS_PER_GPU_HOUR:-2}
export OVERHEAD_MINUTES=${OVERHEAD_MINUTES:-20} GENERAL_TOKENS_PER_ROW=${GENERAL_TOKENS_PER_ROW:-500}
exec "$PYTHON" -m mcts_utils.pipeline.run_all
