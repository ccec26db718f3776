#!/usr/bin/env bash
# test-peers.sh: two of the built server and a Synapse share rooms, each at a loopback address of its own with TLS from a
# private authority, in room versions 6, 10, 11 and 12; they are cut off from one another, killed, and come back. The
# conversations are src/testkit/peers; Synapse comes from PyPI, the bench's own. Words choose among them:
# scripts/test-peers.sh spaces 'version 12'
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/synapse.sh
export PYTHONPATH=src/testkit PYTHONDONTWRITEBYTECODE=1
exec python3 -m peers talk "${COMITY_BINARY:-target/debug/comity}" "$synapse" "$@"
