#!/usr/bin/env bash
# Install the S3 servers that tests/servers starts, where they are absent (Debian 12, Python 3.11):
#
#   scripts/ci_servers.sh                      Ceph and LocalStack, what CI runs the store's contract on
#   scripts/ci_servers.sh minio                MinIO too, built from source: needs Go, takes minutes
#
#   python -m tests.servers ceph -- python -m pytest tests/test_s3_integration.py
#
# Run again, it installs nothing. LocalStack and MinIO go to .servers/ in the checkout (or to
# MLTRACK_SERVERS_DIR), where tests/servers finds them; Ceph's packages come from Debian. Why these two:
# docs/s3_servers.md.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
SERVERS=${MLTRACK_SERVERS_DIR:-$ROOT/.servers}
PYTHON=${PYTHON:-python3.11}
CEPH_PACKAGES=(radosgw ceph-mon ceph-osd ceph-common)
CEPH_PROGRAMS=(ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin)
MINIO=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
. "$ROOT/scripts/debian.sh"

install_ceph() {
  if [ -z "$(missing "${CEPH_PROGRAMS[@]}")" ]; then say "ceph: already there"; return; fi
  apt_install "${CEPH_PACKAGES[@]}"
  local still; still=$(missing "${CEPH_PROGRAMS[@]}")
  [ -z "$still" ] || fail "installed ${CEPH_PACKAGES[*]}, but still missing: $still"
}

install_localstack() {
  local venv=$SERVERS/localstack wanted=$ROOT/tests/servers/localstack-requirements.txt
  # The copy of the pins is written last: where it is equal, the installation was finished.
  if cmp -s "$wanted" "$venv/installed.txt"; then say "localstack: already in $venv"; return; fi
  command -v "$PYTHON" >/dev/null || fail "no $PYTHON; set PYTHON to a Python 3.11"
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  say "localstack: into $venv"
  rm -rf "$venv"
  "$PYTHON" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$venv/installed.txt"
}

install_minio() {
  if [ -n "${MLTRACK_MINIO:-}" ]; then say "minio: $MLTRACK_MINIO"; return; fi
  local stamp=$SERVERS/minio.version
  if [ -x "$SERVERS/minio" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$MINIO" ]; then
    say "minio: already at $SERVERS/minio"; return
  fi
  command -v go >/dev/null || fail "no go on PATH; MinIO is built from source (https://go.dev/doc/install)"
  say "minio: go install $MINIO (about 5 minutes on 2 idle cores with empty caches)"
  GOBIN=$SERVERS go install "$MINIO"
  printf '%s' "$MINIO" >"$stamp"
}

mkdir -p "$SERVERS"
SERVERS=$(cd "$SERVERS" && pwd)  # go wants it absolute
[ $# -gt 0 ] || set -- ceph localstack
for server in "$@"; do
  case $server in
    ceph | localstack | minio) ;;
    *) fail "unknown server '$server'; choose of: ceph localstack minio" ;;
  esac
  began=$SECONDS
  "install_$server"
  say "$server: $((SECONDS - began)) s"
done
