#!/usr/bin/env bash
# quantize, and the commands that run on what it wrote. Prints ok / not ok a check.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

tiny=$sources/weights/tiny.safetensors
field() { sed -E "s/.*\"$1\":([-0-9.e+]+).*/\1/" "$2"; }
within() { awk -v a="$1" -v b="$2" -v limit="$3" 'BEGIN { d = a / b - 1; if (d < 0) d = -d; exit !(d <= limit) }'; }
differs() { ! cmp -s "$1" "$2"; }
size() { stat -c %s "$1"; }

sed -nE 's/^ *[0-9]+\. //p; /^[A-Z]/p' "$sources/README.md" "$sources/weights/README.md" >text.txt
for type in fp32 bf16 fp16 int8 int4; do
  "$longhand" quantize --model "$tiny" --type $type --output $type.safetensors >log.txt 2>&1 || cat log.txt
  "$longhand" score --model $type.safetensors --file text.txt --summary --threads 1 >$type.json 2>log.txt || cat log.txt
done
check "int8 is little more than a quarter of fp32" test "$(($(size int8.safetensors) * 100))" -le "$(($(size fp32.safetensors) * 28))"
check "fp16 is half of fp32" test "$(($(size fp16.safetensors) * 100))" -le "$(($(size fp32.safetensors) * 52))"
check "int8 scores within 0.5% of fp32" within "$(field bits_per_byte int8.json)" "$(field bits_per_byte fp32.json)" 0.005
check "fp16 scores as fp32" within "$(field bits_per_byte fp16.json)" "$(field bits_per_byte fp32.json)" 0.0001
check "bf16 weights, stored as bf16, score as fp32" within "$(field bits_per_byte bf16.json)" "$(field bits_per_byte fp32.json)" 0.000001
"$longhand" score --model int8.safetensors --file text.txt --summary --activations int8 >rounded.json 2>log.txt || cat log.txt
check "int8 with activations in int8 scores within 1% of fp32" within "$(field bits_per_byte rounded.json)" "$(field bits_per_byte fp32.json)" 0.01
check "int8 with activations in int8 is not the same" differs int8.json rounded.json
check "int4 scores within 5% of fp32" within "$(field bits_per_byte int4.json)" "$(field bits_per_byte fp32.json)" 0.05

"$longhand" quantize --model "$tiny" --type int8 --group 64 --embedding fp16 --output-layer int4 --output mixed.safetensors --json >log.txt 2>&1
check "--json states what was done" grep -q '"quantization":{"type":"int8","group":"64","embedding":"fp16","output_layer":"int4"}' log.txt
"$longhand" info mixed.safetensors >info.txt
check "info shows the types" grep -qE 'layers.0.feedforward.up.weight +i8 +\[512, 128\] +65,536 bytes' info.txt
check "info shows the scales" grep -qE 'layers.0.feedforward.up.weight.scales +fp16 +\[512, 2\] +2,048 bytes' info.txt
check "info shows the output layer of its own" grep -qE 'output.weight +u8 +\[8192, 64\] +524,288 bytes' info.txt
check "info shows how" grep -q 'longhand.quantization' info.txt
"$longhand" quantize --model "$tiny" --type int8 --output again.safetensors >log.txt 2>&1
check "the same weights give the same file" cmp -s int8.safetensors again.safetensors

# write MODEL FLAGS...: the tokens of each sample, a line each.
write() { "$longhand" generate --model "$1" --prompt "Click the" --tokens 24 --seed 7 --json "${@:2}" | grep -o '"ids":[^]]*]'; }
for type in fp16 int8 int4 mixed; do
  write $type.safetensors >one.txt
  write $type.safetensors --num-samples 5 >five.txt
  check "$type: a sample is the same alone and beside others" test "$(cat one.txt)" = "$(head -1 five.txt)"
  write $type.safetensors --threads 1 >thread.txt
  check "$type: the same for any number of threads" cmp -s one.txt thread.txt
done
check "a quantised model chats" grep -q . <(printf 'Hello\n' | "$longhand" chat --model int8.safetensors --tokens 8 --seed 1)

refused "an unknown type" 2 "it takes fp32, bf16, fp16, int8 or int4" "$longhand" quantize --model "$tiny" --type int7 --output x
refused "an unknown group" 2 "it takes row or 64" "$longhand" quantize --model "$tiny" --group 32 --output x
refused "groups of floats" 2 "have no scales" "$longhand" quantize --model "$tiny" --type fp16 --group 64 --output x
refused "activations of no known type" 2 "it takes floats or int8" "$longhand" score --model int8.safetensors --ids 1,2 --activations int4
refused "rounded activations before float weights" 2 "holds no int8 weights with a scale a row" \
  "$longhand" score --model "$tiny" --ids 1,2 --activations int8
refused "a quantised file again" 1 "is quantised already" "$longhand" quantize --model int8.safetensors --output x
refused "a file that is no model" 1 "not-a-model" "$longhand" quantize --model not-a-model --output x
check "what was refused wrote nothing" test ! -e x

# Any single damaged byte is either harmless to the reader or one clear line; nothing crashes.
crashed=0 long=0 RANDOM=11
for i in $(seq 1 40); do
  cp int8.safetensors broken.safetensors
  printf "\\x$(printf %02x $((RANDOM % 256)))" | dd of=broken.safetensors bs=1 seek=$((RANDOM % 12000)) conv=notrunc status=none
  timeout 20 "$longhand" score --model broken.safetensors --ids 1,2,3 --threads 1 >out.txt 2>err.txt </dev/null
  status=$?
  [ $status -gt 2 ] && crashed=$((crashed + 1))
  [ $status -ne 0 ] && [ "$(wc -l <err.txt)" -ne 1 ] && long=$((long + 1))
done
check "damaged files crash nothing" test $crashed -eq 0
check "damaged files are refused in one line" test $long -eq 0
head -c 300000 int8.safetensors >cut.safetensors
refused "a file that was cut" 1 "cut.safetensors" "$longhand" score --model cut.safetensors --ids 1,2,3
refused "a benchmark without its data" 2 "needs --model FILE and --data FILE" "$longhand" bench quantization
refused "an unknown benchmark" 2 "it takes decode, prefill, attention, speculation, quantization or serve" "$longhand" bench speed
refused "an unknown preset of a benchmark" 2 "there is no preset" "$longhand" bench decode --preset 8b
check "a benchmark says bytes and shares" grep -qE '"bytes_read":[0-9.e+]+.*"read_ceiling":[0-9.e+]+' \
  <("$longhand" bench decode --preset tiny --types int8 --tokens 4 --json)
