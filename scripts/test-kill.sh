#!/usr/bin/env bash
# test-kill.sh: the built server is killed (SIGKILL) in the middle of 16 writers' sending, 20 times, on four lanes: nothing
# acknowledged is lost, nothing repeated on retry, the store is in order each time. Then two servers that share rooms, either
# of them, in the middle of joins and transactions: the same, and the rooms converge. More: COMITY_KILLS=200 scripts/test-kill.sh
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${COMITY_KILLS:-20}
COMITY_STORAGE__LANES=4 target/debug/comity-bench kill --comity target/debug/comity --kills "$kills"
export PYTHONPATH=src/testkit PYTHONDONTWRITEBYTECODE=1
exec python3 -m peers kill target/debug/comity "$kills"
