# What the scripts that install programs share; to be sourced. Packages come from Debian.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
fail() { say "$*" >&2; exit 1; }
# `command -v` finds functions too, so none may be called as a program.
missing() { for name in "$@"; do command -v "$name" >/dev/null || printf '%s ' "$name"; done; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo -n "$@"
  else fail "neither root nor sudo; run as root: $*"; fi
}

apt_install() {
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: $*"
  say "apt-get install $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}
