#!/usr/bin/env bash
# The checks that kernels go through on the host, and the proof that they notice something.
#
#   scripts/simt_checks.sh wrong     wrong kernels (tests/simt/wrong_kernels.cu) against every check, as a table
#   scripts/simt_checks.sh orders    the kernels of cuda/*.cu, as the operation table runs them, in other orders and guarded
#   scripts/simt_checks.sh real      the same in all orders and under every check
#   scripts/simt_checks.sh           wrong and real
#
# Checks: runtime (the launch fails, or the program faults), order (the result depends on the order of threads or on when
# cp.async lands), NaN (memory that nobody wrote reaches the result), address and undefined-behaviour sanitizers, guard
# (device memory is out of the host's reach between launches), race (unordered accesses, reads of what was never written,
# accesses outside every array). A line that begins with `ok` or `not ok` is one test.
set -uo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
failures=0
usual_bits=  # of the first order
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=0 ASAN_OPTIONS=detect_leaks=0

verdict() {  # verdict STATUS NAME
  if [ "$1" -eq 0 ]; then
    echo "ok $2"
  else
    echo "not ok $2"
    failures=$((failures + 1))
  fi
}

# orders CALL...: the environments of every order of threads and arrival of copies.
orders() {
  local order copies
  for order in fwd rev rand:1 rand:2 rand:3; do
    for copies in late early rand; do "$@" "SIMT_ORDER=$order" "SIMT_CPASYNC=$copies"; done
  done
}

differs_in() {  # one environment: is the result another one than the first?
  [ "$order_found" != - ] && return
  [ "$(env "$@" "$BUILD/tests/wrong_kernels" run "$kernel" 2>/dev/null)" = "$usual" ] && return
  order_found=${1#*=},${2#*=}
}

check_wrong_kernel() {
  local status runtime=- nan=- address=- guard=- race=-
  kernel=$1 order_found=-
  usual=$("$BUILD/tests/wrong_kernels" run "$kernel" 2>/dev/null)
  status=$?
  [ $status -eq 3 ] && runtime=fails
  [ $status -ge 128 ] && runtime=faults
  [[ $usual == *NaN* ]] && nan=NaN
  [ $runtime = - ] && orders differs_in
  "$BUILD/tests/wrong_kernels_address" run "$kernel" >"$scratch/out" 2>&1
  grep -q 'runtime error' "$scratch/out" && address=undefined
  grep -q 'AddressSanitizer' "$scratch/out" && address=address
  SIMT_GUARD=1 "$BUILD/tests/wrong_kernels" run "$kernel" >/dev/null 2>&1
  [ $? -ge 128 ] && [ $runtime != faults ] && guard=faults
  "$BUILD/tests/wrong_kernels_race" run "$kernel" >"$scratch/out" 2>&1
  race=$(grep -oE 'failed: (race|never written|outside every array)' "$scratch/out" | sed 's/failed: //; s/never written/unwritten/; s/outside every array/outside/')
  race=${race:--}
  printf '%-31s %-8s %-13s %-4s %-10s %-7s %-9s\n' "$kernel" "$runtime" "$order_found" $nan "$address" "$guard" "$race"
  [ "$runtime$order_found$nan$address$guard$race" = ------ ] && noticed=no || noticed=yes
}

wrong_kernels() {
  local kernel noticed order_found usual results=()
  printf '%-31s %-8s %-13s %-4s %-10s %-7s %-9s\n' kernel runtime order NaN sanitizers guard race
  while read -r name; do
    check_wrong_kernel "$name"
    case "$name $noticed" in
      sound_*" no") results+=("0 no alarm for $name") ;;
      sound_*) results+=("1 no alarm for $name") ;;
      *" yes") results+=("0 noticed: $name") ;;
      *) results+=("1 noticed: $name") ;;
    esac
  done < <("$BUILD/tests/wrong_kernels" list) 2>/dev/null
  for result in "${results[@]}"; do verdict "${result%% *}" "${result#* }"; done
}

# real NAME PROGRAM ENVIRONMENT...: the operation table's small shapes.
real() {
  local name=$1 program=$2
  shift 2
  env "$@" "$program" --device simt --quick ${SIMT_FILTER:+--filter "$SIMT_FILTER"} >"$scratch/out" 2>&1
  local status=$?
  [ $status -ne 0 ] && { grep -vE ' ok$' "$scratch/out" | tail -15; }
  verdict $status "kernels: $name ($(grep -oE '^[0-9]+ passed' "$scratch/out" | tail -1))"
}

# The same bits reach the host in every order, whenever copies land.
real_in_order() {
  local log=$scratch/launches
  local name="order ${1#*=}, cp.async ${2#*=}${3:+, streams ${3#*=}}"
  real "$name" "$BUILD/tests/ops" "SIMT_LAUNCH_LOG=$log" "$@"
  local bits
  bits=$(head -1 "$log")
  [ "${usual_bits:=$bits}" = "$bits" ]
  verdict $? "kernels: $name: the same bits"
}

few_orders() {
  real_in_order SIMT_ORDER=fwd SIMT_CPASYNC=late
  real_in_order SIMT_ORDER=rand:1 SIMT_CPASYNC=early SIMT_STREAMS=late
  SIMT_FILTER=attention_backward real "blocks of 99 KB, as sm_120 has them" "$BUILD/tests/ops" SIMT_SHARED=99
  real "device memory guarded" "$BUILD/tests/ops" SIMT_GUARD=1 SIMT_ORDER=rev
}

real_kernels() {
  few_orders
  real_in_order SIMT_ORDER=fwd SIMT_CPASYNC=early
  real_in_order SIMT_ORDER=rev SIMT_CPASYNC=late
  real_in_order SIMT_ORDER=rand:2 SIMT_CPASYNC=rand
  real_in_order SIMT_ORDER=rand:3 SIMT_CPASYNC=late
  real "address and undefined-behaviour sanitizers" "$BUILD/tests/ops_address"
  real "races, unwritten memory, bounds" "$BUILD/tests/ops_race"
}

targets=()
[ "${1:-}" = orders ] && targets+=("$BUILD"/tests/ops)
[ "${1:-wrong}" = wrong ] && targets+=("$BUILD"/tests/wrong_kernels{,_address,_race})
[ "${1:-real}" = real ] && targets+=("$BUILD"/tests/ops{,_address,_race})
$MAKE --no-print-directory -j"$(nproc)" BUILD="$BUILD" "${targets[@]}" >"$scratch/make" 2>&1
verdict $? "the programs build" || true
[ $failures -ne 0 ] && { tail -20 "$scratch/make"; exit 1; }
[ "${1:-wrong}" = wrong ] && wrong_kernels
[ "${1:-}" = orders ] && few_orders
[ "${1:-real}" = real ] && real_kernels
[ $failures -eq 0 ]
