#!/bin/sh
# Installs moto, which answers as S3 does, in the versions beside this, into an environment of its own: install.sh DIRECTORY. Does nothing if
# it is there.
set -eu
place=$1
wanted=$(dirname "$0")/requirements.txt
cmp -s "$wanted" "$place/installed.txt" && [ -x "$place/bin/moto_server" ] && exit 0
command -v python3 >/dev/null || { echo 'no python3' >&2; exit 1; }
# What an interrupted installation has left is not mended by another on top of it.
python3 -m venv --clear "$place"
"$place/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$wanted"
cp "$wanted" "$place/installed.txt"
