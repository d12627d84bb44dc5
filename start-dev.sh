#!/usr/bin/env bash
# Sets up what is missing, then runs the whole product in the foreground: ./start-dev.sh [options of `bifrost up`]
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup.sh
setup_venv
# The home is BIFROST_HOME, or ~/.bifrost: the same that the other commands look at.
exec .venv/bin/bifrost up --dev --workspace "${BIFROST_WORKSPACE:-$PWD/workspace}" "$@"
