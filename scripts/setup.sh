# Set-up shared by train.sh and test.sh, to be sourced: `ensure_env [dev]` makes .venv and fills it where needed.
# shellcheck shell=bash

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/goalax-ready
log=$root/.venv.log # beside .venv, which may be made anew: the log is also the lock

# The pinned JAX has builds for these Pythons.
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

say() { printf 'goalax: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

have() { command -v "$1" >/dev/null; }

find_python() {
  local name names=(python3 python3.14 python3.13 python3.12 python3.11 python)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if "$name" -c "$supported" 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python from 3.11 to 3.14."
  die "No Python from 3.11 to 3.14 was found: install one, or name one with PYTHON=/path/to/python."
}

# Prints the extra that fits the NVIDIA driver and GPU, or nothing for the CPU.
jax_build() {
  local table major
  table=$(nvidia-smi 2>/dev/null) || return 0
  [[ $table =~ CUDA[A-Z\ ]*\ Version:\ *([0-9]+) ]] || return 0
  major=${BASH_REMATCH[1]}
  if [ "$major" -lt 12 ]; then
    say "The NVIDIA driver is too old for JAX (it offers CUDA $major, JAX needs 12): using the CPU."
  # CUDA 13 dropped the GPUs before Turing, whatever the driver says.
  elif [ "$major" -eq 12 ] ||
    nvidia-smi --query-gpu=compute_cap --format=csv,noheader | grep -qE '^([1-6]\.|7\.[0-4])'; then
    echo cuda12
  else
    echo cuda13
  fi
}

# All that decides what .venv should hold. nvidia-smi can take seconds, so its driver stands in for its answer.
fingerprint() {
  {
    cat "$root/pyproject.toml" "$root/requirements.txt" /proc/driver/nvidia/version 2>/dev/null || true
    echo "$root" "$(command -v nvidia-smi)"
  } | cksum
}

ready() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamp${1:+-$1}" 2>/dev/null)" = "$2" ]; }

make_venv() {
  # bin/activate is written last: without it the making was cut short.
  if [ -e "$venv/bin/activate" ] && { have uv || [ -x "$venv/bin/pip" ]; } &&
    "$venv/bin/python" -c "$supported" 2>/dev/null; then
    return
  fi
  local python
  python=$(find_python) || exit 1
  have uv || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make a venv: install python3-venv (Debian, Ubuntu) or uv."
  say "Making .venv with $python."
  if have uv; then
    uv venv --clear --seed --python "$python" "$venv" >&9 2>&1 || fail
  else
    "$python" -m venv --clear "$venv" >&9 2>&1 || fail
  fi
}

pip() (
  cd "$root" || exit 1
  if have uv; then
    uv pip "$@" --python "$venv/bin/python"
  else
    "$venv/bin/python" -m pip "$@"
  fi </dev/null >&9 2>&1
)

fail() {
  local why="for the reason given there"
  # On a full disk the log may lack its last lines, so free space counts too.
  if grep -qiE 'no space left|quota exceeded' "$log" ||
    df -Pk "$root" "$venv" 2>/dev/null | awk 'NR > 1 && $4 < 1024 { full = 1 } END { exit !full }'; then
    why="because the disk is full"
  elif grep -qiE 'name resolution|dns error|connect error|connection refused|unreachable|timed out' "$log"; then
    why="because the package index could not be reached"
  fi
  die "The install logged in $log stopped $why; the next call resumes it."
}

fill_venv() {
  local dev=$1 now=$2 cuda extras info
  : >"$log"
  trap 'say "Interrupted; the next call resumes the install."; exit 130' INT TERM
  rm -f "$stamp" "$stamp-dev"
  make_venv

  # pip and uv write INSTALLER once a package is whole; without it a package cut short would pass for installed.
  for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
    [ -e "$info/INSTALLER" ] || rm -rf "$info"
  done

  cuda=$(jax_build)
  extras=$cuda${cuda:+${dev:+,}}$dev
  say "Installing Goalax with the ${cuda:-CPU} build of JAX into .venv, which can take minutes (log: $log)."
  # The two CUDA builds clash, so the one for another driver goes.
  case $cuda in
    cuda12) pip uninstall -y jax-cuda13-plugin jax-cuda13-pjrt || fail ;;
    cuda13) pip uninstall -y jax-cuda12-plugin jax-cuda12-pjrt || fail ;;
  esac
  pip install -e ".${extras:+[$extras]}" -c requirements.txt || fail

  echo "$now" >"$stamp"
  [ -z "$dev" ] || echo "$now" >"$stamp-dev"
  trap - INT TERM
}

ensure_env() {
  local dev=${1:-} now
  now=$(fingerprint)
  ready "$dev" "$now" && return
  { exec 9>>"$log"; } 2>/dev/null || die "$root is not writable, so .venv cannot be made there."
  if have flock && ! flock -n 9; then
    say "Waiting for another set-up to end."
    flock 9 || true # some network disks have no locks
  fi
  if ! ready "$dev" "$now"; then fill_venv "$dev" "$now"; fi
  exec 9>&- # or a long training would keep the lock
}
