#!/usr/bin/env bash
# Trains an agent from a bare machine: sets up .venv on the first call, then runs training.py with the given flags.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env
exec "$venv/bin/python" "$root/training.py" "$@"
