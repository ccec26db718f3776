#!/usr/bin/env bash
# setup-go.sh: prints the path of a Go compiler that is new enough for the services the tests run, this machine's or one from
# Go's module proxy, kept under ~/.cache/comity.
set -euo pipefail

version=1.26.8
newer() { printf '%s\n' "$1" "$2" | sort -V -C; }

if command -v go >/dev/null && newer 1.25 "$(go env GOVERSION | sed 's/^go//')"; then
  command -v go
  exit
fi

home=${COMITY_CACHE:-$HOME/.cache/comity}/go-$version
if [ ! -x "$home/bin/go" ]; then
  echo "Fetching Go $version" >&2
  fetched=$(mktemp -d)
  trap 'rm -rf "$fetched"' EXIT
  name=toolchain@v0.0.1-go$version.linux-amd64
  python3 - "https://proxy.golang.org/golang.org/${name/@//@v/}.zip" "$fetched" <<'PY'
import io, sys, urllib.request, zipfile
url, to = sys.argv[1:]
with urllib.request.urlopen(url) as answer:
    zipfile.ZipFile(io.BytesIO(answer.read())).extractall(to)
PY
  chmod -R +x "$fetched/golang.org/$name/bin" "$fetched/golang.org/$name/pkg/tool"
  mkdir -p "$(dirname "$home")"
  rm -rf "$home"
  mv "$fetched/golang.org/$name" "$home"
fi
echo "$home/bin/go"
