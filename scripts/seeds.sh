#!/usr/bin/env bash
# Runs the demo with three seeds, one after the other, and compares their results. Resumes like the demo.
#   bash scripts/seeds.sh            (or: bash scripts/seeds.sh 3 4 5)
# Seed N runs in runs/demo_seed_N. Exit code 1 unless every seed gains 10 points on the held-out goals and recovers
# from more failed prefixes than before.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ends.sh
seeds=${*:-0 1 2}
first=
for seed in $seeds; do
  echo "==== seed $seed"
  run=runs/demo_seed_$seed
  # Greedy evaluation of the untrained actor uses no seed: its results and the failed prefixes are the same for all seeds.
  if [ -n "$first" ] && [ ! -e "$run/panel.json" ]; then
    mkdir -p "$run/test_result/textcraft"
    cp -r "$first"/test_result/textcraft/*_before* "$run/test_result/textcraft/"
    cp "$first/panel.json" "$run/panel.json"
  fi
  first=${first:-$run}
  SEED=$seed RUN_DIR=runs/demo_seed_$seed child bash scripts/demo.sh
done
folders=()
for seed in $seeds; do folders+=("runs/demo_seed_$seed"); done
.venv/bin/python -m mcts_utils.report.runs.round --compare "${folders[@]}"
