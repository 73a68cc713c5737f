#!/usr/bin/env bash
# The whole of Agent-R: some iterations over several environments, one model trained on the records of all of them.
#
#   MODEL_DIR=/models/Llama-3.1-8B-Instruct TRAIN_CONFIG=llama3_8b_instruct_full_agent_r bash scripts/run_all.sh
#   DRY_RUN=1 ... bash scripts/run_all.sh      prints every command, and what it will cost, from a small measured sample
#
# Every iteration: search and revise on each environment, train on all records together, serve the new model, evaluate
# it. The next one starts from that model. The same command again goes on where it stopped; finished steps start nothing.
#
# MODEL_DIR          the weights to start from
# TASKS              "textcraft sciworld webshop". ENV_SERVER_BASE_TEXTCRAFT (_SCIWORLD, _WEBSHOP): a server's address,
#                    public or ours; where it is empty the bundled server is started
# ITERATIONS         3. ALPHAS "0.5 0.7 1.0" (Section 4.2), EPOCHS "3 1 1" (Appendix C.1): a word for each, the last one for more
# RUN_DIR            runs/run_all: iteration_K/TASK/{mcts_result,records,test_result}, iteration_K/model, a summary.json for
#                    each and for all; iteration_0 is the evaluation of MODEL_DIR (EVAL_BASE=0: none)
# TASK_IDS_TEXTCRAFT ... train (default), a list such as 0-9,31, or a file. TEST_IDS_TEXTCRAFT ...: test tasks, default test
# MAX_DEPTH          steps of a search path: 20, ScienceWorld 50. EVAL_STEPS: of a test episode, 100. Other settings of the
#                    stages (ITERA, N_ROLLOUT, CONCURRENCY, SEED ...) come from the shell or .env, as everywhere
# OPENAI_BASE_URL    an endpoint that serves MODEL_DIR as MODEL_NAME: asked in place of MODEL_DIR, as long as nothing is
#                    trained. All trained models are served by scripts/serve.sh: SERVE=vllm|local, SERVE_PORT (8000)
# TRAIN_CONFIG       tiny_actor, llama3_8b_instruct_full_agent_r or another of xtuner_config/; TRAIN_FLAGS: more of train.py's
# REHEARSE=1         train on the judge's own verdicts too, so that the model can judge in the next iteration as well
# GENERAL_DATA       a ShareGPT-style JSON to mix in at ETA (0.2, Section 3.2)
# PLAYER=scripted    who searches and judges is a player with slips (chance NOISE, 0.3) that knows the bundled servers'
#                    solutions, in place of a model: to try all of this on a small machine. N_TRAIN, N_TEST (24): tasks of
#                    each environment; EVAL_TASKS: the first so many test tasks for the model; EVAL_PLAYER=1: the player too
# VERIFY=1           execute all records once more and report
# DRY_RUN=1          SAMPLE (2): tasks of each environment to measure; 0: no estimate. Assumed rates: TOKENS_PER_SECOND and
#                    PREFILL_TOKENS_PER_SECOND of the endpoint, TRAIN_TOKENS_PER_SECOND of a GPU, GPUS, DOLLARS_PER_GPU_HOUR,
#                    OVERHEAD_MINUTES of an iteration; the output names their values
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
DRY_RUN=${DRY_RUN:-0} dry=${DRY_RUN:-0}
. scripts/processes.sh
. scripts/steps.sh
[ -x "$(command -v "$python")" ] || die "$python is missing: run bash scripts/setup.sh"

# --- settings
TASKS=${TASKS:-textcraft sciworld webshop} ITERATIONS=${ITERATIONS:-3} EVAL_BASE=${EVAL_BASE:-1} EVAL_STEPS=${EVAL_STEPS:-100}
PLAYER=${PLAYER:-model} NOISE=${NOISE:-0.3} N_TRAIN=${N_TRAIN:-24} N_TEST=${N_TEST:-24} EVAL_TASKS=${EVAL_TASKS:-0}
EVAL_PLAYER=${EVAL_PLAYER:-0} VERIFY=${VERIFY:-0} REHEARSE=${REHEARSE:-0} SAMPLE=${SAMPLE:-2} SERVE_PORT=${SERVE_PORT:-8000}
SEED=$(setting SEED 0) MODEL_DIR=$(setting MODEL_DIR) TRAIN_CONFIG=${TRAIN_CONFIG:-tiny_actor}
endpoint=$(setting OPENAI_BASE_URL) base_name=$(setting MODEL_NAME) depth=$(setting MAX_DEPTH)
run=${RUN_DIR:-runs/run_all}
read -r -a alphas <<<"${ALPHAS:-0.5 0.7 1.0}"
read -r -a epochs <<<"${EPOCHS:-3 1 1}"
read -r -a tasks <<<"$TASKS"
read -r -a train_flags <<<"${TRAIN_FLAGS:-}"
one_of PLAYER model scripted
for variable in DRY_RUN EVAL_BASE EVAL_PLAYER VERIFY REHEARSE; do one_of "$variable" 0 1; done
for variable in ITERATIONS:1 EVAL_STEPS:1 N_TRAIN:1 N_TEST:1 EVAL_TASKS:0 SAMPLE:0 SERVE_PORT:0 SEED:0; do
  whole "${variable%:*}" "${variable#*:}"
