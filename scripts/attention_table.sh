#!/usr/bin/env bash
# The table of bench/results/decode_attention.md: what attention reads and takes at 4,096 keys, dense, exact top-k and by pages,
# over rings of fp32, bf16 and int8, and what the text then costs.
#
#   scripts/attention_table.sh [FOLDER]      default runs/attention
#
# `tiny` was trained with 512 keys. For the loss to mean something at 4,096 it is first trained on for 240 steps with a memory of
# 3,840 tokens (some minutes, one thread; done once, kept in FOLDER). THREADS, LONGHAND and TEXT_TOKENS
# (tokens that the loss is measured on, 12,288) choose otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-runs/attention}
longhand=${LONGHAND:-build/longhand}
threads=${THREADS:-2}
tokens=$folder/tokens.safetensors
model=$folder/long/model.safetensors
mkdir -p "$folder"
[ -e "$tokens" ] || "$longhand" prepare --corpus libreoffice --tokenizer weights/tiny.safetensors --output "$tokens" >&2
[ -e "$model" ] || "$longhand" train --init weights/tiny.safetensors --tokens "$tokens" --segment 256 --mem-len 3840 \
  --batch-size 4 --steps 240 --lr 5e-4 --warmup-steps 20 --validate-every 1000 --seed 1 --threads 1 --output "$folder/long" >&2
exec "$longhand" bench attention --preset base --window 4096 --model "$model" --data "$tokens" --text-tokens "${TEXT_TOKENS:-12288}" \
  --threads "$threads"
