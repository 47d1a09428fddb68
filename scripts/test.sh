#!/usr/bin/env bash
# Runs the test suite from a bare machine: sets up .venv with the dev tools, then calls pytest with the given arguments.
# Files of tests run side by side, on at most four cores: more would compile the same environments again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env dev
cd "$root"
exec "$venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
