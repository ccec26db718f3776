#!/usr/bin/env bash
# test-complement-tools.sh: the tools that run Complement, tested without it (CI has no checkout of it).
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 -B complement-tests/test_tools.py
