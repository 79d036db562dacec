#!/usr/bin/env bash
# Installs the Debian packages that the build needs and this machine lacks; says which and why, does nothing otherwise.
set -euo pipefail

needed=(
  "g++:the compiler" "make:the build" "libfmt-dev:formatting" "doctest-dev:tests" "nlohmann-json3-dev:JSON"
  "libcli11-dev:the command line" "libyaml-cpp-dev:configuration files" "libsentencepiece-dev:the tokenizer"
  "libicu-dev:Unicode" "libcpp-httplib-dev:the server" "pkg-config:the build" "curl:tests of the server" "python3:tests"
  "ca-certificates:downloads"
)
missing=() reasons=()
for entry in "${needed[@]}"; do
  package=${entry%%:*}
  if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
    missing+=("$package") reasons+=("$package (${entry#*:})")
  fi
done
[ ${#missing[@]} -eq 0 ] && exit 0

list=$(IFS=,; echo "${reasons[*]}")
if ! command -v apt-get >/dev/null; then
  echo "longhand: missing ${list//,/, }; this machine has no apt-get: install them with its own package manager" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "longhand: missing ${list//,/, }; run: sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "longhand: installing ${list//,/, }"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
