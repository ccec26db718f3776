#!/usr/bin/env bash
# lint.sh: what a reader should never have to point out: formatting, clippy, licences and sources of dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

cargo fmt --all --check
cargo deny --offline --log-level error check licenses bans sources
cargo clippy --workspace --all-targets --locked -- -D warnings
