#!/usr/bin/env bash
# Tests the loop, and trains once, on the newest Python from 3.12 on that is here, with the newest packages that it has.
# It has a virtual environment of its own, .venv-newest; without such a Python, or without an index, it says so.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"
newest=$root/.venv-newest

find_newest() {
  local name
  for name in python3.14 python3.13 python3.12 $(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[234].*/bin/python 2>/dev/null | sort -rV); do
    if "$name" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

python=$(find_newest)
if [ -z "$python" ]; then
  say "There is no Python from 3.12 to 3.14 here: nothing is tested on a newer one."
  exit 0
fi
stamp=$newest/ready
now="$(cksum <pyproject.toml) $("$python" --version) $root" # which is in its programs
if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
  say "Installing the newest packages for $("$python" --version) into .venv-newest."
  rm -rf "$newest"
  "$python" -m venv "$newest"
  if ! "$newest/bin/python" -m pip install -q -e ".[dev]" >"$root/.venv.log" 2>&1; then
    say "The newest packages could not be installed (.venv.log): nothing is tested on them."
    exit 0
  fi
  echo "$now" >"$stamp"
fi
"$newest/bin/python" -c 'import jax, sys; print("goalax: Python", sys.version.split()[0], "with jax", jax.__version__)'
"$newest/bin/python" -m pytest -q -n auto --maxprocesses 2 tests/test_rollout.py tests/test_buffer.py tests/test_losses.py
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
"$newest/bin/goalax" train --env_name simple_u_maze --episode_length 100 --min_replay_size 100 --num_timesteps 20000 \
  --num_evals 2 --vis_length 0 --utd_ratio 0.001
