#!/usr/bin/env bash
# with-postgres.sh COMMAND…: runs COMMAND with COMITY_TEST_POSTGRES_URL naming an empty PostgreSQL of its own, and
# throws it away afterwards. A URL that is already set is left alone.
set -euo pipefail

[ -z "${COMITY_TEST_POSTGRES_URL:-}" ] || exec "$@"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || { echo "no PostgreSQL here: run scripts/setup-system.sh test" >&2; exit 1; }

folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses to run as root
  chown postgres "$folder"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --inh-caps=-all)
fi

server=
finish() {
  [ -z "$server" ] || { kill -INT "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

(cd / && "${as[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust --no-sync -E UTF8 --locale=C.UTF-8 >/dev/null)

# A port may be taken: then PostgreSQL ends at once and the next is tried.
for _ in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  (cd / && exec "${as[@]}" "$bin/postgres" -D "$folder/data" -p $port \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories="$folder" -c max_connections=200 \
    -c shared_buffers=64MB -c fsync=off -c synchronous_commit=off -c full_page_writes=off) \
    >"$folder/log" 2>&1 &
  server=$!
  until "$bin/pg_isready" -q -h 127.0.0.1 -p $port; do
    kill -0 "$server" 2>/dev/null || { server=; break; }
    sleep 0.1
  done
  [ -z "$server" ] || break
done
[ -n "$server" ] || { echo "PostgreSQL does not start:" >&2; tail -5 "$folder/log" >&2; exit 1; }

COMITY_TEST_POSTGRES_URL="postgresql://postgres@127.0.0.1:$port/postgres" "$@"
