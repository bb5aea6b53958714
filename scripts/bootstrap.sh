#!/bin/sh
# Make the environment that the Makefile runs in: bootstrap.sh VENV LOCK
#
# Needs Python 3.11 or newer, named by PYTHON. Run again after an interruption, it finishes the work.
set -eu

venv=$1 lock=$2
bin=$venv/bin
fail() { echo "bootstrap: $*" >&2; exit 1; }
say() { echo "bootstrap: $*"; }

# A venv whose Python is gone, or too old, is made anew.
if ! "$bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  [ -n "${PYTHON:-}" ] || fail "no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python"
  say "making $venv with $PYTHON"
  "$PYTHON" -m venv --clear "$venv" ||
    fail "$PYTHON cannot make a venv; on Debian and Ubuntu: apt-get install python3-venv"
fi
[ -x "$bin/uv" ] ||
  "$bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$lock" uv

say "installing $lock"
# Bytecode is compiled now: importing Prefect from sources alone takes twice the time, each time.
if ! "$bin/uv" pip sync --quiet --python "$bin/python" --compile-bytecode "$lock"; then
  say "uv could not; trying pip, which knows your pip.conf"
  "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$lock"
fi
"$bin/uv" pip install --quiet --python "$bin/python" --no-deps --no-build-isolation --editable .
