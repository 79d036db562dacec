#!/usr/bin/env bash
# What goes wrong in training is told in one line and loses nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

seq 1 4000 | awk '{ print $1 * 7 % 31 }' | tr '\n' ',' >tokens.txt
model=(--d-model 16 --n-layer 1 --n-head 2 --vocab-size 31 --mem-len 8 --segment 16 --batch-size 2)
train=("$longhand" train "${model[@]}" --threads 1)
short=("${train[@]}" --tokens tokens.txt --steps 4)

"${short[@]}" --output run >/dev/null
check "a run leaves its weights, a checkpoint and a log" \
  test -e run/model.safetensors -a -e run/checkpoint-4.safetensors -a -e run/log.jsonl
refused "a run is not overwritten by accident" 2 "--overwrite" "${short[@]}" --output run
refused "an unknown preset" 2 "tiny, small, base, large" "$longhand" train --preset huge --tokens tokens.txt
refused "no model" 2 "--preset" "$longhand" train --tokens tokens.txt
refused "no tokens" 2 "--tokens" "$longhand" train --preset tiny
refused "tokens that are not there" 1 "absent.txt" "$longhand" train --preset tiny --tokens absent.txt
refused "tokens outside the vocabulary" 2 "vocabulary" "$longhand" train --d-model 16 --n-layer 1 --n-head 2 \
  --vocab-size 20 --tokens tokens.txt
refused "data shorter than one batch" 1 "4000 tokens" "$longhand" train --preset tiny --segment 4000 --tokens tokens.txt
refused "a micro-batch that does not divide the batch" 2 "--micro-batch" "${short[@]}" --micro-batch 3
refused "an unknown schedule" 2 "cosine" "${short[@]}" --schedule cosinus
refused "an unknown flag" 2 "--learning-rate" "${short[@]}" --learning-rat 1
refused "a plan larger than memory" 2 "fits with" "$longhand" train --preset base --tokens tokens.txt --memory-gb 2.5
refused "a plan that nothing makes fit" 2 "smaller model" "$longhand" train --preset 7b --tokens tokens.txt --memory-gb 2
refused "resuming with another configuration" 2 "n_layer 1, this run has 2" "$longhand" train --d-model 16 --n-layer 2 \
  --n-head 2 --vocab-size 31 --mem-len 8 --tokens tokens.txt --output run --resume --threads 1
refused "resuming with other flags" 2 "--weight-decay" "${short[@]}" --weight-decay 0.3 --output run --resume
seq 1 5000 | awk '{ print $1 * 7 % 31 }' >more.txt
refused "resuming with other data" 2 "other data" "${train[@]}" --tokens more.txt --steps 4 --output run --resume
refused "starting from weights of another shape" 2 "--n-layer" "$longhand" train --n-layer 2 --tokens tokens.txt \
  --init run/model.safetensors
refused "starting from weights of another preset" 2 "--preset" "$longhand" train --preset tiny --tokens tokens.txt \
  --init run/model.safetensors

cp -r run damaged
rm damaged/checkpoint-3.safetensors
truncate -s -100 damaged/checkpoint-4.safetensors
refused "a damaged checkpoint and no other" 1 "damaged" "${short[@]}" --output damaged --resume
cp run/checkpoint-4.safetensors damaged/checkpoint-3.safetensors
"${short[@]}" --output damaged --resume >out.txt
check "a damaged checkpoint gives way to the one before it" grep -q "checkpoint-3" out.txt
refused "a run whose loss leaps" 1 "in a row were skipped" "${train[@]}" --tokens tokens.txt --learning-rate 900 \
  --schedule constant --warmup-steps 60 --clip 0 --spike 0.5 --steps 300 --max-skips 3
refused "an output below a file" 1 "tokens.txt" "${short[@]}" --output tokens.txt/run

"${short[@]}" --output other.safetensors >/dev/null
check "an output that names a weights file is written, beside its run directory" \
  cmp other.safetensors other/model.safetensors
"${train[@]}" --tokens tokens.txt --steps 8 --output run --resume >/dev/null
check "a run may be made longer" test -e run/checkpoint-8.safetensors
check "old checkpoints go" test "$(ls run/checkpoint-*.safetensors | wc -l)" -eq 2

# A full disk: a file system of two megabytes where one may be mounted, a limit on the sizes of files elsewhere.
wide=("$longhand" train --d-model 64 --n-layer 2 --n-head 2 --vocab-size 31 --mem-len 8 --segment 16 --batch-size 2
  --tokens tokens.txt --threads 1 --steps 6 --checkpoint-every 1 --keep 9)
mkdir small
if mount -t tmpfs -o size=3m none small 2>/dev/null; then
  "${wide[@]}" --output small/run >out.txt 2>err.txt
  status=$?
  check "a full disk ends the run with 1" test $status -eq 1
  check "a full disk is told in one line" test "$(wc -l <err.txt)" -eq 1
  check "a full disk leaves nothing half written" test -z "$(ls small/run | grep part)"
  cp -r small/run saved
  "$longhand" train --resume --output saved --tokens tokens.txt --threads 1 >out.txt
  check "the last checkpoint stands" test -e saved/model.safetensors
  check "and is where the run goes on" grep -q "resumed: from checkpoint-[1-5]" out.txt
  umount small
else
  (ulimit -f 200; trap '' XFSZ; "${wide[@]}" --output limited >out.txt 2>err.txt; test $? -eq 1)
  check "a full disk ends the run with 1" test $? -eq 0
  check "a full disk is told in one line" test "$(wc -l <err.txt)" -eq 1
  check "a full disk leaves nothing half written" test -z "$(ls limited | grep part)"
fi
