#!/usr/bin/env bash
# Stage 1: fine-tune the dense teacher. Writes outputs/finetune/ft_<task>/ckpt.
# Several tasks, e.g. TASKS="rte mrpc stsb", are a sweep.
set -eu
cd "$(dirname "$0")/.."

TASKS="rte"
MODEL_PATH=bert-base-uncased # or a folder with config.json, model.safetensors, vocab.txt, tokenizer_config.json
LEARNING_RATE=3e-5
EPOCHS=10
LOG_INTERVAL=10

for TASK in $TASKS; do
  python run_finetuning.py \
    --model_type ft \
    --model_path "$MODEL_PATH" \
    --task_name "$TASK" \
    --learning_rate "$LEARNING_RATE" \
    --num_train_epochs "$EPOCHS" \
    --log_interval "$LOG_INTERVAL" \
    --do_train
done
