#!/usr/bin/env bash
# The paper's training arms in our small world: the bundled TextCraft and the bundled actor, three iterations, three seeds.
#
#   bash scripts/experiment.sh          hours on 2 cores; the same command again goes on where it stopped
#
# Arms (Figure 3): optimal, optimal_good, direct (direct revision + good), agent_r (revision + good), dpo (preference
# pairs). From iteration 2 on the untrained actor judges for agent_r: a small model that is trained on trajectories alone
# forgets how to. Ablations of agent_r, one iteration each: agent_r_unverified, agent_r_uncleaned, agent_r_duplicates, and
# agent_r_raw, which is all three. agent_r_self, two iterations: the trained model judges. All iterations:
# agent_r_rehearsal (it judges, and is trained on its own verdicts too, so that it can) and agent_r_optimal (revisions, and
# the shortest good path of each task alone). Controls, one iteration each: optimal_good_long (as many training steps as
# agent_r has, by more epochs), best_of_n and direct_search (agent_r's records from as many model calls without a search:
# rollouts, or rollouts that go on with a revision signal). The other arms of a seed share the search of iteration 1; later
# ones search by themselves.
# Every model is evaluated on the held-out goals (Table 2) and on the untrained actor's failed prefixes (Table 3).
# Writes RUN_DIR/..., and at the end (or with REPORT=1 at once, from what is there) RESULTS: the tables and figures, the
# judge held against oracles (judge_I.json for iteration I; judge_rehearsal_I.json where the trained model judges), the
# training data (data.json), the harvest of search and baselines (budget_seed_S.json).
#
# RUN_DIR      runs/experiment          RESULTS   results
# SEEDS        "0 1 2"                  ITERATIONS 3
# ARMS         "agent_r direct optimal_good optimal dpo"    CONTROLS "optimal_good_long best_of_n direct_search"
# ABLATIONS    "unverified uncleaned duplicates raw self rehearsal optimal"
# LANES        cells at once; the number of cores
# SHARE        4: an iteration searches every SHARE-th training goal, each iteration other ones
# ITERA, N_GEN, N_ROLLOUT, MAX_DEPTH: the search's (3, 4, 2, 14). EVAL_STEPS 20, REVISE_STEPS 10, EVAL_IDS test
# TRAIN_FLAGS  "--accumulation 4"
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
. scripts/processes.sh
die() { echo "experiment.sh: $1" >&2; exit 2; }
[ "${BASH_VERSINFO[0]}" -ge 5 ] || die "needs bash 5, this is $BASH_VERSION"
run=${RUN_DIR:-runs/experiment} results=${RESULTS:-results}
LANES=${LANES:-$(nproc)} SHARE=${SHARE:-4} ITERATIONS=${ITERATIONS:-3}
for variable in LANES SHARE ITERATIONS; do
  [[ ${!variable} =~ ^[1-9][0-9]*$ ]] || die "$variable must be a whole number, at least 1: '${!variable}'"
done
read -r -a seeds <<<"${SEEDS:-0 1 2}"
read -r -a arms <<<"${ARMS-agent_r direct optimal_good optimal dpo}"
read -r -a ablations <<<"${ABLATIONS-unverified uncleaned duplicates raw self rehearsal optimal}"
read -r -a controls <<<"${CONTROLS-optimal_good_long best_of_n direct_search}"
names=("${arms[@]}" "${ablations[@]/#/agent_r_}" "${controls[@]}")
for seed in "${seeds[@]}"; do [[ $seed =~ ^[0-9]+$ ]] || die "SEEDS must be whole numbers: '$seed'"; done
[ -x "$(command -v "$python")" ] || bash scripts/setup.sh

# One fixed experiment: nothing of a person's .env or shell may change it. Empty means the default, and wins over .env.
export OPENAI_BASE_URL= OPENAI_API_KEY= PROMPT= TEMP= UCT_C= CONCURRENCY= WORKERS= BETA= JUDGE_WAVE= EXECUTOR=
export TASK=textcraft MAX_DEPTH=${MAX_DEPTH:-14} ITERA=${ITERA:-3} N_GEN=${N_GEN:-4} N_ROLLOUT=${N_ROLLOUT:-2} MAX_TOKEN_LENGTH=64
export EVAL_STEPS=${EVAL_STEPS:-20} REVISE_STEPS=${REVISE_STEPS:-10} EVAL_IDS=${EVAL_IDS:-test} TRAIN_FLAGS=${TRAIN_FLAGS:---accumulation 4}
export RUN_DIR=$run PYTHON=$python OMP_NUM_THREADS=1

