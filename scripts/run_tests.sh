#!/usr/bin/env bash
# Every test, one after another; the last line counts them all. `scripts/run_tests.sh sanitized` adds the address, undefined
# behaviour and thread sanitizer builds and a short run of the fuzzers.
set -uo pipefail
cd "$(dirname "$0")/.."

mode=${1:-plain}
jobs=$(nproc)
logs=build/test-logs
passed=0 failed=0
mkdir -p "$logs"

count() {  # count PASSED FAILED
  passed=$((passed + $1)) failed=$((failed + $2))
}

# run NAME COMMAND...: one check that passes when the command does. Programs that count (doctest's summary, `N passed, M
# failed`, `ok` / `not ok` lines) are counted by their own numbers.
run() {
  local name=$1 log start status good bad
  shift
  log=$logs/${name//[^A-Za-z0-9._-]/_}.log
  start=$(date +%s)
  "$@" >"$log" 2>&1 </dev/null
  status=$?
  good=$(sed -nE 's/.*test cases: +[0-9]+ \| +([0-9]+) passed \| +[0-9]+ failed.*/\1/p; s/^([0-9]+) passed, [0-9]+ failed$/\1/p' "$log" | tail -1)
  bad=$(sed -nE 's/.*test cases: +[0-9]+ \| +[0-9]+ passed \| +([0-9]+) failed.*/\1/p; s/^[0-9]+ passed, ([0-9]+) failed$/\1/p' "$log" | tail -1)
  if [ -z "$good" ]; then
    good=$(grep -cE '^ok ' "$log") bad=$(grep -cE '^not ok ' "$log")
  fi
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$status" -eq 0 ] && [ $((good + bad)) -eq 0 ]; then good=1; fi
  if grep -qE '^[A-Za-z -]+: skipped, ' "$log"; then
    grep -E '^[A-Za-z -]+: skipped, ' "$log"
    return
  fi
  count "$good" "$bad"
  printf '%-44s %5d passed %3d failed %4d s\n' "$name" "$good" "$bad" $(($(date +%s) - start))
  if [ "$bad" -ne 0 ]; then
    grep -nE 'ERROR|FAILED|^not ok|error:|runtime error|Sanitizer|longhand:' "$log" | head -20
    echo "  (whole log: $log)"
    tail -5 "$log"
  fi
}

build() {  # build NAME MAKE-ARGUMENTS...
  local name=$1
  shift
  run "build: $name" make --no-print-directory -j"$jobs" "$@"
}

build "program and tests" all build/tests/ops build/tests/core build/tests/unit build/bench/progression
run "kernels: no stray symbols" scripts/check_isa_symbols.sh
run "operations" build/tests/ops
run "core" build/tests/core
run "progression" build/bench/progression
run "text and command line" build/tests/unit
for script in tests/end_to_end/*.sh; do
  [ -e "$script" ] && run "end to end: $(basename "$script" .sh)" bash "$script"
done

build "kernels on the host" build/tests/simt build/tests/wrong_kernels{,_address,_race}
run "kernels on the host: the dialect" build/tests/simt
run "kernels on the host: wrong ones are noticed" scripts/simt_checks.sh wrong
grep -vE '^(not )?ok ' "$logs/kernels_on_the_host__wrong_ones_are_noticed.log"
run "kernels on the host: orders and copies" scripts/simt_checks.sh orders
run "kernels: budget" scripts/kernel_budget.sh check
run "kernels: nvcc's PTX on the host" scripts/ptx_crosscheck.sh quick 80

for isa in generic avx2; do
  [ $isa = avx2 ] && ! grep -qw avx2 /proc/cpuinfo && continue
  run "operations, $isa" env LONGHAND_ISA=$isa build/tests/ops --device cpu --quick
done

if [ "$mode" = sanitized ]; then
  build "address and undefined-behaviour sanitizers" BUILD=build/asan OPTIMIZE=-O0\ -g1 SANITIZE=address,undefined \
    build/asan/tests/ops build/asan/tests/core build/asan/tests/unit build/asan/longhand
  export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  run "operations, sanitized" build/asan/tests/ops --quick
  run "core, sanitized" build/asan/tests/core
  run "text and command line, sanitized" build/asan/tests/unit
  run "server, sanitized" tests/sanitized/serve.sh build/asan/longhand
  run "kernels on the host: sanitizers, guard, races" scripts/simt_checks.sh real
  build "thread sanitizer" BUILD=build/tsan OPTIMIZE=-O0\ -g1 SANITIZE=thread \
    build/tsan/tests/core build/tsan/tests/unit build/tsan/longhand
  run "core, thread sanitizer" setarch -R build/tsan/tests/core
  run "batch engine, thread sanitizer" setarch -R build/tsan/tests/unit --source-file='*serve_engine*'
  run "server, thread sanitizer" setarch -R tests/sanitized/serve.sh build/tsan/longhand
  if command -v clang++ >/dev/null && [ -e tests/fuzz/fuzz.mk ]; then
    run "fuzz: readers" make --no-print-directory fuzz SECONDS=10
  fi
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
