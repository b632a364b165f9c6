#!/usr/bin/env bash
# Installs the pinned hdrhistogram into a virtual environment of its own: install.sh DIRECTORY. Does nothing if it is there.
set -euo pipefail
[ -x "$1/bin/python" ] && "$1/bin/python" -c 'import hdrh.log' 2>/dev/null && exit 0
python3 -m venv --clear "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$(dirname "$0")/requirements.txt"
