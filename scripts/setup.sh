# Sourced by start-dev.sh and test.sh: makes .venv as requirements.lock says, and does nothing when it is so already.
# Everything for people goes to stderr, so that a caller's output stays its own.

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 \
            && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Bifrost needs Python 3.11 or higher; set PYTHON to one." >&2
    return 1
}

setup_venv() {
    local stamp python
    stamp="$(cat requirements.lock pyproject.toml | cksum)"
    if [ -x .venv/bin/bifrost ] && [ "$(cat .venv/bifrost-stamp 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    python="$(find_python)"
    echo "Setting up .venv (once, about a minute) …" >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv >&2
    VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install --quiet --require-hashes --compile-bytecode -r requirements.lock >&2
    VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install --quiet --no-deps --editable . >&2
    echo "$stamp" > .venv/bifrost-stamp
}