# ARM -> types (with flags of their own), flags, config, first_epochs of its training, its iterations, who searches and
# who judges for it
recipe() {
  config=tiny_actor flags= first_epochs=3 last=1 strategy=mcts judge=base from= # 3: Appendix C.1, then 1
  case $1 in
    optimal | optimal_good | direct | agent_r | agent_r_optimal | dpo) last=$ITERATIONS ;;
    agent_r_self) last=$((ITERATIONS < 2 ? ITERATIONS : 2)) judge=own ;;
    agent_r_rehearsal) last=$ITERATIONS judge=own ;;
  esac
  case $1 in
    optimal) types=(optimal) flags="--max_per_task 1" ;; # the shortest path of a task
    optimal_good) types=(good) ;;
    direct) types=(direct good) ;;
    optimal_good_long) types=(good) first_epochs=9 ;;
    agent_r) types=(centric good) ;;
    best_of_n) types=(centric good) strategy=best_of_n ;;
    direct_search) types=(centric good) strategy=direct_revision ;;
    dpo) types=(preference) config=tiny_actor_dpo ;;
    agent_r_self) types=(centric good) from=agent_r ;; # its first iteration is agent_r's
    agent_r_rehearsal) types=(centric good verdicts) ;;
    agent_r_optimal) types=(centric "optimal --max_per_task 1") ;;
    agent_r_unverified) types=(centric good) flags="--verified 0" ;;
    agent_r_uncleaned) types=(centric good) flags="--clean 0 --mask_refused 0" ;;
    agent_r_duplicates) types=(centric good) flags="--unique 0" ;;
    agent_r_raw) types=(centric good) flags="--verified 0 --clean 0 --mask_refused 0 --unique 0" ;;
    *) die "no such arm: '$1'" ;;
  esac
}
alpha_of() { case $1 in 1) echo 0.5 ;; 2) echo 0.7 ;; *) echo 1.0 ;; esac; } # Section 4.2

describe() { # what is asked for, for the report
  local name separator=
  printf '{"seeds": [%s], "iterations": %s, "arms": {' "$(IFS=,; echo "${seeds[*]}")" "$ITERATIONS"
  for name in "${names[@]}"; do
    recipe "$name"
    printf '%s\n"%s": {"data": [' "$separator" "$name"
    separator=,
    local comma= type own
    for type in "${types[@]}"; do
      read -r type own <<<"$type $flags"
      printf '%s["%s", "%s"]' "$comma" "$type" "$own" && comma=', '
    done
    printf '], "config": "%s", "iterations": %s, "from": "%s"}' "$config" "$last" "$from"
  done
  printf '}}\n'
}
mkdir -p "$run/logs" "$run/done"
plan=$(describe)
judge_report() { # ARM ITERATION FILE FLAG...: its judge of that iteration against the oracles
  local seed folder trees=() verdicts=()
  for seed in "${seeds[@]}"; do
    folder=$run/seed_$seed/$1/iteration_$2
    [ -f "$folder/model/manifest.json" ] || continue
    verdicts+=("$folder/records")
    [ "$2" != 1 ] || folder=$run/seed_$seed/shared
    trees+=("$folder/$trees_of")
  done
  [ "${#trees[@]}" = 0 ] || MODEL_DIR=models/tiny_actor "$python" -m mcts_utils.report.judge --trees "${trees[@]}" \
    --verdicts "${verdicts[@]}" "${@:4}" --output "$results/$3"
}
report() {
  local i seed folders trees_of=mcts_result/textcraft/tiny_actor
  "$python" -m mcts_utils.report.experiment "$run" --output "$results"
  judge_report agent_r 1 judge_1.json --judge 200 --asked "$run/judge_asked" # asked on purpose, once: half of them on good paths
  for ((i = 2; i <= ITERATIONS; i++)); do
    judge_report agent_r "$i" "judge_$i.json"
    judge_report agent_r_rehearsal "$i" "judge_rehearsal_$i.json"
  done
  folders=()
  for seed in "${seeds[@]}"; do [ ! -d "$run/seed_$seed/agent_r" ] || folders+=("$run/seed_$seed/agent_r"); done
  [ "${#folders[@]}" = 0 ] || "$python" -m mcts_utils.report.data "${folders[@]}" --output "$results/data.json"
  for seed in "${seeds[@]}"; do
    folders=()
    for i in shared best_of_n/iteration_1 direct_search/iteration_1; do
      [ ! -f "$run/seed_$seed/$i/$trees_of/manifest.json" ] || folders+=("$run/seed_$seed/$i/$trees_of")
    done
    [ "${#folders[@]}" -lt 2 ] || "$python" -m mcts_utils.report.budget "${folders[@]}" --output "$results/budget_seed_$seed.json"
  done
}
if [ "${REPORT:-0}" = 1 ]; then
  report
  exit
