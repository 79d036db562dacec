#!/usr/bin/env bash
# The program's frame: help, version, mistakes in words and in configuration files. Prints ok / not ok a check.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

# check NAME CODE TEXT COMMAND...: the command ends with the code, and its output contains the text.
check() {
  local name=$1 code=$2 text=$3 output rc
  shift 3
  output=$("$@" 2>&1 </dev/null)
  rc=$?
  if [ "$rc" -ne "$code" ]; then
    echo "not ok $name: exit code $rc instead of $code: ${output:0:200}"
  elif ! grep -qF -- "$text" <<<"$output"; then
    echo "not ok $name: \"$text\" is not in: ${output:0:300}"
  elif [ "$code" -ne 0 ] && [ "$(wc -l <<<"$output")" -ne 1 ]; then
    echo "not ok $name: more than one line: $output"
  else
    echo "ok $name"
  fi
}

config() { printf '%b' "$1" >"$work/config.yaml"; echo "$work/config.yaml"; }

check "help lists the commands" 0 "generate" "$longhand" --help
check "help of a command lists its flags with defaults" 0 "--temperature" "$longhand" generate --help
check "help COMMAND is COMMAND --help" 0 "--temperature" "$longhand" help generate
check "the version is printed" 0 "longhand 0." "$longhand" --version
check "no command is wrong usage" 2 "a command is missing" "$longhand"
check "a mistyped command names the nearest" 2 'no command "genrate" (did you mean "generate"?)' "$longhand" genrate
check "a flag before the command is wrong usage" 2 "a command comes before its flags" "$longhand" --seed 1 generate
check "a mistyped flag names the nearest" 2 'no flag --temprature (did you mean "--temperature"?)' \
  "$longhand" generate --temprature 1
check "a wrong type is one clear line" 2 'longhand: generate: --tokens cannot be "many"' \
  "$longhand" generate --tokens many
check "a flag without its value is one clear line" 2 "--tokens needs a value" "$longhand" generate --tokens
check "a flag given twice is one clear line" 2 "--tokens is given more than once" "$longhand" generate --tokens 1 --tokens 2
check "a word too many is one clear line" 2 '"surplus" is not expected' "$longhand" generate surplus

check "a mistyped key names its line and the nearest" 2 \
  'config.yaml:3: generate has no flag for "temprature" (did you mean "temperature"?)' \
  "$longhand" generate --config "$(config 'tokens: 3\nsampling:\n  temprature: 1\n')"
check "a wrong type in a file names its line" 2 'config.yaml:2: --tokens cannot be "many"' \
  "$longhand" generate --config "$(config '# comment\ntokens: many\n')"
check "a key given twice names both lines" 2 'config.yaml:2: "top_k" was given before, in line 1' \
  "$longhand" generate --config "$(config 'top-k: 1\ntop_k: 2\n')"
check "an alias of a key counts as the key" 2 'config.yaml:2: "init" is given under another name before' \
  "$longhand" score --config "$(config 'model: a\ninit: b\n')"
check "a list for a single value names its line" 2 'config.yaml:1: "tokens" takes one value, not a list' \
  "$longhand" generate --config "$(config 'tokens: [1, 2]\n')"
check "a switch takes true or false" 2 'config.yaml:1: "json" is true or false' \
  "$longhand" generate --config "$(config 'json: 7\n')"
check "a key without a value names its line" 2 'config.yaml:1: "tokens" has no value' \
  "$longhand" generate --config "$(config 'tokens:\n')"
check "text that is no YAML names its line" 2 "config.yaml:2: this is not YAML" \
  "$longhand" generate --config "$(config 'tokens: 1\n\t: }\n')"
check "an absent configuration file is one clear line" 2 "no-such-file.yaml" \
  "$longhand" generate --config "$work/no-such-file.yaml"
check "values of a file reach the command" 1 "from-the-file.safetensors" \
  "$longhand" generate --config "$(config "group:\n  model: $work/from-the-file.safetensors\nprompt: a\n")"
check "the command line wins over the file" 1 "from-the-line.safetensors" \
  "$longhand" generate --config "$(config "model: $work/from-the-file.safetensors\nprompt: a\n")" \
  --model "$work/from-the-line.safetensors"
