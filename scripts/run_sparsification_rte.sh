#!/usr/bin/env bash
# Stage 4: sort the teacher's units by knowledgeableness, for each trial student and lam.
# Reads the checkpoints of stages 1 and 3, writes outputs/stark/.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
STUDENT_SPARSITIES="70" # percent of heads and neurons cut; "" for no such student
STUDENT_LAYERS="4"      # layers kept; "" for no such student
LAMS="0.5"              # shares of expressiveness

sparsify() {
  python run_sparsification.py \
    --model_type kd \
    --teacher_model_path "outputs/finetune/ft_$TASK/ckpt" \
    --task_name "$TASK" \
    "$@"
}

for TASK in $TASKS; do
  for LAM in $LAMS; do
    for SPARSITY in $STUDENT_SPARSITIES; do
      sparsify --student_sparsity "$SPARSITY" --lam "$LAM"
    done
    for LAYER in $STUDENT_LAYERS; do
      sparsify --student_layer "$LAYER" --lam "$LAM"
    done
  done
done
