"""Every agent that learns from a buffer, on a dataset of 200 rows, from the command line to its last evaluation."""

import jax
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import train
from goalax.data import files
from goalax.host import runs
from tests.helpers import toy, toy_rewards

EPISODES, ROWS = 20, 10
# Nothing is rewarded without --use_her where goals are relabelled by it; models, contexts and windows are made short.
FLAGS = {
    "sac": ["--use_her"],
    "td3": ["--use_her"],
    "tdmpc2": [
        *("--use_her", "--model_size", "1", "--encoder_dim", "8", "--h_dim", "8", "--latent_dim", "8", "--num_q", "2"),
        *("--num_samples", "8", "--num_prior", "2", "--num_elites", "4", "--iterations", "1"),
    ],
    "dt": ["--context_length", "3", "--n_blocks", "1", "--h_dim", "8"],
    "chronosrl": ["--repr_dim", "8"],
    "tmd_visits": ["--original_goals", "0"],  # the file has none
}
NO_LAYERS = ("tdmpc2", "dt")  # whose layers are counted by other flags


def whole_loop():
    """Agents that need no loop of their own."""
    return [pytest.param(name, marks=pytest.mark.table) for name, one in AGENTS.items() if one.make is not None]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, labelled walks through `toy`, to work in."""
    monkeypatch.chdir(tmp_path)
    toy.register()
    toy_rewards.register()
    columns = {name: np.asarray(leaf) for name, leaf in toy_rewards.walks(EPISODES, ROWS).items()}
    assert len(columns["rewards"]) == 200
    files.write("data.npz", columns)
    return tmp_path


@pytest.mark.parametrize("name", whole_loop())
def test_two_hundred_rows_are_learned_from_to_the_end(name, here):
    env = "toy" if AGENTS[name].goals else "toy_rewards"
    sizes = toy.BASELINE[: toy.BASELINE.index("--h_dim")] if name in NO_LAYERS else toy.BASELINE
    own = [flag for flag in FLAGS.get(name, []) if env == "toy" or flag != "--use_her"]
    data = ["--dataset", "data.npz", "--offline_steps", "20", "--num_timesteps", "0", "--num_evals", "2"]
    argv = [*sizes, "--agent", name, "--env_name", env, *data, *own]
    assert train.main(argv) == 0
    (last, *_) = reversed(runs.read_metrics(here / "runs" / f"{env}_{name}_s0" / "metrics.csv"))
    assert last[runs.OFFLINE] == 20
    numbers = {key: value for key, value in last.items() if key.startswith(("training/", "eval/"))}
    assert numbers and all(np.isfinite(value) for value in numbers.values())
    jax.clear_caches()
