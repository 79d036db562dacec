#!/usr/bin/env bash
# A function compiled for one instruction set must not be one that the linker may keep for everyone: the kernel objects
# hold no weak symbol outside their own namespace. Names what it finds.
set -euo pipefail
build=${1:-build}

objects=("$build"/obj/src/device/cpu/kernels/*.o)
if [ ! -e "${objects[0]}" ]; then
  echo "no kernel objects under $build/obj: build first" >&2
  exit 1
fi
bad=0
for object in "${objects[@]}"; do
  isa=${object%.o} isa=${isa##*.}
  found=$(nm -C --defined-only "$object" | awk '$2 ~ /^[WVu]$/' | grep -v "longhand::cpu::$isa::" || true)
  if [ -n "$found" ]; then
    echo "$object defines weak symbols outside longhand::cpu::$isa:" >&2
    echo "$found" >&2
    bad=1
  fi
done
[ $bad -eq 0 ] && echo "${#objects[@]} kernel objects hold no foreign weak symbol"
exit $bad
