#!/usr/bin/env bash
# Stage 4: sort the teacher's units by knowledgeableness, for each trial student and lam.
# Reads the checkpoints of stages 1 and 3, writes outputs/stark/.
# Flags given to this script go to every call of the stage.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside
STUDENT_SPARSITIES="70" # percent of heads and neurons cut; "" for no such student
STUDENT_LAYERS="4"      # layers kept; "" for no such student
LAMS="0.5"              # shares of expressiveness

sparsify() {
  python run_sparsification.py --task_name "$TASK" --data_dir "$DATA_DIR" "$@"
}

for TASK in $TASKS; do
  for LAM in $LAMS; do
    for SPARSITY in $STUDENT_SPARSITIES; do
      sparsify --student_sparsity "$SPARSITY" --lam "$LAM" "$@"
    done
    for LAYER in $STUDENT_LAYERS; do
      sparsify --student_layer "$LAYER" --lam "$LAM" "$@"
    done
  done
done
