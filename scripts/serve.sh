#!/usr/bin/env bash
# Serves a model as an OpenAI-compatible endpoint: with vLLM, llama.cpp, or without a GPU with the local actor.
#   MODEL_DIR=runs/x/model bash scripts/serve.sh [further flags of the server]
# Waits until the server answers, checks that its chat template gives the tokens that are trained
# (mcts_utils/training/tokenizer_check.py), prints the exports to use, and keeps running; Ctrl-C or SIGTERM stops the script
# and the server. Exit code 1: the server ended by itself, or its tokens differ from the trained ones; 2: bad input.
# PORT (8000), HOST (127.0.0.1), MODEL_NAME (the folder's name), SERVE_TIMEOUT (1800 s), SERVE_LOG (runs/serve_PORT.log);
# SERVER_TOKEN: what requests to llama.cpp and the local actor must carry; CHAT_TEMPLATE: file of a chat template in place
# of the model's own.
# SERVE (vllm if it is on PATH and there is a GPU; llamacpp for a GGUF file; else local):
#   vllm      the one on PATH, else that of scripts/setup_vllm.sh. TENSOR_PARALLEL: GPUs for one copy of the model;
#             VLLM_CPU_KVCACHE_SPACE: GiB for keys and values, without a GPU (2)
#   llamacpp  MODEL_DIR is a GGUF file, or a folder with one. llama-server on PATH, else the package of setup.sh --llamacpp
#   local     the local actor, which also reads NUMBER_FORMAT and CACHE_GB
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
die() { echo "serve.sh: $1" >&2; exit "${2:-2}"; }
has() { command -v "$1" >/dev/null; }
has "$python" || die "$python is missing: run bash scripts/setup.sh"
has_gpu() { nvidia-smi >/dev/null 2>&1 || [ -e /dev/kfd ]; } # NVIDIA's or AMD's
model=${MODEL_DIR:-} mode=${SERVE:-}
if [ -z "$mode" ]; then
  mode=local
  if [[ $model == *.gguf ]]; then mode=llamacpp; elif has vllm && has_gpu; then mode=vllm; fi
