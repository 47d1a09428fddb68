#!/usr/bin/env bash
# Runs the test suite from a bare machine: sets up .venv with the dev tools, then calls pytest with the given arguments.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env dev
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
