#!/usr/bin/env bash
# run.sh: builds and starts a server for `localhost` on http://127.0.0.1:8008, its data in ./data.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-system.sh
. scripts/env.sh

if [ ! -x target/quick/comity ]; then
  echo "Building. The first time the compiler takes 10 to 20 minutes (half of it is RocksDB); later, seconds."
fi
cargo build --profile quick --locked --bin comity

export COMITY_SERVER_NAME=${COMITY_SERVER_NAME:-localhost}
export COMITY_PUBLIC_BASEURL=${COMITY_PUBLIC_BASEURL:-http://127.0.0.1:8008} COMITY_DATA_DIR=${COMITY_DATA_DIR:-./data}
cat <<END

  Comity serves $COMITY_SERVER_NAME on http://127.0.0.1:8008 with its data in $COMITY_DATA_DIR.

  The first user, from another terminal (it prints a password):
      COMITY_SERVER_NAME=$COMITY_SERVER_NAME target/quick/comity user add alice --admin
  Then sign in with any Matrix client: homeserver http://127.0.0.1:8008, user alice.

END
exec target/quick/comity serve