done
[ "${#tasks[@]}" -gt 0 ] || die "TASKS names no environment: '$TASKS'"
for EPOCHS in "${epochs[@]}"; do whole EPOCHS 1; done
for ALPHAS in "${alphas[@]}"; do
  [[ $ALPHAS =~ ^(0|0?\.[0-9]+|1|1\.0+)$ ]] || die "ALPHAS must be numbers from 0 to 1: '$ALPHAS'"
done
[ -f "xtuner_config/$TRAIN_CONFIG.py" ] || die "TRAIN_CONFIG is no config of xtuner_config/: '$TRAIN_CONFIG'"
[ -z "${GENERAL_DATA:-}" ] || [ -f "$GENERAL_DATA" ] || die "GENERAL_DATA is no file: '$GENERAL_DATA'"
[ -n "$MODEL_DIR" ] || die "MODEL_DIR is not set: the weights to start from"
model_here=1
if [ ! -f "$MODEL_DIR/config.json" ]; then
  [ "$dry" = 1 ] || die "MODEL_DIR is no model folder: '$MODEL_DIR'"
  model_here=0 # planning where the weights are not
fi
base_name=${base_name:-$(basename "$MODEL_DIR")}
bundled() { [ -d "mcts_utils/servers/$1" ]; }
for task in "${tasks[@]}"; do
  [ -f "mcts_utils/envs/specs/$task.py" ] && [ "$task" != base ] && [ "$task" != __init__ ] \
    || die "TASKS names no known environment: '$task'"
  address=ENV_SERVER_BASE_$(upper "$task")
  if [ "$PLAYER" = scripted ]; then
    bundled "$task" && [ -z "${!address:-}" ] || die "PLAYER=scripted plays on the bundled servers only: $task, $address='${!address:-}'"
  else
    bundled "$task" || [ -n "${!address:-}" ] || die "$address is not set, and no server of ours plays $task"
  fi
  for variable in TASK_IDS TEST_IDS; do
    given=${variable}_$(upper "$task")
    ids=${!given:-train}
    [ -f "$ids" ] || [[ $ids =~ ^(train|test|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$ ]] \
      || die "$given must be train, test, a file or a list such as 0-9,31: '$ids'"
  done
done
# What the stages read by themselves is checked here as well; the prompt is the one that the model was trained with.
prompt=$(MODEL_DIR=$([ "$model_here" = 0 ] || echo "$MODEL_DIR") "$python" -c 'import sys
from mcts_utils import config, types
try: print(config.settings_from_env().prompt)
except types.InputError as error: sys.exit(f"run_all.sh: {error}")') || exit 2

# --- who and where
depth_of() { echo "${depth:-$([ "$1" = sciworld ] && echo 50 || echo 20)}"; }
weights_of() { [ "$1" = 0 ] && echo "$MODEL_DIR" || echo "$run/iteration_$1/model"; }
name_of() { [ "$1" = 0 ] && echo "$base_name" || echo "$(basename "$MODEL_DIR")-$1"; }
playing() { [ "$PLAYER" = scripted ] && echo "$1-expert" || name_of "$2"; } # TASK K: whose trees they are

base=() # of a stage's command
at() { # TASK: the environment of its stages
  base=(env "TASK=$1" "ENV_SERVER_BASE=@ENV_SERVER_BASE_$(upper "$1")" "SEED=$SEED" "PROMPT=$prompt")
}
as_model() { # K: the model of iteration K answers
  base+=("MODEL_DIR=$(weights_of "$1")" "MODEL_NAME=$(name_of "$1")")
  if [ "$1" = 0 ] && [ -n "$endpoint" ]; then
    base+=("OPENAI_BASE_URL=$endpoint")
  else
    base+=("OPENAI_BASE_URL=@served" OPENAI_API_KEY=) && needs+=("model $1")
  fi
}
as_player() { # TASK
  base+=(MODEL_DIR= "MODEL_NAME=$1-expert" "OPENAI_BASE_URL=@player_$1" OPENAI_API_KEY=) && needs+=("player $1")
}
as_actor() { if [ "$PLAYER" = scripted ]; then as_player "$1"; else as_model "$2"; fi; } # TASK K
ready() { # "server TASK", "player TASK", "model K", "memory" (of the GPUs, for training): what a step needs
  local what=${1%% *} of=${1#* }
  case $what in
    server)
      local flags=(--port 0)
      [ "$of" != sciworld ] || flags+=(--reproducible) # so that every record comes back as it was written
      launch "ENV_SERVER_BASE_$(upper "$of")" "$logs/$of.log" "$python" -m "mcts_utils.servers.$of" "${flags[@]}"
      ;;
    player) launch "player_$of" "$logs/${of}_player.log" "$python" -m mcts_utils.servers.mock_llm --port 0 --env "$of" --noise "$NOISE" ;;
    memory) halt served ;;
    model)
      if [ "$serving" != "$of" ]; then halt served; fi
      serving=$of
      START_SECONDS=${SERVE_TIMEOUT:-1800} launch served "$logs/serve_$of.log" env "MODEL_DIR=$(weights_of "$of")" \
        "MODEL_NAME=$(name_of "$of")" "PORT=$SERVE_PORT" "PYTHON=$python" "SERVE_LOG=$logs/serve_$of.server.log" bash scripts/serve.sh
      ;;
  esac
}
served='' serving='' logs=$run/logs

