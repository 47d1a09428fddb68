#!/usr/bin/env bash
# Measures what is to be known of a GPU, PARTs of it or all: scripts/gpu_report.sh OUT [PART...]; results lie in OUT.
#
# A call ends after SLICE seconds (default 450), and half a minute later at most, with exit code 3 if something is left:
# call it again. What is finished is skipped, and trainings go on where they stopped, also on another machine that is
# given OUT; compiled programs are kept in OUT/cache. A part that takes longer than its time in the list is cut, and one
# that fails is told (exit code 1 at the end), so that the next one has its turn. GOALAX_PYTHON names a Python that has
# the packages; without it .venv is set up. TOY=1 takes tiny sizes, and no such times: it tests the script anywhere.
#
# Without PARTs, those that fit into a quarter of an hour, such as SLICE=450 and then SLICE=270:
#   speed    150 s  speeds against the limit that the parts set: ant, reacher
#   ant      210 s  CRL on ant for 10M steps: success, and the time after compilation
#   seeds    120 s  8 seeds of ant at once against one
#   profile   90 s  phases, kernels and roofline of ant
#   maze            ChronoSRL on ant_big_maze, for what time is left
# Others, by their names:
#   envs            stepping alone, every environment, beside Brax's own
#   curves          speed, memory and compile time of ant over seven flags
#   success         CRL and TMD in six environments, 10M steps, 4 seeds
set -euo pipefail
shopt -s extglob
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

declare -A most=([speed]=150 [ant]=210 [seeds]=120 [profile]=90) # seconds of a part in one call
first_parts=(speed ant seeds profile maze)
all_parts=("${first_parts[@]}" envs curves success)
usage="Usage: scripts/gpu_report.sh OUT [${all_parts[*]}]"
case ${1:-} in
  "") die "$usage" ;;
  -h | --help) say "$usage" && exit ;;
esac
out=$1
shift
parts=("$@")
[ $# -ge 1 ] || parts=("${first_parts[@]}")
for part in "${parts[@]}"; do
  [[ " ${all_parts[*]} " == *" $part "* ]] || die "There is no part $part; choose from: ${all_parts[*]}."
done

python=${GOALAX_PYTHON:-}
if [ -z "$python" ]; then
  ensure_env
  python=$venv/bin/python
fi
[ "$(command -v "$python")" ] || die "GOALAX_PYTHON is $python; it must name a Python."
case $python in */*) python=$(CDPATH='' cd "$(dirname "$python")" && pwd)/${python##*/} ;; esac # the folder changes below
mkdir -p "$out"
out=$(CDPATH='' cd "$out" && pwd)
cd "$out" # trainings write into ./runs
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$out/cache}
slice=${SLICE:-450}
[[ $slice =~ ^[1-9][0-9]*$ ]] || die "SLICE is $slice; it must be a whole number of seconds."
ends=$((SECONDS + slice)) part_ends=$((SECONDS + slice)) left_over=() failed=()

sizes=(--num_envs 512 --num_eval_envs 128 --unroll_length 62 --batch_size 256 --h_dim 256 --n_hidden 2)
budget=(--num_timesteps 10_000_000 --num_evals 20 --vis_length 0)
measuring=(--seconds 3 --repeats 3)
body=ant bodies=(ant reacher) trained=(ant reacher pusher_easy ant_u_maze ant_ball humanoid)
long=(--episode_length 1000) seeds=4 many=8 values=()
# Batch, depth and updates per step of arXiv 2609.36238; the budget is larger than what a quarter of an hour can train.
maze=ant_big_maze maze_flags=(--num_envs 512 --num_eval_envs 128 --n_hidden 5 --skip_connections 4 --batch_size 512)
maze_flags+=(--utd_ratio 0.0252 --alpha_lr 3e-4 --num_timesteps 50_000_000 --num_evals 100 --vis_length 0)
if [ -n "${TOY:-}" ]; then
  sizes=(--num_envs 4 --num_eval_envs 2 --unroll_length 10 --batch_size 8 --h_dim 8 --repr_dim 8 --utd_ratio 0.1)
  sizes+=(--episode_length 20 --min_replay_size 20 --max_replay_size 40)
  budget=(--num_timesteps 160 --num_evals 2 --vis_length 0)
  measuring=(--seconds 0.02 --repeats 1)
  most=() body=simple_u_maze bodies=(simple_u_maze) trained=(simple_u_maze) long=() seeds=2 many=2 values=(--values 20)
  maze=simple_big_maze maze_flags=("${sizes[@]}" --n_hidden 1 --num_timesteps 1_000_000 --num_evals 50 --vis_length 0)
