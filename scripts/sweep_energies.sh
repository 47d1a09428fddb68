#!/usr/bin/env bash
# Five energies on five seeds each (SEEDS="1 2" for fewer), one run after the other; takes flags of training.py.
exec "$(dirname "${BASH_SOURCE[0]}")/sweep_flag.sh" energy_fn "l2 l2_squared l1 dot cosine" \
  --group_name energy_experiments --exp_name energy "$@"
