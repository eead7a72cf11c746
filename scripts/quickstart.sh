#!/usr/bin/env bash
# The whole method in miniature, from a fresh clone: makes .venv if there is none, a small entailment task and a small
# BERT in quickstart/, then runs all five stages for a layer-dropped and a parameter-pruned student on the CPU.
#
#   bash scripts/quickstart.sh
#
# Under two minutes on two cores once the packages are installed; much of it is Python starting nine times. Expect a
# teacher of 0.95 to 0.99 dev accuracy, trial students some points below it, and at the end a table for each student:
# its accuracy by teacher sparsity, beside that teacher's own; quickstart/report/index.html has all of it as one page.
# Everything is in quickstart/; run it again (what is finished is reused) or delete it.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

SEED=3      # of the task and of the weights to start from; others move these numbers by several points
LAYERS=2    # of a layer-dropped student; the teacher has 4
SPARSITY=70 # percent of heads and neurons cut from a parameter-pruned student
TEACHERS="0 20 40 60 80" # percent cut from the teacher, one rewind for each
BATCHES="--per_device_train_batch_size 32 --log_interval 50"
TEACHER="--learning_rate 5e-4 --num_train_epochs 7 $BATCHES"
STUDENT="--learning_rate 3e-4 --num_train_epochs 1 $BATCHES"

export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
export OMP_NUM_THREADS=1          # in a model this small a second core would only wait for the first
[ -t 2 ] || export TQDM_DISABLE=1 # progress bars are for terminals

python scripts/make_miniature.py --dir quickstart --seed $SEED
cd quickstart

python ../run_finetuning.py --model_path bert $TEACHER
python ../run_pruning.py

layer_dropped() {
  python ../run_distillation.py --student_layer $LAYERS $STUDENT
  python ../run_sparsification.py --student_layer $LAYERS
  python ../run_rewinding.py --student_layer $LAYERS --teacher_sparsity $TEACHERS $STUDENT
}
parameter_pruned() {
  python ../run_distillation.py --student_sparsity $SPARSITY $STUDENT
  python ../run_sparsification.py --student_sparsity $SPARSITY
  python ../run_rewinding.py --student_sparsity $SPARSITY --teacher_sparsity $TEACHERS $STUDENT
}
parameter_pruned > parameter_pruned.log 2>&1 & # a core for each student
layer_dropped
wait $! || { cat parameter_pruned.log; exit 1; }
cat parameter_pruned.log

python ../scripts/report.py # tables, figures and report/index.html

recap() { # the table at the end of a stage's log
  echo
  echo "$1 (quickstart/outputs/rewind/$2)"
  grep -A 5 "teacher sparsity" "outputs/rewind/$2/log.txt" | tail -n 6
}
recap "Layer-dropped student, $LAYERS of 4 layers" "layer_dropped/kd_${LAYERS}_rte_0.5"
recap "Parameter-pruned student, $SPARSITY % cut" "parameter_pruned/kd_${SPARSITY}_rte_0.5"
