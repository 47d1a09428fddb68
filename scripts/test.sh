#!/usr/bin/env bash
# Runs the test suite from a bare machine: sets up .venv with the dev tools, then calls pytest with the given arguments.
# Files of tests run side by side, one more than there are cores, as some wait, but four at most: more would compile the
# same environments again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env dev
cd "$root"
cores=$("$venv/bin/python" -c 'import os; print(os.cpu_count())')
exec "$venv/bin/python" -m pytest -n $((cores + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