fi
weights=$model name=${MODEL_NAME:-$(basename "$(realpath -m "${model:-.}")" .gguf)}
if [ "$mode" = llamacpp ]; then
  if [ -d "$model" ]; then weights=$(echo "$model"/*.gguf); else model=$(dirname "$model"); fi
  [ -f "$weights" ] || die "SERVE=llamacpp: MODEL_DIR is no GGUF file and no folder with one: '${MODEL_DIR:-}'"
else
  [ -f "$model/config.json" ] || die "MODEL_DIR is no model folder: '$model'"
fi
host=${HOST:-127.0.0.1} port=${PORT:-8000} limit=${SERVE_TIMEOUT:-1800}
log=${SERVE_LOG:-runs/serve_$port.log}
# In all three the chat template is the model's own, and so is the distribution that the search samples from: no top_p of
# generation_config.json (0.9 for Llama 3.1), no top-k and min-p of llama.cpp.
case $mode in
  vllm)
    vllm=$(command -v vllm || command -v .venv-vllm/bin/vllm) ||
      die "SERVE=vllm: there is no vllm on PATH; without a GPU: bash scripts/setup_vllm.sh"
    command=("$vllm" serve "$model" --served-model-name "$name" --host "$host" --port "$port" --enable-prefix-caching
      --generation-config vllm --chat-template-content-format string)
    if ! has_gpu; then
      # A request with a seed whose prompt is split ends the CPU engine; compiling takes a minute of each start; without
      # the variable it asks for most of the memory.
      command+=(--no-enable-chunked-prefill --enforce-eager)
      export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
    fi
    [ -z "${CHAT_TEMPLATE:-}" ] || command+=(--chat-template "$CHAT_TEMPLATE")
    [ -z "${TENSOR_PARALLEL:-}" ] || command+=(--tensor-parallel-size "$TENSOR_PARALLEL")
    ;;
  llamacpp)
    command=(llama-server --jinja)
    if ! has llama-server; then
      command=("$python" -m mcts_utils.actors.llama_server)
      "$python" -c 'import xllamacpp' 2>/dev/null ||
        die "SERVE=llamacpp: there is no llama-server on PATH; run bash scripts/setup.sh --llamacpp"
    fi
    command+=(--model "$weights" --alias "$name" --host "$host" --port "$port" --top-k 0 --top-p 1 --min-p 0
      --parallel 8 --ctx-size 32768 --cache-ram 2048)
    [ -z "${CHAT_TEMPLATE:-}" ] || command+=(--chat-template-file "$CHAT_TEMPLATE")
    [ -z "${SERVER_TOKEN:-}" ] || export LLAMA_API_KEY=$SERVER_TOKEN
    [ -z "${OMP_NUM_THREADS:-}" ] || command+=(--threads "$OMP_NUM_THREADS")
    ;;
  local) command=("$python" -m mcts_utils.actors.serve --model_dir "$model" --name "$name" --host "$host" --port "$port") ;;
  *) die "SERVE must be vllm, llamacpp or local: '$mode'" ;;
esac
answers() { # whether something answers GET /health at $url
  "$python" -c 'import sys, urllib.request as r
r.build_opener(r.ProxyHandler({})).open(sys.argv[1] + "/health", timeout=5)' "$url" 2>/dev/null
}
ended() { # says why the server ended: the first error of its log, of which later ones are consequences
  local code=0 line
  wait "$pid" || code=$?
  # vLLM and llama.cpp begin their lines with a process or a time, and a level.
  line=$(tail -n 500 "$log" | sed -E 's/^\([A-Za-z0-9_]+ pid=[0-9]+\) //; /^(INFO|WARNING)/d; /^[0-9.]+ [IWD] /d
    s/^ERROR [-0-9: ]+\[[^]]*\] /ERROR: /; s/^[0-9.]+ E +/ERROR: /' |
    grep -vE '^ERROR: ( |$|Traceback|EngineCore failed)|ValidationError: [0-9]' |
    grep -E '(ERROR|Error|Exception): +.|Value error, |^error: ' | sed -nE '1s/^ *(ERROR: +)?//p') || true
  line=${line:-$(tail -n 1 "$log")}
  if [ "$code" = 137 ]; then line="killed, as where memory runs out: $line"; fi
  die "the server ended: $line (log: $log)" 1
}
case $host in *:*) url=http://[$host]:$port ;; *) url=http://$host:$port ;; esac
if [ "$port" != 0 ] && answers; then die "PORT=$port: something answers there already"; fi
mkdir -p "$(dirname "$log")"
: >"$log" # it is read before the server has opened it
set -m # a process group of its own: vLLM's engine is a child that outlives a server which is killed
"${command[@]}" "$@" >"$log" 2>&1 &
pid=$!
set +m
stop() {
  trap - EXIT
  local tenths=0
  kill "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && [ "$((tenths += 1))" -lt 200 ]; do sleep 0.1; done
  kill -9 -- "-$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
deadline=$((SECONDS + limit))
until [ "$port" != 0 ] && answers; do
  kill -0 "$pid" 2>/dev/null || ended
  [ "$SECONDS" -lt "$deadline" ] || die "no answer at $url in $limit s (log: $log)" 1
  if [ "$port" = 0 ]; then # the local actor and llama.cpp take a free port and print it
    found=$(sed -nE 's/^.* on (http[^ ]+)$/\1/p' "$log" | head -n 1)
    if [ -n "$found" ]; then url=$found port=${found##*:} && continue; fi
  fi
  sleep 0.5 &
  wait $! # a signal ends this wait at once
done
checked=0
"$python" -m mcts_utils.training.tokenizer_check --model_dir "$model" --base_url "$url" || checked=$?
[ "$checked" != 1 ] || die "$url serves another chat template than the one that is trained" 1
echo "export OPENAI_BASE_URL=$url/v1"
echo "export MODEL_NAME=$name"
echo "serve.sh: $mode serves $model, process $pid, log $log; Ctrl-C ends it" >&2
ended
