#!/usr/bin/env bash
# One cell of experiment.sh, which calls it with its settings in the environment: RUN_DIR, ENV_SERVER_BASE, PYTHON.
#   experiment_cell.sh base                              the untrained actor's evaluation, and the panel of its failures
#   experiment_cell.sh shared SEED                       the search of iteration 1, which all arms of a seed use
#   experiment_cell.sh ARM SEED ITERATION CONFIG EPOCHS ALPHA "FLAGS" "TYPE [FLAG...]"...
#                                                        search (from iteration 2), records, training, evaluation.
#                                                        ARM:STRATEGY: iteration 1 has trees of its own, made by that
#                                                        strategy for as many model calls as the shared search.
#                                                        ARM@own: the model itself judges, not the untrained one
#   experiment_cell.sh copy ARM SEED FROM                ARM's first iteration is FROM's
# Every stage resumes by itself, so a cell that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/processes.sh
base=models/tiny_actor run=$RUN_DIR python=$PYTHON
export MODEL_NAME=tiny_actor

search() { # model, iteration, folder, more flags
  attend env MODEL_DIR="$1" "$python" mcts_collection.py --task_ids "$run/tasks_$2.txt" --model_name tiny_actor \
    --output_dir "$3/mcts_result" "${@:4}"
}
evaluate() { # model, name: the main evaluation, then the same failed prefixes for all models
  attend env MODEL_DIR="$1" MODEL_TYPE="$2" "$python" eval.py --max_steps "$EVAL_STEPS" --task_ids "$EVAL_IDS" \
    --output_dir "$run/test_result"
  attend env MODEL_DIR="$1" MODEL_TYPE="$2" "$python" eval.py --mode revise --max_steps "$REVISE_STEPS" --seed 0 \
    --from "$run/test_result/textcraft/tiny_actor_base" --panel "$run/panel.json" --output_dir "$run/test_result"
}

case $1 in
  base) evaluate "$base" base ;;
  copy)
    folder=$run/seed_$3/$2/iteration_1 results=$run/test_result/textcraft/tiny_actor
    rm -rf "$folder" "${results}_$2_s$3_i1" "${results}_$2_s$3_i1_revise"
    mkdir -p "$(dirname "$folder")"
    cp -r "$run/seed_$3/$4/iteration_1" "$folder"
    for suffix in "" _revise; do cp -r "${results}_$4_s$3_i1$suffix" "${results}_$2_s$3_i1$suffix"; done
    ;;
  shared) SEED=$2 search "$base" 1 "$run/seed_$2/shared" ;;
  *)
    arm=${1%%[:@]*} judge=$base iteration=$3 config=$4 epochs=$5 flags=$7
    export SEED=$2 ALPHA=$6
    types=("${@:8}")
    folder=$run/seed_$SEED/$arm/iteration_$iteration
    if [ "$iteration" = 1 ]; then
      model=$base trees=$run/seed_$SEED/shared
      if [[ $1 = *:* ]]; then
        search "$model" 1 "$folder" --strategy "${1#*:}" --budget_from "$trees/mcts_result/textcraft/tiny_actor"
        trees=$folder
      fi
    else
      model=$run/seed_$SEED/$arm/iteration_$((iteration - 1))/model trees=$folder
      search "$model" "$iteration" "$trees"
    fi
    [[ $1 != *@own ]] || judge=$model
    data=()
    for type in "${types[@]}"; do
      read -r type own <<<"$type"
      # shellcheck disable=SC2086 # flags are words
      attend env MODEL_DIR="$judge" "$python" path_collection.py --input_dir "$trees/mcts_result/textcraft/tiny_actor" \
        --output_dir "$folder/records" --data_type "$type" --revise 1 --model_name tiny_actor $flags $own
      data+=("$folder/records/textcraft_$type.jsonl")
    done
    # shellcheck disable=SC2086
    attend "$python" xtuner_config/train.py --data "${data[@]}" --config "$config" --model_dir "$model" \
      --output_dir "$folder/model" --epochs "$epochs" --seed "$SEED" $TRAIN_FLAGS
    evaluate "$folder/model" "${arm}_s${SEED}_i$iteration"
    ;;
esac
