"""What tests of whole runs share: the metrics of a run without its times."""

import csv

TIMES = {"training/walltime", "training/sps", "eval/sps", "eval/epoch_eval_time"}


def rows(directory="runs/toy_crl_s0"):
    """The rows of metrics.csv, without times."""
    with open(f"{directory}/metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]
