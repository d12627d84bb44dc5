#!/usr/bin/env bash
# Sets up what the tests need, then runs all checks and tests: ./test.sh [pytest options]
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup.sh
setup_venv
export PATH="$PWD/.venv/bin:$PATH"

# Pages are looked at in a real browser; where Debian's can be installed, it is.
if ! command -v chromium >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
        || echo "Chromium could not be installed: tests that need it are skipped." >&2
fi

if [ "$#" -eq 0 ]; then
    ruff check .
    ruff format --check .
    mypy
    lint-imports
fi
exec python -m pytest "$@"
