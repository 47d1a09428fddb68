#!/usr/bin/env bash
# Measures what is to be known of a GPU, PARTs of it or all: scripts/gpu_report.sh OUT [PART...]; results lie in OUT.
#
# A call ends after SLICE seconds (default 540) with exit code 3 if something is left: call it again. What is finished
# is skipped, trainings go on where they stopped. GOALAX_PYTHON names a Python that has the packages; without it .venv
# is set up. TOY=1 takes tiny sizes: it tests the script on any machine.
#
#   speed    speeds against the limit that the parts set: ant, reacher, humanoid
#   profile  phases, kernels and roofline of the same environments
#   envs     stepping alone, every environment, beside Brax's own
#   curves   speed, memory and compile time of ant over seven flags
#   seeds    8 seeds of ant at once against one
#   ant      CRL on ant for 10M steps: success, and the time after compilation
#   success  CRL and TMD in six environments, 10M steps, 4 seeds
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

all_parts=(speed profile envs curves seeds ant success)
[ $# -ge 1 ] || die "Usage: scripts/gpu_report.sh OUT [${all_parts[*]}]"
out=$1
shift
parts=("$@")
[ $# -ge 1 ] || parts=("${all_parts[@]}")
for part in "${parts[@]}"; do
  [[ " ${all_parts[*]} " == *" $part "* ]] || die "There is no part $part; choose from: ${all_parts[*]}."
done

python=${GOALAX_PYTHON:-}
if [ -z "$python" ]; then
  ensure_env
  python=$venv/bin/python
fi
[ "$(command -v "$python")" ] || die "GOALAX_PYTHON is $python; it must name a Python."
mkdir -p "$out"
out=$(CDPATH='' cd "$out" && pwd)
cd "$out" # trainings write into ./runs
ends=$((SECONDS + ${SLICE:-540}))

sizes=(--num_envs 512 --num_eval_envs 128 --unroll_length 62 --batch_size 256 --h_dim 256 --n_hidden 2)
budget=(--num_timesteps 10_000_000 --num_evals 50 --visualization_interval 0)
measuring=(--seconds 5 --repeats 3)
body=ant bodies=(ant reacher humanoid) trained=(ant reacher pusher_easy ant_u_maze ant_ball humanoid)
long=(--episode_length 1000) seeds=4 many=8 values=()
if [ -n "${TOY:-}" ]; then
  sizes=(--num_envs 4 --num_eval_envs 2 --unroll_length 10 --batch_size 8 --h_dim 8 --repr_dim 8 --utd_ratio 0.1)
  sizes+=(--episode_length 20 --min_replay_size 20 --max_replay_size 40)
  budget=(--num_timesteps 160 --num_evals 2 --visualization_interval 0 --vis_length 0)
  measuring=(--seconds 0.02 --repeats 1)
  body=simple_u_maze bodies=(simple_u_maze) trained=(simple_u_maze) long=() seeds=2 many=2 values=(--values 20)
fi

# within COMMAND...: runs it until the slice ends; then the script ends too.
within() {
  local code=0 left=$((ends - SECONDS))
  [ "$left" -ge 1 ] || pause
  say "$*"
  timeout --signal=TERM --kill-after=60 "$left" "$@" || code=$?
  [ "$code" -ne 124 ] || pause
  [ "$code" -eq 0 ] || die "It ended with exit code $code."
}

pause() {
  say "The time of this call is over, and work is left: the same call goes on."
  exit 3
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
  within "$python" "$root/scripts/benchmark.py" "$@" "${measuring[@]}" --out "$name.json" >"$name.txt"
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
  if compgen -G "runs/${name}_s*/checkpoints/[0-9]*" >/dev/null; then resume=(--resume); fi
  within "$python" "$root/training.py" "$@" --exp_name "$name" "${budget[@]}" "${resume[@]}"
  within "$python" "$root/scripts/table.py" runs/"${name}"_s* --out "$name.json"
}

for part in "${parts[@]}"; do
  case $part in
    speed) for env in "${bodies[@]}"; do measure "speed_$env" --env_name "$env" "${sizes[@]}"; done ;;
    profile) for env in "${bodies[@]}"; do measure "profile_$env" --profile --env_name "$env" "${sizes[@]}"; done ;;
    envs)
      [ -n "${TOY:-}" ] && names=$body || names=$(cd "$root" && PYTHONPATH="$root/src:${PYTHONPATH:-}" "$python" -c 'from goalax.envs import ENVS; print(*ENVS)')
      for env in $names; do measure "envs/$env" --all_envs --env_match "^$env$" "${sizes[@]}"; done
      ;;
    curves)
      for flag in num_envs num_seeds batch_size episode_length max_replay_size h_dim n_hidden; do
        measure "curve_$flag" --curve "$flag" "${values[@]}" --env_name "$body" "${sizes[@]}" "${long[@]}"
      done
      ;;
    seeds) measure seeds --curve num_seeds --values "1,$many" --env_name "$body" "${sizes[@]}" "${long[@]}" ;;
    ant)
      learn "${body}_10m" --env_name "$body" "${sizes[@]}" "${long[@]}"
      within "$python" "$root/scripts/table.py" runs/"${body}"_10m_s* --out "${body}_10m.md"
      ;;
    success)
      for env in "${trained[@]}"; do
        for agent in crl tmd; do
          learn "${env}_$agent" --env_name "$env" --agent "$agent" --num_seeds "$seeds" "${sizes[@]}"
        done
      done
      directories=()
      for env in "${trained[@]}"; do directories+=(runs/"${env}"_crl_s* runs/"${env}"_tmd_s*); done
      for suffix in md csv; do
        within "$python" "$root/scripts/table.py" "${directories[@]}" --out "success.$suffix"
      done
      ;;
  esac
done
say "All is there: $out"
