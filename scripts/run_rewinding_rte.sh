#!/usr/bin/env bash
# Stage 5: distil the students again from the sparse teacher, cut at 0, 10, ..., 90 %.
# Reads the checkpoints of stages 1, 2 and 4, writes outputs/rewind/, one student per teacher sparsity.
# Flags given to this script go to every call of the stage.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside
STUDENT_SPARSITIES="70" # percent of heads and neurons cut; "" for no such student
STUDENT_LAYERS="4"      # layers kept; "" for no such student
LAMS="0.5"              # shares of expressiveness
LEARNING_RATE=3e-5
EPOCHS=10
LOG_INTERVAL=10

rewind() {
  python run_rewinding.py \
    --model_type kd \
    --task_name "$TASK" \
    --data_dir "$DATA_DIR" \
    --learning_rate "$LEARNING_RATE" \
    --num_train_epochs "$EPOCHS" \
    --log_interval "$LOG_INTERVAL" \
    --do_rewind \
    "$@"
}

for TASK in $TASKS; do
  for LAM in $LAMS; do
    for SPARSITY in $STUDENT_SPARSITIES; do
      rewind --student_model_path "outputs/prune/ft_$TASK/ckpt" --student_sparsity "$SPARSITY" --lam "$LAM" "$@"
    done
    for LAYER in $STUDENT_LAYERS; do
      rewind --student_model_path "outputs/finetune/ft_$TASK/ckpt" --student_layer "$LAYER" --lam "$LAM" "$@"
    done
  done
done
