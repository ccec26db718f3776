#!/usr/bin/env bash
# with-s3.sh COMMAND…: runs COMMAND with COMITY_TEST_S3_URL naming an S3 service of its own (versitygw, over a folder that is thrown away
# afterwards): region us-east-1, access key "test" with the secret "testsecret", an empty bucket "media". A URL that is already
# set is left alone.
set -euo pipefail

[ -z "${COMITY_TEST_S3_URL:-}" ] || exec "$@"

version=v1.8.0
home=${COMITY_CACHE:-$HOME/.cache/comity}/versitygw-$version
if [ ! -x "$home/versitygw" ]; then
  echo "Building versitygw $version, an S3 service to test with (a few minutes, once)" >&2
  go=$("$(dirname "$0")/setup-go.sh")
  GOBIN="$home" GOFLAGS=-buildvcs=false GOTOOLCHAIN=local "$go" install -ldflags='-s -w' "github.com/versity/versitygw/cmd/versitygw@$version" >&2
fi

folder=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir -p "$folder/data/media"
# A port may be taken: then it ends at once and the next is tried.
for _ in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  ROOT_ACCESS_KEY=test ROOT_SECRET_KEY=testsecret "$home/versitygw" --port "127.0.0.1:$port" --quiet posix "$folder/data" >"$folder/log" 2>&1 &
  server=$!
  until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { server=; break; }
    sleep 0.1
  done
  [ -z "$server" ] || break
done
[ -n "$server" ] || { echo "versitygw does not start:" >&2; tail -5 "$folder/log" >&2; exit 1; }

COMITY_TEST_S3_URL="http://127.0.0.1:$port" "$@"
