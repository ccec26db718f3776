#!/usr/bin/env bash
# test.sh: everything CI runs. Each scripts/test-*.sh is a further suite (clients, kill loops, …): it finds the built
# workspace, brings what it needs, and fails by its exit code.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "== $((SECONDS / 60)) min: $*"; }

say "what the machine lacks"
scripts/setup-system.sh test
scripts/setup-tools.sh
. scripts/env.sh

# From here on our own code needs no network; what brings other people's (clients, Synapse, the S3 service) does, the first time.
cargo fetch --locked --quiet --target x86_64-unknown-linux-gnu
say "lint (the first time, the compiler's first half)"
scripts/lint.sh
say "build (the other half)"
cargo build --workspace --locked # the binary that the suites start
for suite in scripts/test-*.sh; do
  [ -x "$suite" ] || continue
  say "$suite"
  "$suite"
done
[ -d "${COMITY_SPEC:-../shared/spec}/openapi" ] || say "no specification beside the clone: answers are tested without it (set COMITY_SPEC)"
say "tests"
nextest=(cargo nextest run --workspace --locked --profile "${NEXTEST_PROFILE:-ci}")
with=(scripts/with-postgres.sh scripts/with-s3.sh)
"${with[@]}" "${nextest[@]}"
# Once more with four lanes what runs on a whole server, or on a fixture that reads this variable too; other tests that open a
# store go through both numbers by themselves.
say "tests with four lanes"
COMITY_TEST_LANES=4 "${with[@]}" "${nextest[@]}" \
  -E '(rdeps(comity-testkit) and not package(comity-testkit) and not package(comity-sim)) or binary(door)'