fi
printf '%s\n' "$plan" >"$run/arms.json"
for ((i = 1; i <= ITERATIONS; i++)); do
  "$python" - "$i" "$SHARE" >"$run/tasks_$i.txt" <<'PY'
import sys
from mcts_utils.servers.textcraft.world import load_world
iteration, share = map(int, sys.argv[1:])
print(",".join(map(str, load_world().split()["train"][(iteration - 1) % share :: share])))
PY
done

# --- the cells, the more important ones first; a cell waits for those it needs
cells=(base "${seeds[@]/#/shared.}")
add() { # ITERATION ARM...: for every seed
  local i=$1 name seed
  shift
  for name in "$@"; do
    recipe "$name"
    [ "$i" -le "$last" ] || continue
    for seed in "${seeds[@]}"; do cells+=("$name.$seed.$i"); done
  done
}
for ((i = 1; i <= ITERATIONS; i++)); do add "$i" "${arms[@]:0:4}"; done
for ((i = 1; i <= ITERATIONS; i++)); do add "$i" "${names[@]:${#arms[@]}}"; done
for ((i = 1; i <= ITERATIONS; i++)); do add "$i" "${arms[@]:4}"; done

words=() # the cell's own call
call_of() { # CELL
  local name seed i
  IFS=. read -r name seed i <<<"$1"
  case $name in
    base) words=(base) ;;
    shared) words=(shared "$seed") ;;
    *)
      recipe "$name"
      if [ "$i" = 1 ] && [ -n "$from" ]; then
        words=(copy "$name" "$seed" "$from")
        return
      fi
      [ "$i" = 1 ] || first_epochs=1
      words=("$name" "$seed" "$i" "$config" "$first_epochs" "$(alpha_of "$i")" "$flags" "${types[@]}")
      [ "$strategy" = mcts ] || words[0]+=":$strategy"
      [ "$judge" = base ] || words[0]+="@$judge"
      ;;
  esac
}
stamp_of() { # CELL: what it is made with; a change of it makes the cell be looked at again
  call_of "$1"
  echo "${words[*]} | $MAX_DEPTH $ITERA $N_GEN $N_ROLLOUT | $SHARE | $EVAL_STEPS $REVISE_STEPS $EVAL_IDS | $TRAIN_FLAGS"
}
is_done() { [ -f "$run/done/$1" ] && [ "$(cat "$run/done/$1")" = "$(stamp_of "$1")" ]; }
ready() { # CELL: all that it needs is there
  local name seed i
  IFS=. read -r name seed i <<<"$1"
  case $name in
    base | shared) return 0 ;;
  esac
  is_done base || return 1
  recipe "$name"
  if [ "$i" = 1 ]; then is_done "${from:-shared}.$seed${from:+.1}"; else is_done "$name.$seed.$((i - 1))"; fi
}

start "$run/server.log" "$python" -m mcts_utils.servers.textcraft --port 0
export ENV_SERVER_BASE=$url
declare -A running=() # pid -> cell
begin() { # CELL
  call_of "$1"
  echo "$(date +%H:%M:%S) begins $1"
  set -m
  bash scripts/experiment_cell.sh "${words[@]}" >>"$run/logs/$1.log" 2>&1 </dev/null &
  set +m
  running[$!]=$1
  attended+=("$!")
}
failed=()
ended() { # PID CODE
  local cell=${running[$1]}
  unset "running[$1]"
  attended=("${!running[@]}")
  if [ "$2" = 0 ]; then
    stamp_of "$cell" >"$run/done/$cell"
    echo "$(date +%H:%M:%S) done   $cell"
  else
    failed+=("$cell")
    echo "experiment.sh: $cell failed (exit code $2): $(tail -n 1 "$run/logs/$cell.log")" >&2
  fi
}
waiting=("${cells[@]}")
while [ "${#waiting[@]}" -gt 0 ] || [ "${#running[@]}" -gt 0 ]; do
  later=()
  for cell in "${waiting[@]}"; do
    if is_done "$cell"; then
      continue
    elif [ "${#running[@]}" -lt "$LANES" ] && ready "$cell"; then
      begin "$cell"
    else
      later+=("$cell")
    fi
  done
  waiting=("${later[@]}")
  [ "${#running[@]}" -gt 0 ] || break
  code=0 pid=
  wait -n -p pid "${!running[@]}" || code=$?
  ended "$pid" "$code"
done
report
[ "${#waiting[@]}${#failed[@]}" = 00 ] || { echo "experiment.sh: failed: ${failed[*]}; not begun: ${waiting[*]}" >&2; exit 1; }