# --- the stages: what a step's command is made of
collect() { # FOLDER TASK K IDS
  needs=("server $2")
  at "$2" && as_actor "$2" "$3"
  base+=("MAX_DEPTH=$(depth_of "$2")")
  may_fail=1 step "$1/$2/collect" "$run/$1/$2/mcts_result/$2/$(playing "$2" "$3")/manifest.json" \
    "${base[@]}" "$python" mcts_collection.py --task_ids "$4" --output_dir "$run/$1/$2/mcts_result"
}
kinds=(centric good)
[ "$REHEARSE" = 0 ] || kinds+=(verdicts)
revise() { # FOLDER TASK K ALPHA
  local kind
  for kind in "${kinds[@]}"; do
    needs=("server $2")
    at "$2" && as_actor "$2" "$3"
    base+=("MAX_DEPTH=$(depth_of "$2")" "ALPHA=$4")
    step "$1/$2/revise_$kind" "$run/$1/$2/records/$2_$kind.manifest.json" "${base[@]}" "$python" path_collection.py \
      --input_dir "$run/$1/$2/mcts_result/$2/$(playing "$2" "$3")" --output_dir "$run/$1/$2/records" --data_type "$kind" --revise 1
  done
}
verify() { # FOLDER TASK
  local kind
  for kind in centric good; do
    needs=("server $2")
    at "$2"
    into=1 step "$1/$2/verify_$kind" "$run/$1/$2/verified_$kind.txt" \
      "${base[@]}" "$python" path_collection.py --verify "$run/$1/$2/records/$2_$kind.jsonl"
  done
}
evaluate() { # FOLDER TASK K|player IDS
  local out=test_result who steps=$EVAL_STEPS
  needs=("server $2")
  at "$2"
  if [ "$3" = player ]; then
    as_player "$2" && who=$2-expert out=player_result steps=$(depth_of "$2")
  else
    as_model "$3" && who=$(name_of "$3")
  fi
  base+=(MODEL_TYPE=greedy)
  may_fail=1 step "$1/$2/evaluate$([ "$3" != player ] || echo _player)" "$run/$1/$2/$out/$2/${who}_greedy/manifest.json" \
    "${base[@]}" "$python" eval.py --task_ids "$4" --max_steps "$steps" --output_dir "$run/$1/$2/$out"
}
train() { # K
  local task kind files=()
  for task in "${tasks[@]}"; do
    for kind in "${kinds[@]}"; do files+=("$run/iteration_$1/$task/records/${task}_$kind.jsonl"); done
  done
  needs=(memory)
  step "iteration_$1/train" "$run/iteration_$1/model/manifest.json" env "PYTHON=$python" bash scripts/train.sh --data "${files[@]}" \
    ${GENERAL_DATA:+--general "$GENERAL_DATA" --eta "${ETA:-0.2}"} --config "$TRAIN_CONFIG" --model_dir "$(weights_of $(($1 - 1)))" \
    --output_dir "$run/iteration_$1/model" --epochs "$(nth "$1" "${epochs[@]}")" --seed "$SEED" ${train_flags[@]+"${train_flags[@]}"}
}
table() { # iteration|iterations FOLDER
  local command=("$python" -m "mcts_utils.report.runs.$1" "$2" "${tasks[@]}")
  if [ "$dry" = 1 ]; then show "${command[@]}"; else "${command[@]}"; fi
}
all_iterations() {
  local k i folder
  if [ "$EVAL_BASE" = 1 ]; then
    for i in "${!tasks[@]}"; do evaluate iteration_0 "${tasks[i]}" 0 "${test_ids[i]}"; done
  fi
  for ((k = 1; k <= ITERATIONS; k++)); do
    folder=iteration_$k
    echo "# iteration $k of $ITERATIONS: alpha $(nth "$k" "${alphas[@]}"), epochs $(nth "$k" "${epochs[@]}"), from $(weights_of $((k - 1)))"
    for i in "${!tasks[@]}"; do
      [ "$EVAL_PLAYER" = 0 ] || evaluate "$folder" "${tasks[i]}" player "${player_ids[i]}"
      collect "$folder" "${tasks[i]}" $((k - 1)) "${train_ids[i]}"
      revise "$folder" "${tasks[i]}" $((k - 1)) "$(nth "$k" "${alphas[@]}")"
      [ "$VERIFY" = 0 ] || verify "$folder" "${tasks[i]}"
    done
    train "$k"
    for i in "${!tasks[@]}"; do evaluate "$folder" "${tasks[i]}" "$k" "${test_ids[i]}"; done
    table iteration "$run/$folder"
  done
  table iterations "$run"
}

