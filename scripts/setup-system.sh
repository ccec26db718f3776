#!/usr/bin/env bash
# setup-system.sh [test]: installs the Debian packages that a build needs and this machine lacks; with `test`, those
# of the tests too. Says what it installs; silent when nothing is missing.
set -euo pipefail

wanted=(build-essential pkg-config libclang-dev)
[ "${1:-}" = test ] && wanted+=(openssl postgresql python3 python3-venv)

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
echo "Installing system packages: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "This is no Debian: install what corresponds to them, then run this again." >&2
  exit 1
fi
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
