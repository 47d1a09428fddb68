#!/usr/bin/env bash
# Five contrastive losses on five seeds each (SEEDS="1 2" for fewer), one run after the other; takes further flags of training.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ensure_env
for loss in binary infonce flatnce fb dp; do
  for seed in ${SEEDS:-1 2 3 4 5}; do
    "$venv/bin/python" "$root/training.py" --project_name crl --group_name contrastive_loss_experiments --exp_name c_loss \
      --seed "$seed" --num_timesteps 10000000 --num_evals 50 --batch_size 256 --num_envs 512 --discounting 0.99 \
      --action_repeat 1 --episode_length 1000 --unroll_length 62 --min_replay_size 1000 --max_replay_size 10000 \
      --contrastive_loss_fn "$loss" --energy_fn l2 --multiplier_num_sgd_steps 1 --log_wandb "$@"
  done
done
