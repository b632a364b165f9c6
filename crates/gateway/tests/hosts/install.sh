#!/usr/bin/env bash
# Installs the pinned iso_8583 into a directory: install.sh DIRECTORY. Does nothing if it is there.
set -euo pipefail
# Written last: an installation that was cut short is made again.
[ -e "$1/installed" ] && exit 0
mkdir -p "$1"
cp "$(dirname "$0")/package.json" "$(dirname "$0")/package-lock.json" "$1/"
cd "$1" && npm ci --silent --no-audit --no-fund && touch installed
