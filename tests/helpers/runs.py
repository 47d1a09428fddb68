"""What tests of whole runs share: the metrics of a run without its times."""

import csv
from pathlib import Path

import numpy as np

from goalax.host.runs import read_metrics

RUN = Path("runs/toy_crl_s0")  # where the fixture `resumed_toy` has its run
LONGER = ("--resume", "--num_timesteps", "160", "--num_evals", "5")
TIMES = {"training/walltime", "training/sps", "eval/sps", "eval/epoch_eval_time"}


def rows(directory="runs/toy_crl_s0"):
    """The rows of metrics.csv, without times."""
    with open(f"{directory}/metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def last(run, name):
    """A number in the last row of a run's metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1][name])


def assert_equal_runs(directory, other, evaluations=slice(0, 3)):
    """All metrics of some evaluations but times, up to the order of float32 sums, which training amplifies."""
    rows, others = (read_metrics(path / "metrics.csv")[evaluations] for path in (directory, other))
    assert len(rows) == len(others) > 0
    for row, expected in zip(rows, others, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if name not in TIMES:
                np.testing.assert_allclose(row[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def envsteps(directory=RUN):
    """Environment steps of the rows of a run's metrics.csv."""
    return [row["training/envsteps"] for row in read_metrics(directory / "metrics.csv")]
