#!/usr/bin/env bash
# test-peers.sh: two of the built server and a Synapse share rooms, each at a loopback address of its own with TLS from a
# private authority, in room versions 6, 10, 11 and 12; they are cut off from one another, killed, and come back. The
# conversations are src/testkit/peers; Synapse comes from PyPI, the bench's own. Words choose among them:
# scripts/test-peers.sh spaces 'version 12'
set -euo pipefail
cd "$(dirname "$0")/.."
synapse=${COMITY_CACHE:-$HOME/.cache/comity}/synapse
if ! "$synapse/bin/python" -c 'import synapse' 2>/dev/null; then
  echo "Installing Synapse from PyPI"
  python3 -m venv "$synapse"
  "$synapse/bin/pip" install --quiet --disable-pip-version-check matrix-synapse psycopg2-binary
fi
export PYTHONPATH=src/testkit PYTHONDONTWRITEBYTECODE=1
exec python3 -m peers talk "${COMITY_BINARY:-target/debug/comity}" "$synapse" "$@"
