#!/usr/bin/env bash
# Five contrastive losses on five seeds each (SEEDS="1 2" for fewer), one run after the other; takes flags of training.py.
exec "$(dirname "${BASH_SOURCE[0]}")/sweep_flag.sh" contrastive_loss_fn "binary infonce flatnce fb dp" \
  --group_name contrastive_loss_experiments --exp_name c_loss "$@"
