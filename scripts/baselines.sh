#!/usr/bin/env bash
# Trains every row of docs/baselines.md that is not finished, one after the other, and writes its tables; call it again after an interruption.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env
cd "$root"
commands="$("$venv/bin/python" scripts/baselines.py --commands)"
while read -r python words; do
  [[ -z "$python" ]] && break # nothing is left
  echo "$python $words"
  # shellcheck disable=SC2086
  "$venv/bin/python" $words "$@" < /dev/null
done <<< "$commands"
"$venv/bin/python" scripts/baselines.py
