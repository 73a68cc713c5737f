#!/usr/bin/env bash
# Serves a model folder as an OpenAI-compatible endpoint: with vLLM, or without a GPU with the local actor.
#   MODEL_DIR=runs/x/model bash scripts/serve.sh [further flags of the server]
# Waits until the server answers, checks that its chat template gives the tokens that are trained
# (mcts_utils/training/tokenizer_check.py), prints the exports to use, and keeps running; Ctrl-C or SIGTERM stops the script
# and the server. Exit code 1: the server ended by itself, or its tokens differ from the trained ones; 2: bad input.
# PORT (8000), HOST (127.0.0.1), MODEL_NAME (the folder's name), SERVE=vllm|local (vllm if it is installed and there is a GPU),
# SERVE_TIMEOUT (1800 s), SERVE_LOG (runs/serve_PORT.log); TENSOR_PARALLEL: GPUs for one copy of the model; CHAT_TEMPLATE:
# file of a chat template in place of the model's own. The local actor also reads NUMBER_FORMAT and CACHE_GB.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
die() { echo "serve.sh: $1" >&2; exit "${2:-2}"; }
[ -x "$(command -v "$python")" ] || die "$python is missing: run bash scripts/setup.sh"
model=${MODEL_DIR:-}
[ -f "$model/config.json" ] || die "MODEL_DIR is no model folder: '$model'"
name=${MODEL_NAME:-$(basename "$(cd "$model" && pwd)")}
host=${HOST:-127.0.0.1} port=${PORT:-8000} limit=${SERVE_TIMEOUT:-1800}
log=${SERVE_LOG:-runs/serve_$port.log}
mode=${SERVE:-}
if [ -z "$mode" ]; then
  mode=local
  if command -v vllm >/dev/null && nvidia-smi >/dev/null 2>&1; then mode=vllm; fi
fi
case $mode in
  # The chat template is the folder's own. Sampling defaults of generation_config.json (top_p 0.9 for Llama 3.1) would
  # change the distribution that the search samples from.
  vllm)
    command=(vllm serve "$model" --served-model-name "$name" --host "$host" --port "$port" --enable-prefix-caching
      --generation-config vllm --chat-template-content-format string)
    [ -z "${CHAT_TEMPLATE:-}" ] || command+=(--chat-template "$CHAT_TEMPLATE")
    [ -z "${TENSOR_PARALLEL:-}" ] || command+=(--tensor-parallel-size "$TENSOR_PARALLEL")
    ;;
  local) command=("$python" -m mcts_utils.actors.serve --model_dir "$model" --name "$name" --host "$host" --port "$port") ;;
  *) die "SERVE must be vllm or local: '$mode'" ;;
esac
answers() { # whether something answers GET /health at $url
  "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/health", timeout=5)' "$url" 2>/dev/null
}
url=http://$host:$port
if [ "$port" != 0 ] && answers; then die "PORT=$port: something answers there already"; fi
mkdir -p "$(dirname "$log")"
: >"$log" # it is read before the server has opened it
"${command[@]}" "$@" >"$log" 2>&1 &
pid=$!
stop() {
  trap - EXIT
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
deadline=$((SECONDS + limit))
until [ "$port" != 0 ] && answers; do
  kill -0 "$pid" 2>/dev/null || die "the server ended: $(tail -n 1 "$log") (log: $log)" 1
  [ "$SECONDS" -lt "$deadline" ] || die "no answer at $url in $limit s (log: $log)" 1
  if [ "$port" = 0 ]; then # the local actor takes a free port and prints it
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
wait "$pid" || true
die "the server ended: $(tail -n 1 "$log") (log: $log)" 1
