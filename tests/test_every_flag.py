"""Tests that every flag of a run changes what it leaves behind."""

import contextlib
import dataclasses
import io
import json

import pytest
from run_helpers import rows

import training
from src.devices import HOSTS
from tests import toy
from utils import Config

toy.register()

# Every flag of a run, with values under which something else comes out than under TINY.
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
    "num_evals": "2",
    "seed": "7",
    "num_seeds": "2",
    "normalize_observations": "false",
    "visualization_interval": "1",
    "vis_length": "5",
    "dense_reward": "true",
    "project_name": "p",
    "group_name": "g",
    "exp_name": "x",
    "log_wandb": "true",
    "wandb_mode": "offline",
    "log_tensorboard": "true",
    "checkpoint_interval": "0",
}
ELSEWHERE = {"agent", "resume", "run_dir"}  # tested in test_training.py and test_flags.py
ELSEWHERE |= {"num_devices", *HOSTS}  # change nothing but where it runs: test_sharding.py, test_hosts.py


def test_the_list_of_changes_is_complete():
    assert {field.name for field in dataclasses.fields(Config)} == set(CHANGES) | ELSEWHERE


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """(flags) -> everything that a run leaves behind, times and flags aside; runs are kept."""
    known = {}

    def get(argv):
        key = tuple(argv)
        if key not in known:
            folder = tmp_path_factory.mktemp("run")
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
                patch.chdir(folder)
                patch.setattr(training, "film", _filmed)
                patch.setenv("NETRC", str(folder / "none"))  # no account, so no network
                patch.delenv("WANDB_API_KEY", raising=False)
                assert training.main(argv) == 0
            files = {
                str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() or "film" in path.name
            }
            files = {name for name in files if "state" not in name and "run-" not in name}
            csvs = [rows(path.parent) for path in sorted(folder.rglob("metrics.csv"))]
            known[key] = files, csvs, "knows no account" in printed.getvalue(), _project(folder), _events(folder)
        return known[key]

    return get


def _project(folder):
    return {json.loads(path.read_text())["flags"]["project_name"] for path in folder.rglob("config.json")}


def _events(folder):
    return len(list(folder.rglob("events.out.tfevents.*")))


def _filmed(run, recording, steps, directory, display, last):
    """Stands for the renderer, which has its own tests: leaves behind when it was called, and for how much."""
    (directory / f"film_{steps}_{last}_{run.config.vis_length}_{recording.alive.shape}").touch()
    return []


@pytest.mark.parametrize("name", CHANGES)
def test_every_flag_changes_something(name, outcome):
    base = toy.TINY
    if name == "multiplier_num_sgd_steps":  # utd_ratio would replace it
        base = [*base[: base.index("--utd_ratio")], *base[base.index("--utd_ratio") + 2 :]]
    if name == "wandb_mode":
        base = [*base, "--log_wandb"]
    assert outcome(base) != outcome([*base, f"--{name}", CHANGES[name]])
