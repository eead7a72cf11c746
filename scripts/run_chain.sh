#!/usr/bin/env bash
# The whole method for one task: finetune -> prune -> distil -> sparsify -> rewind, for both students.
#
#   bash scripts/run_chain.sh rte
#   MODEL_PATH=bert-large-uncased LAMS="0 0.5 1" bash scripts/run_chain.sh mrpc --seed 1
#
# Each variable below can be set from outside; flags after the task go to every stage that knows them (add --use_bf16 on
# a GPU). Ends with a table of student metric by teacher sparsity for each student and lam.
set -eu
fail() {
  echo "run_chain.sh: $1" >&2
  exit 2
}
[ $# -ge 1 ] || fail "no task; usage: bash scripts/run_chain.sh TASK [flags of the stages]"
TASK=$1
shift
ROOT=$(cd "$(dirname "$0")/.." && pwd)

MODEL_PATH=${MODEL_PATH:-bert-base-uncased}
DATA_DIR=${DATA_DIR:-datasets}
STUDENT_LAYERS=${STUDENT_LAYERS-4}
STUDENT_SPARSITIES=${STUDENT_SPARSITIES-70}
LAMS=${LAMS:-0.5}
: "${BATCH_SIZE:=}" "${LEARNING_RATE:=}" "${TEACHER_EPOCHS:=}" "${STUDENT_EPOCHS:=}" # blank: the task's own

# what every call of a stage gets; flags from the command line come last and count
COMMON=(--task_name "$TASK" --data_dir "$DATA_DIR")
TRAINING=("${COMMON[@]}" ${BATCH_SIZE:+--per_device_train_batch_size "$BATCH_SIZE"}
  ${LEARNING_RATE:+--learning_rate "$LEARNING_RATE"})
FINETUNING=("${TRAINING[@]}" --model_path "$MODEL_PATH" ${TEACHER_EPOCHS:+--num_train_epochs "$TEACHER_EPOCHS"})
PRUNING=("${COMMON[@]}")
DISTILLATION=("${TRAINING[@]}" ${STUDENT_EPOCHS:+--num_train_epochs "$STUDENT_EPOCHS"})
SPARSIFICATION=("${COMMON[@]}")
REWINDING=("${DISTILLATION[@]}")

# stage 4 takes rows without labels only if they score its units
case " $* " in
  *" --score_split unlabelled "* | *" --score_split=unlabelled "*) UNLABELLED_STAGES=345 ;;
  *) UNLABELLED_STAGES=35 ;;
esac

# only the knowledgeable score has a lam; the others' folders do not name one
case " $* " in
  *" --score knowledgeable "* | *" --score=knowledgeable "*) ;;
  *" --score "* | *" --score="*) read -r LAMS _ <<<"$LAMS" ;;
esac

# which stages, by number, know a flag; what follows it up to the next one is its value
STAGES=
for WORD in "$@"; do
  case ${WORD%%=*} in
    --task_name) fail "--task_name: the first argument of this script" ;;
    --data_dir) fail "--data_dir: set by the variable DATA_DIR" ;;
    --model_path) fail "--model_path: set by the variable MODEL_PATH" ;;
    --lam) fail "--lam: set by the variable LAMS" ;;
    --student_layer) fail "--student_layer: set by the variable STUDENT_LAYERS" ;;
    --student_sparsity) fail "--student_sparsity: set by the variable STUDENT_SPARSITIES" ;;
    --output_dir | --model_type | --teacher_model_path | --student_model_path)
      fail "${WORD%%=*}: the stages find each other's folders by its default" ;;
    --max_length | --max_train_examples | --max_eval_examples | --selection_split | --per_device_eval_batch_size | \
      --data_type | --seed | --use_cpu | --use_fp16 | --use_bf16 | --compile | --overwrite | --debug | \
      --pad_to_max_length | --no_group_by_length | --no_exact_shortcuts) STAGES=12345 ;;
    --per_device_train_batch_size | --num_grad_accum_steps | --learning_rate | --weight_decay | --num_train_epochs | \
      --num_patience_epochs | --warmup_proportion | --max_grad_norm | --lr_scheduler_type | --log_interval | \
      --save_interval | --report_to | --selection_metric | --do_test) STAGES=135 ;;
    --do_train) STAGES=1 ;;
    --do_distil) STAGES=3 ;;
    --do_rewind) STAGES=5 ;;
    --temperature | --alpha) STAGES=345 ;;
    --no_teacher_cache | --unlabelled_weight | --unlabelled_per_epoch) STAGES=35 ;;
    --unlabelled) STAGES=$UNLABELLED_STAGES ;;
    --*_weight) # of a loss between layers, which are the entries of one table
      NAME=${WORD%%=*}
      NAME=${NAME#--}
      sed -n '/^INTERMEDIATE_LOSSES/,/}/p' "$ROOT/models/layer_losses.py" | grep -q "\"${NAME%_weight}\":" ||
        fail "$WORD: no stage knows this flag"
      STAGES=35 ;;
    --score_split) STAGES=4 ;;
    --score) STAGES=45 ;;
    --teacher_sparsity | --teacher_schedule | --match_spread | --halving | --halving_rungs) STAGES=5 ;;
    --layer_choice)
      [ -z "$STUDENT_SPARSITIES" ] || fail "--layer_choice: for layer-dropped students, expected STUDENT_SPARSITIES="
      STAGES=345 ;;
    --*) fail "$WORD: no stage knows this flag" ;;
    *) [ "$STAGES" ] || fail "$WORD: expected a flag" ;;
  esac
  case $STAGES in *1*) FINETUNING+=("$WORD") ;; esac
  case $STAGES in *2*) PRUNING+=("$WORD") ;; esac
  case $STAGES in *3*) DISTILLATION+=("$WORD") ;; esac
  case $STAGES in *4*) SPARSIFICATION+=("$WORD") ;; esac
  case $STAGES in *5*) REWINDING+=("$WORD") ;; esac
done

# every command of the chain, given to a function
chain() {
  "$1" run_finetuning.py "${FINETUNING[@]}"
  "$1" run_pruning.py "${PRUNING[@]}"
  for STUDENT in $(printf ' --student_layer=%s' $STUDENT_LAYERS) $(printf ' --student_sparsity=%s' $STUDENT_SPARSITIES); do
    [ "${STUDENT#*=}" ] || continue
    "$1" run_distillation.py "$STUDENT" "${DISTILLATION[@]}"
    for LAM in $LAMS; do
      "$1" run_sparsification.py "$STUDENT" --lam "$LAM" "${SPARSIFICATION[@]}"
      "$1" run_rewinding.py "$STUDENT" --lam "$LAM" "${REWINDING[@]}"
    done
  done
}
COMMANDS=()
collect() { COMMANDS+=("$@" --); }
run() {
  local script=$1
  shift
  python "$ROOT/$script" "$@"
}

chain collect
python "$ROOT/scripts/check_flags.py" "${COMMANDS[@]}"
chain run
