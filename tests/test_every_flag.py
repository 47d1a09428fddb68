"""Tests that every flag of a run changes what it leaves behind."""

import contextlib
import dataclasses
import io
from typing import NamedTuple

import numpy as np
import pytest

from goalax.commands import train as training
from goalax.films import kept
from goalax.host.config import Flags
from goalax.host.devices import HOSTS
from tests.helpers import toy
from tests.helpers.runs import rows

toy.register()

BASE = [*toy.BASELINE, "--agent", "gcbc"]  # the agent that compiles fastest: two dozen programs are compiled here

# Every flag of a run, with values under which something else comes out than under BASE.
CHANGES = {
    "env_name": "toy_eval",
    "eval_env": "toy_eval",
    "backend": "mjx",
    "num_timesteps": "140",
    "num_envs": "5",
    "num_eval_envs": "6",
    "episode_length": "9",
    "action_repeat": "2",
    "unroll_length": "6",
    "min_replay_size": "14",
    "max_replay_size": "15",
    "batch_size": "9",
    "multiplier_num_sgd_steps": "3",
    "utd_ratio": "0.2",
    "discounting": "0.5",
    "commanded_goals": "achieved",
    "num_evals": "2",
    "seed": "7",
    "num_seeds": "2",
    "normalize_observations": "false",
    "visualization_interval": "1",
    "vis_length": "5",
    "dense_reward": "true",
    "group_name": "g",
    "exp_name": "x",
    "log_wandb": "true",
    "wandb_mode": "offline",
    "log_tensorboard": "true",
    "checkpoint_interval": "0",
}
ELSEWHERE = {"agent", "resume", "run_dir"}  # tested in test_training.py and test_flags.py
ELSEWHERE |= {"watch"}  # a page beside the run: test_watch.py
ELSEWHERE |= {"project_name"}  # changes nothing but what wandb is told: test_loggers.py
ELSEWHERE |= {"dataset", "offline_steps"}  # need a file: test_offline.py
ELSEWHERE |= {"finetune_dataset", "finetune_steps"}  # need two: test_pretraining_runs.py
ELSEWHERE |= {"offline_ratio"}  # needs a file too: test_offline_ratio.py
ELSEWHERE |= {"num_devices", *HOSTS}  # change nothing but where it runs: test_sharding.py, test_hosts.py
NAMES = {"env_name", "seed", "num_seeds"}  # name run directories too, which says nothing of what is in them


def test_the_list_of_changes_is_complete():
    assert {field.name for field in dataclasses.fields(Flags)} == set(CHANGES) | ELSEWHERE


class Outcome(NamedTuple):
    """What a run leaves behind, times and flags aside."""

    files: set[str]  # directories and films
    tables: list[list[dict[str, str]]]  # the rows of each metrics.csv, in the order of their paths
    no_account: bool  # it said that wandb knows none
    events: int  # files of TensorBoard


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """(flags) -> Outcome; runs are kept."""
    known = {}

    def get(argv):
        key = tuple(argv)
        if key not in known:
            folder = tmp_path_factory.mktemp("run")
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
                patch.chdir(folder)
                patch.setattr(kept, "film", _filmed)
                patch.setenv("NETRC", str(folder / "none"))  # no account, so no network
                patch.delenv("WANDB_API_KEY", raising=False)
                assert training.main(argv) == 0
            files = {
                str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() or "film" in path.name
            }
            files = {name for name in files if "state" not in name and "run-" not in name}
            tables = [rows(path.parent) for path in sorted(folder.rglob("metrics.csv"))]
            events = len(list(folder.rglob("events.out.tfevents.*")))
            known[key] = Outcome(files, tables, "knows no account" in printed.getvalue(), events)
        return known[key]

    return get


def _filmed(run, recording, steps, directory, display, last):
    """Stands for the renderer, which has its own tests: leaves behind when it was called, and for how much."""
    (directory / f"film_{steps}_{last}_{recording.alive.shape}").touch()
    return []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHANGES if name not in NAMES])
def test_every_flag_changes_something(name, outcome):
    base = BASE
    if name == "discounting":  # which gcbc's goals do not depend on
        base = toy.TINY
    if name == "multiplier_num_sgd_steps":  # utd_ratio would replace it
        base = [*base[: base.index("--utd_ratio")], *base[base.index("--utd_ratio") + 2 :]]
    if name == "wandb_mode":
        base = [*base, "--log_wandb"]
    assert outcome(base) != outcome([*base, f"--{name}", CHANGES[name]])


def equal(table, other, prefix):
    """Whether the metrics of one kind are equal, up to what vmapping seeds changes in the order of float32 sums."""

    def numbers(rows):
        return [[float(value) for name, value in row.items() if name.startswith(prefix)] for row in rows]

    return np.allclose(numbers(table), numbers(other), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("prefix", ["training/", "eval/"])
@pytest.mark.parametrize("name", ["env_name", "seed"])
def test_another_environment_and_another_seed_give_other_metrics(name, prefix, outcome):
    (table,), (other,) = (outcome(flags).tables for flags in (BASE, [*BASE, f"--{name}", CHANGES[name]]))
    assert not equal(table, other, prefix)


@pytest.mark.parametrize("prefix", ["training/", "eval/"])
def test_more_seeds_are_the_first_and_others(prefix, outcome):
    (alone,) = outcome(BASE).tables
    first, second = outcome([*BASE, "--num_seeds", CHANGES["num_seeds"]]).tables
    assert equal(first, alone, prefix)
    assert not equal(second, alone, prefix)
