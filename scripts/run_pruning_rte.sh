#!/usr/bin/env bash
# Stage 2: sort the teacher's units by expressiveness. Reads stage 1's checkpoint, writes outputs/prune/ft_<task>/ckpt.
# Several tasks, e.g. TASKS="rte mrpc stsb", are a sweep.
# Flags given to this script go to every call of the stage.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside

for TASK in $TASKS; do
  python run_pruning.py --task_name "$TASK" --data_dir "$DATA_DIR" "$@"
done
