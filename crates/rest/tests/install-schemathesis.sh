#!/bin/sh
# Installs schemathesis, and all that it needs in the versions beside this, into an environment of its own: install-schemathesis.sh
# DIRECTORY. Does nothing if it is there: with other versions the same seed makes other requests.
set -eu
place=$1
wanted=$(dirname "$0")/schemathesis.txt
cmp -s "$wanted" "$place/installed.txt" && "$place/bin/schemathesis" --version >/dev/null 2>&1 && exit 0
command -v python3 >/dev/null || { echo 'no python3' >&2; exit 1; }
# What an interrupted installation has left is not mended by another on top of it.
python3 -m venv --clear "$place"
"$place/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
cp "$wanted" "$place/installed.txt"
