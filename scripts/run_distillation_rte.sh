#!/usr/bin/env bash
# Stage 3: distil the dense teacher into the trial students, parameter-pruned and layer-dropped.
# Reads the checkpoints of stages 1 and 2, writes outputs/distil/.
# Flags given to this script go to every call of the stage: --num_train_epochs 3.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside
STUDENT_SPARSITIES="70" # percent of heads and neurons cut; "" for no such student
STUDENT_LAYERS="4"      # layers kept; "" for no such student
LOG_INTERVAL=10

distil() {
  python run_distillation.py \
    --task_name "$TASK" \
    --data_dir "$DATA_DIR" \
    --log_interval "$LOG_INTERVAL" \
    --do_distil \
    "$@"
}

for TASK in $TASKS; do
  for SPARSITY in $STUDENT_SPARSITIES; do
    distil --student_sparsity "$SPARSITY" "$@"
  done
  for LAYER in $STUDENT_LAYERS; do
    distil --student_layer "$LAYER" "$@"
  done
done
