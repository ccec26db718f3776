#!/usr/bin/env bash
# test-peers.sh: the built server and a Synapse share rooms, each at a loopback address of its own with TLS from a private
# authority: joins, invites, history, redactions and state both ways, in room versions 6, 10, 11 and 12, and our server
# away and back. The conversation is src/testkit/peers/conversation.py; Synapse comes from PyPI, the bench's own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
synapse=${COMITY_CACHE:-$HOME/.cache/comity}/synapse
if ! "$synapse/bin/python" -c 'import synapse' 2>/dev/null; then
  echo "Installing Synapse from PyPI"
  python3 -m venv "$synapse"
  "$synapse/bin/pip" install --quiet --disable-pip-version-check matrix-synapse psycopg2-binary
fi

ours=127.0.7.1 theirs=127.0.7.2
scratch=$(mktemp -d)
trap 'kill -KILL $(cat "$scratch"/*.pid 2>/dev/null) 2>/dev/null || true; rm -rf "$scratch"' EXIT

# --- who they are
key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@" 2>/dev/null; }
key -x509 -subj "/CN=peers" -days 2 -addext basicConstraints=critical,CA:TRUE -keyout "$scratch/ca.key" -out "$scratch/ca.crt"
for address in "$ours" "$theirs"; do
  key -subj "/CN=$address" -keyout "$scratch/$address.key" -out "$scratch/$address.request"
  openssl x509 -req -in "$scratch/$address.request" -CA "$scratch/ca.crt" -CAkey "$scratch/ca.key" -CAcreateserial -days 2 \
    -extfile <(printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:%s\n' "$address") \
    -out "$scratch/$address.crt" 2>/dev/null
done

await() { # await URL PID LOG
  for _ in $(seq 600); do
    if python3 -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)' "$1/_matrix/client/versions" 2>/dev/null
    then return; fi
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  echo "no answer from $1:" >&2
  tail -20 "$3" >&2
  return 1
}

# --- theirs
cat >"$scratch/homeserver.yaml" <<END
server_name: "$theirs:8448"
report_stats: false
trusted_key_servers: []
enable_registration: true
enable_registration_without_verification: true
signing_key_path: $scratch/theirs.signing.key
media_store_path: $scratch/media
pid_file: $scratch/unused
log_config: $scratch/logging.yaml
tls_certificate_path: $scratch/$theirs.crt
tls_private_key_path: $scratch/$theirs.key
federation_custom_ca_list: ["$scratch/ca.crt"]
ip_range_blacklist: []
listeners:
  - {port: 8448, bind_addresses: [$theirs], type: http, tls: true, resources: [{names: [federation]}]}
  - {port: 8008, bind_addresses: [$theirs], type: http, resources: [{names: [client]}]}
database: {name: sqlite3, args: {database: $scratch/theirs.db}}
rc_message: {per_second: 10000, burst_count: 10000}
rc_registration: {per_second: 10000, burst_count: 10000}
rc_joins: {local: {per_second: 10000, burst_count: 10000}, remote: {per_second: 10000, burst_count: 10000}}
rc_invites: {per_room: {per_second: 10000, burst_count: 10000}, per_user: {per_second: 10000, burst_count: 10000}}
END
cat >"$scratch/logging.yaml" <<END
version: 1
handlers: {console: {class: logging.StreamHandler}}
root: {level: WARNING, handlers: [console]}
END
python=$synapse/bin/python
"$python" -m synapse.app.homeserver -c "$scratch/homeserver.yaml" --generate-keys >"$scratch/theirs.log" 2>&1
"$python" -m synapse.app.homeserver -c "$scratch/homeserver.yaml" >>"$scratch/theirs.log" 2>&1 &
echo $! >"$scratch/theirs.pid"
disown

# --- ours
export COMITY_SERVER_NAME=$ours:8448 COMITY_PUBLIC_BASEURL=http://$ours:8008 COMITY_DATA_DIR=$scratch/data
export COMITY_LISTEN__CLIENT=$ours:8008 COMITY_LISTEN__FEDERATION=$ours:8448
export COMITY_LISTEN__TLS_CERT=$scratch/$ours.crt COMITY_LISTEN__TLS_KEY=$scratch/$ours.key
export COMITY_OUTBOUND__EXTRA_CA_FILES=$scratch/ca.crt COMITY_OUTBOUND__ALLOW_PRIVATE_ADDRESSES=true
export COMITY_REGISTRATION__OPEN=true COMITY_LIMITS__ENABLED=false COMITY_STORAGE__LANES=4
cat >"$scratch/ours" <<END
set -eu
case \$1 in
start)
  nohup "${COMITY_BINARY:-$PWD/target/debug/comity}" serve >>"$scratch/ours.log" 2>&1 </dev/null &
  echo \$! >"$scratch/ours.pid" ;;
stop)
  pid=\$(cat "$scratch/ours.pid")
  kill -KILL "\$pid"
  while kill -0 "\$pid" 2>/dev/null; do sleep 0.05; done ;;
esac
END
bash "$scratch/ours" start
await "http://$ours:8008" "$(cat "$scratch/ours.pid")" "$scratch/ours.log"
await "http://$theirs:8008" "$(cat "$scratch/theirs.pid")" "$scratch/theirs.log"

if ! python3 src/testkit/peers/conversation.py "http://$ours:8008" "$ours:8448" "http://$theirs:8008" "$theirs:8448" "bash $scratch/ours"; then
  for log in ours theirs; do
    echo "-- the end of the log of $log"
    tail -20 "$scratch/$log.log"
  done
  exit 1
fi
