#!/usr/bin/env bash
# test.sh: everything CI runs. Each scripts/test-*.sh is a further suite (clients, kill loops, …): it finds the built
# workspace, brings what it needs, and fails by its exit code.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-system.sh test
scripts/setup-tools.sh
. scripts/env.sh

cargo fetch --locked --quiet --target x86_64-unknown-linux-gnu # the only step that needs the network, besides the set-up
scripts/lint.sh
cargo build --workspace --locked # the binary that the suites start
for suite in scripts/test-*.sh; do
  [ -x "$suite" ] || continue
  echo "== $suite"
  "$suite"
done
scripts/with-postgres.sh cargo nextest run --workspace --locked --profile "${NEXTEST_PROFILE:-ci}"