fi

# within COMMAND...: runs it until the time of the part or of the call is over, which is exit code 3; 1 if it fails.
within() {
  local code=0 until=$((part_ends < ends ? part_ends : ends)) left
  left=$((until - SECONDS))
  [ "$left" -ge 1 ] || return 3
  say "$*"
  timeout --signal=TERM --kill-after=25 "$left" "$@" || code=$?
  case $code in
    0) ;;
    124 | 137) return 3 ;; # 137: it had to be killed
    *)
      say "It ended with exit code $code."
      return 1
      ;;
  esac
}

# measure NAME FLAGS...: benchmark.py with these flags into NAME.json, and what it prints into NAME.txt.
measure() {
  local name=$1
  shift
  if [ -e "$name.json" ]; then
    say "$name.json is there."
    return
  fi
  mkdir -p "$(dirname "$name")"
  within "$python" "$root/scripts/benchmark.py" "$@" "${measuring[@]}" --out "$name.json" >"$name.txt" || {
    local code=$?
    rm -f "$name.txt"
    return "$code"
  }
  cat "$name.txt"
}

# learn NAME FLAGS...: training.py with these flags, then its final evaluation into NAME.json.
learn() {
  local name=$1 resume=()
  shift
  if [ -e "$name.json" ]; then
    say "$name.json is there."
    return
  fi
  if compgen -G "runs/${name}_s*/checkpoints/+([0-9])" >/dev/null; then resume=(--resume); fi
  within "$python" "$root/training.py" "$@" --exp_name "$name" "${resume[@]}" || return
  within "$python" "$root/scripts/table.py" runs/"${name}"_s* --out "$name.json"
}

# do_part PART: all of it; 3 if time was short, 1 if something failed.
do_part() {
  case $1 in
    speed) for env in "${bodies[@]}"; do measure "speed_$env" --env_name "$env" "${sizes[@]}" || return; done ;;
    profile) measure "profile_$body" --profile --env_name "$body" "${sizes[@]}" ;;
    envs)
      names=$body
      if [ -z "${TOY:-}" ]; then
        names=$(cd "$root" && PYTHONPATH="$root/src:${PYTHONPATH:-}" "$python" -c 'from goalax.envs import ENVS
from goalax.envs.control import TASKS
print(*(name for name in ENVS if name not in TASKS))') || return 1
      fi
      for env in $names; do measure "envs/$env" --all_envs --env_match "^$env$" "${sizes[@]}" || return; done
      ;;
    curves)
      for flag in num_envs num_seeds batch_size episode_length max_replay_size h_dim n_hidden; do
        measure "curve_$flag" --curve "$flag" "${values[@]}" --env_name "$body" "${sizes[@]}" "${long[@]}" || return
      done
      ;;
    seeds) measure seeds --curve num_seeds --values "1,$many" --env_name "$body" "${sizes[@]}" "${long[@]}" ;;
    ant)
      learn "${body}_10m" --env_name "$body" "${sizes[@]}" "${budget[@]}" "${long[@]}" || return
      within "$python" "$root/scripts/table.py" runs/"${body}"_10m_s* --out "${body}_10m.md"
      ;;
    maze) learn "${maze}_chronosrl" --env_name "$maze" --agent chronosrl "${maze_flags[@]}" ;;
    success)
      for env in "${trained[@]}"; do
        for agent in crl tmd; do
          learn "${env}_$agent" --env_name "$env" --agent "$agent" --num_seeds "$seeds" "${sizes[@]}" "${budget[@]}" ||
            return
        done
      done
      directories=()
      for env in "${trained[@]}"; do directories+=(runs/"${env}"_crl_s* runs/"${env}"_tmd_s*); done
      for suffix in md csv; do
        within "$python" "$root/scripts/table.py" "${directories[@]}" --out "success.$suffix" || return
      done
      ;;
  esac
}

for part in "${parts[@]}"; do
  began=$SECONDS code=0
  part_ends=$((SECONDS + ${most[$part]:-$slice}))
  do_part "$part" || code=$?
  [ "$code" -ne 3 ] || left_over+=("$part")
  [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || failed+=("$part")
  say "$part took $((SECONDS - began)) s."
done
[ ${#failed[@]} -eq 0 ] || die "Failed: ${failed[*]}."
if [ ${#left_over[@]} -gt 0 ]; then
  say "The time of this call is over, and work is left: the same call goes on (${left_over[*]})."
  exit 3
fi
say "All is there: $out"
