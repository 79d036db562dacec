#!/usr/bin/env bash
# Fetches the twelve-language corpus: LibreOffice's help, MPL-2.0, 38 MB of Debian packages, unpacked and not installed.
# What is there already is not fetched again.
#
#   scripts/fetch_corpus.sh [DIR]      DIR is data/corpus when not given
set -euo pipefail

directory=${1:-data/corpus}
# The package and the folder that its pages lie in.
languages=(en-us:en-US zh-cn:zh-CN de:de fr:fr es:es it:it pt-br:pt-BR ru:ru ja:ja ko:ko nl:nl pl:pl)

say() { echo "longhand: $*" >&2; exit 1; }

missing=()
for entry in "${languages[@]}"; do
  pages=$directory/usr/share/libreoffice/help/${entry#*:}
  # The mark is left when a package is unpacked whole; a run that was interrupted unpacks it again.
  [ -e "$pages/.complete" ] || missing+=("$entry")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  say "this machine has no apt to fetch the corpus with: give a text of your own, longhand prepare --text FILE"
fi
mkdir -p "$directory"
work=$(mktemp -d "$directory/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

packages=("${missing[@]%%:*}")
packages=("${packages[@]/#/libreoffice-help-}")
echo "longhand: fetching ${#packages[@]} packages of LibreOffice help into $directory"
fetch() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}" >fetch.log 2>&1); }
if ! fetch; then
  # A fresh machine knows no packages yet.
  [ "$(id -u)" -eq 0 ] && apt-get update -qq >/dev/null 2>&1 || true
  fetch || say "apt-get could not fetch the corpus ($(tail -n 1 "$work/fetch.log")); give a text of your own, longhand prepare --text FILE"
fi
for entry in "${missing[@]}"; do
  file=("$work"/libreoffice-help-"${entry%%:*}"_*.deb)
  dpkg -x "${file[0]}" "$directory" || say "${file[0]##*/} cannot be unpacked; is the disk full?"
  touch "$directory/usr/share/libreoffice/help/${entry#*:}/.complete"
done
