#!/usr/bin/env bash
# The whole method for one task: finetune -> prune -> distil -> sparsify -> rewind, for both students.
#
#   bash scripts/run_chain.sh rte
#   MODEL_PATH=bert-large-uncased LAMS="0 0.5 1" bash scripts/run_chain.sh mrpc --seed 1
#
# Each variable below can be set from outside; flags after the task go to every stage that trains (add --use_bf16 on a
# GPU). Ends with a table of student metric by teacher sparsity for each student and lam.
set -eu
[ $# -ge 1 ] || { echo "usage: bash scripts/run_chain.sh TASK [flags of the training stages]" >&2; exit 2; }
TASK=$1
shift
ROOT=$(cd "$(dirname "$0")/.." && pwd)

# each task's settings: batch size, learning rate, epochs
case $TASK in
  rte | mrpc | stsb | cola | wnli) set -- 16 3e-5 10 "$@" ;;
  sst2 | qnli) set -- 32 3e-5 5 "$@" ;;
  qqp | mnli | mnlimm) set -- 32 3e-5 3 "$@" ;;
  *) echo "run_chain.sh: no such task: $TASK" >&2; exit 2 ;;
esac
BATCH_SIZE=${BATCH_SIZE:-$1}
LEARNING_RATE=${LEARNING_RATE:-$2}
TEACHER_EPOCHS=${TEACHER_EPOCHS:-$3}
STUDENT_EPOCHS=${STUDENT_EPOCHS:-$3}
shift 3
MODEL_PATH=${MODEL_PATH:-bert-base-uncased}
DATA_DIR=${DATA_DIR:-datasets}
STUDENT_LAYERS=${STUDENT_LAYERS-4}
STUDENT_SPARSITIES=${STUDENT_SPARSITIES-70}
LAMS=${LAMS:-0.5}

stage() {
  local script=$1
  shift
  python "$ROOT/$script" --task_name "$TASK" --data_dir "$DATA_DIR" "$@"
}
train() {
  stage "$@" --per_device_train_batch_size "$BATCH_SIZE" --learning_rate "$LEARNING_RATE"
}

train run_finetuning.py --model_path "$MODEL_PATH" --num_train_epochs "$TEACHER_EPOCHS" "$@"
stage run_pruning.py
for STUDENT in $(printf ' --student_layer=%s' $STUDENT_LAYERS) $(printf ' --student_sparsity=%s' $STUDENT_SPARSITIES); do
  [ "${STUDENT#*=}" ] || continue
  train run_distillation.py "$STUDENT" --num_train_epochs "$STUDENT_EPOCHS" "$@"
  for LAM in $LAMS; do
    stage run_sparsification.py "$STUDENT" --lam "$LAM"
    train run_rewinding.py "$STUDENT" --lam "$LAM" --num_train_epochs "$STUDENT_EPOCHS" "$@"
  done
done
