# Sourced by every end-to-end test: the program ($longhand), the sources ($sources), an empty folder to work in, and checks
# that print `ok NAME` or `not ok NAME: why`. LONGHAND names another program to test.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit 1
sources=$PWD
longhand=$(realpath "${LONGHAND:-build/longhand}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# check NAME COMMAND...: the command succeeds.
check() {
  local name=$1
  shift
  if "$@"; then echo "ok $name"; else echo "not ok $name: $*"; fi
}

quietly() { "$@" >/dev/null; }

# refused NAME CODE TEXT COMMAND...: the exit code and one line on standard error that holds the text.
refused() {
  local name=$1 code=$2 text=$3 got
  shift 3
  "$@" >out.txt 2>err.txt </dev/null
  got=$?
  if [ "$got" -eq "$code" ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -qF -- "$text" err.txt; then
    echo "ok $name"
  else
    echo "not ok $name: exit code $got instead of $code, or not \"$text\": $(head -c 300 err.txt)"
  fi
}
