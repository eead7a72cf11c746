#!/usr/bin/env bash
# Stage 1: fine-tune the dense teacher. Writes outputs/finetune/ft_<task>/ckpt.
# Several tasks, e.g. TASKS="rte mrpc stsb", are a sweep; each brings its batch size, learning rate and epochs.
# Flags given to this script go to every call of the stage: --num_train_epochs 3.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
DATA_DIR=${DATA_DIR:-datasets} # holds the tasks' folders; may be set from outside
MODEL_PATH=${MODEL_PATH:-bert-base-uncased} # or a folder with config.json, model.safetensors, vocab.txt, tokenizer_config.json
LOG_INTERVAL=10

for TASK in $TASKS; do
  python run_finetuning.py \
    --model_path "$MODEL_PATH" \
    --task_name "$TASK" \
    --data_dir "$DATA_DIR" \
    --log_interval "$LOG_INTERVAL" \
    --do_train \
    "$@"
done
