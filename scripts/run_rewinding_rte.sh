#!/usr/bin/env bash
# Stage 5: distil the students again from the sparse teacher, cut at 0, 10, ..., 90 %.
# Reads the checkpoints of stages 1, 2 and 4, writes outputs/rewind/, one student per teacher sparsity.
# Flags given to this script go to every call of the stage: --num_train_epochs 3.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside
STUDENT_SPARSITIES="70" # percent of heads and neurons cut; "" for no such student
STUDENT_LAYERS="4"      # layers kept; "" for no such student
LAMS="0.5"              # shares of expressiveness
LOG_INTERVAL=10

rewind() {
  python run_rewinding.py \
    --task_name "$TASK" \
    --data_dir "$DATA_DIR" \
    --log_interval "$LOG_INTERVAL" \
    --do_rewind \
    "$@"
}

for TASK in $TASKS; do
  for LAM in $LAMS; do
    for SPARSITY in $STUDENT_SPARSITIES; do
      rewind --student_sparsity "$SPARSITY" --lam "$LAM" "$@"
    done
    for LAYER in $STUDENT_LAYERS; do
      rewind --student_layer "$LAYER" --lam "$LAM" "$@"
    done
  done
done
