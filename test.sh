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

# The OpenID provider that tests sign in at runs on node.
if ! command -v npm >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm; } >/dev/null 2>&1 \
        || echo "Node could not be installed: tests that need it are skipped." >&2
fi
if [ ! -d tests/oidc_provider/node_modules/oidc-provider ] && command -v npm >/dev/null 2>&1; then
    npm ci --prefix tests/oidc_provider --no-audit --no-fund --silent >/dev/null 2>&1 \
        || echo "The OpenID provider could not be installed: tests that need it are skipped." >&2
fi

if [ "$#" -eq 0 ]; then
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    # Two files at a time, each whole in one process, since tests of a file share what they start.
    set -- -n 2 --dist loadfile
fi
exec python -m pytest "$@"
