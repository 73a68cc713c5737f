# shellcheck shell=bash
# Sourced by run_all.sh in a dry run: runs the stages on SAMPLE tasks of each environment in a folder that is thrown away,
# then prints what the whole run will take, as comments.
TOKENS_PER_SECOND=${TOKENS_PER_SECOND:-2000} PREFILL_TOKENS_PER_SECOND=${PREFILL_TOKENS_PER_SECOND:-10000}
TRAIN_TOKENS_PER_SECOND=${TRAIN_TOKENS_PER_SECOND:-1500} GPUS=${GPUS:-8} DOLLARS_PER_GPU_HOUR=${DOLLARS_PER_GPU_HOUR:-2}
OVERHEAD_MINUTES=${OVERHEAD_MINUTES:-20} GENERAL_TOKENS_PER_ROW=${GENERAL_TOKENS_PER_ROW:-500}
for variable in TOKENS_PER_SECOND PREFILL_TOKENS_PER_SECOND TRAIN_TOKENS_PER_SECOND GPUS DOLLARS_PER_GPU_HOUR \
  OVERHEAD_MINUTES GENERAL_TOKENS_PER_ROW; do
  [[ ${!variable} =~ ^[0-9]*\.?[0-9]+$ && ${!variable} =~ [1-9] ]] || die "$variable must be a number above 0: '${!variable}'"
done

# Who is measured, and why not the model itself.
why=
light_model() { # whether MODEL_DIR can answer here within reason
  [ "$model_here" = 1 ] || { why="MODEL_DIR is not on this machine"; return 1; }
  if [ "${SERVE:-}" = local ] || { command -v vllm >/dev/null && nvidia-smi >/dev/null 2>&1; }; then return 0; fi
  [ "$(du -skL "$MODEL_DIR" | cut -f 1)" -lt 1000000 ] || { why="MODEL_DIR is over 1 GB and there is no vLLM with a GPU here"; return 1; }
}
reached() { # URL: whether anything answers there, be it an error
  "$python" -c 'import sys, urllib.error as e, urllib.request as r
try: r.urlopen(sys.argv[1], timeout=10)
except e.HTTPError: pass' "$1" 2>/dev/null
}
if [ "$PLAYER" = scripted ]; then
  why="PLAYER=scripted"
elif [ -n "$endpoint" ]; then
  reached "$endpoint" || { why="OPENAI_BASE_URL does not answer" PLAYER=scripted; }
else
  light_model || PLAYER=scripted
fi
count() { # TASK SPLIT WANTED: "number ids", ids for the sample among them
  local at=ENV_SERVER_BASE_$(upper "$1")
  "$python" -m mcts_utils.report.cost pick "$1" "${!at}" "$2" "$SAMPLE"
}

dry=0 chain=sample
scratch=$(mktemp -d)
trap 'stop_all; rm -rf "$scratch"' EXIT
run=$scratch logs=$scratch/logs
mkdir -p "$logs"
plans=() notes=()
for i in "${!tasks[@]}"; do
  task=${tasks[i]} address=ENV_SERVER_BASE_$(upper "${tasks[i]}")
  echo "run_all.sh: measuring $SAMPLE tasks of $task" >&2
  if [ -n "${!address:-}" ] && ! reached "${!address}"; then
    notes+=("$address=${!address} does not answer: the bundled server is measured")
    printf -v "$address" ''
  fi
  if [ -z "${!address:-}" ] && ! bundled "$task"; then die "$address does not answer, and no server of ours plays $task"; fi
  ready "server $task"
  counted=$(count "$task" "${train_ids[i]}") && tested=$(count "$task" "${test_ids[i]}") || exit 2
  plans+=("$task:${counted%% *}:${tested%% *}")
  train_sample=${counted#* } test_sample=${tested#* } who=0
  if [ "$PLAYER" = scripted ]; then # its own tasks, on our server: it knows no others
    bundled "$task" || die "$task: no model answers ($why), and no scripted player knows it"
    who=player
    process=${address}_pid
    if [ -z "${!process:-}" ]; then printf -v "$address" '' && ready "server $task"; fi
    { read -r train_sample && read -r test_sample; } < <("$python" -m mcts_utils.servers.demo_tasks "$task" --train "$SAMPLE" --test "$SAMPLE")
  fi
  {
    collect sample "$task" 0 "$train_sample"
    revise sample "$task" 0 "${alphas[0]}"
    evaluate sample "$task" "$who" "$test_sample"
  } >"$scratch/$task.log"
done
if [ "$PLAYER" = scripted ]; then
  actor="scripted players with slips (chance $NOISE a turn), in place of a model ($why); 4 characters count as a token"
else
  actor="$base_name (${endpoint:-$MODEL_DIR})"
fi
echo "#"
echo "# Estimate. $SAMPLE tasks of each environment were searched, revised and evaluated by $actor."
for note in "${notes[@]+"${notes[@]}"}"; do echo "# $note."; done
all_epochs=()
for ((k = 1; k <= ITERATIONS; k++)); do all_epochs+=("$(nth "$k" "${epochs[@]}")"); done
flags=()
[ "$PLAYER" = model ] || flags+=(--scripted)
[ -z "${GENERAL_DATA:-}" ] || flags+=(--eta "${ETA:-0.2}")
"$python" -m mcts_utils.report.cost show "$scratch/sample" --plan "${plans[@]}" --epochs "${all_epochs[@]}" --base "$EVAL_BASE" \
  --tokens_per_second "$TOKENS_PER_SECOND" --prefill_tokens_per_second "$PREFILL_TOKENS_PER_SECOND" \
  --train_tokens_per_second "$TRAIN_TOKENS_PER_SECOND" --gpus "$GPUS" --dollars_per_gpu_hour "$DOLLARS_PER_GPU_HOUR" \
  --overhead_minutes "$OVERHEAD_MINUTES" --general_tokens_per_row "$GENERAL_TOKENS_PER_ROW" ${flags[@]+"${flags[@]}"} >"$scratch/estimate"
sed -e 's/^/# /' -e 's/ *$//' "$scratch/estimate"
