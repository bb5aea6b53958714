#!/usr/bin/env bash
# Install the browser that tests/browser drives, where it is absent (Debian 12): scripts/ci_browser.sh
#
# Run again, it installs nothing. Elsewhere any Chromium does, with its driver: on PATH as `chromium` and
# `chromedriver`.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

if [ -z "$(missing chromium chromedriver)" ]; then say "chromium: already there"; exit; fi
began=$SECONDS
apt_install chromium chromium-driver fonts-dejavu-core
still=$(missing chromium chromedriver)
[ -z "$still" ] || fail "installed, but still missing: $still"
say "chromium: $((SECONDS - began)) s"