# --- which tasks
train_ids=() test_ids=() player_ids=()
for task in "${tasks[@]}"; do
  one=TASK_IDS_$(upper "$task") other=TEST_IDS_$(upper "$task")
  ids=(train test)
  if [ "$PLAYER" = scripted ]; then
    read -r -d '' -a ids <<<"$("$python" -m mcts_utils.servers.demo_tasks "$task" --train "$N_TRAIN" --test "$N_TEST")" || true
  fi
  train_ids+=("${!one:-${ids[0]}}") player_ids+=("${!other:-${ids[1]}}")
  if [ "$EVAL_TASKS" != 0 ]; then ids[1]=$(cut -d, -f "1-$EVAL_TASKS" <<<"${ids[1]}"); fi
  test_ids+=("${!other:-${ids[1]}}")
done

# --- settings that the stages read by themselves: shown, and part of what a step is known by
exported=()
others="SERVE SERVE_TIMEOUT TENSOR_PARALLEL NPROC_PER_NODE XTUNER_PYTHON" # of serve.sh and train.sh
for variable in $(sed -nE 's/^([A-Z_]+)=.*/\1/p' .env.example) $others; do
  case $variable in
    TASK | ENV_SERVER_BASE | MODEL_* | OPENAI_* | MAX_DEPTH | ALPHA | PROMPT | SEED) ;; # in the commands
    *) [ -z "${!variable:-}" ] || exported+=("$variable=${!variable}") ;;
  esac
done
passing="^(CONCURRENCY|WORKERS|EXECUTOR|RAY_[A-Z_]*|${others// /|})=" # where and how fast, not what
chain=$({ printf '%s\n' "$PLAYER $NOISE" "${exported[@]+"${exported[@]}"}" && cat .env 2>/dev/null || true; } | grep -vE "$passing" | digest)

if [ "$PLAYER" = scripted ]; then
  echo "# Scripted players (slips with chance $NOISE a turn) search and judge in: ${tasks[*]}. What is trained and evaluated is a model."
fi
if [ "$dry" = 0 ]; then
  mkdir -p "$logs"
  all_iterations
  if [ "$PLAYER" = scripted ]; then
    echo "Scripted players acted in: ${tasks[*]}. The figures say that the stages work there, nothing of a model's skill."
  fi
  exit
fi

# --- dry run: the commands, as a script of their own, then the estimate
echo "# Every command of this run, in order; nothing of it was run. As a file this is a script that does the same."
echo "set -euo pipefail"
show cd "$PWD"
echo ". scripts/processes.sh"
show mkdir -p "$logs"
[ "${#exported[@]}" = 0 ] || show export "${exported[@]}"
plan=$(all_iterations)
printf '%s\n' "$plan"
if ! grep -qE '^(env|start) ' <<<"$plan"; then
  echo "# Nothing is left to be done."
elif [ "$SAMPLE" != 0 ]; then
  . scripts/estimate.sh
fi
