#!/usr/bin/env bash
# Trains values of one flag on five seeds each: `sweep_flag.sh energy_fn "l2 dot" [flags]`; SEEDS="1 2" for fewer seeds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
usage="Usage: scripts/sweep_flag.sh FLAG \"VALUE ...\" [flags], which training.py --help lists; SEEDS=\"1 2\" for fewer."
for word in "$@"; do
  case $word in -h | --help) say "$usage" && exit ;; esac
done
if [ $# -lt 2 ]; then die "$usage"; fi
flag=${1#--} values=$2
shift 2
ensure_env
failed=()
for value in $values; do
  for seed in ${SEEDS:-1 2 3 4 5}; do
    say "$flag $value, seed $seed"
    "$venv/bin/python" "$root/training.py" --project_name crl --group_name "${flag}_experiments" --exp_name "$flag" \
      --num_timesteps 10000000 --num_evals 50 --batch_size 256 --num_envs 512 --discounting 0.99 --action_repeat 1 \
      --episode_length 1000 --unroll_length 62 --min_replay_size 1000 --max_replay_size 10000 \
      --contrastive_loss_fn infonce --energy_fn l2 --log_wandb \
      "$@" --seed "$seed" "--$flag" "$value" || {
      status=$?
      [ "$status" -eq 1 ] || exit "$status" # 1 is a run that diverged; the next one may not
      failed+=("$flag $value, seed $seed")
    }
  done
done
[ ${#failed[@]} -eq 0 ] || die "$(printf 'These runs failed:%s' "$(printf ' %s;' "${failed[@]}")")"
