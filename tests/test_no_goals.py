"""Tests of environments without goals: what evaluations tell of them, who learns in them, and what needs goals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import report
from goalax.commands import train as training
from goalax.core import rollout
from goalax.core.types import Spec
from goalax.data import files, sources
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy, toy_rewards
from tests.helpers.runs import rows

toy.register()
toy_rewards.register()

FLAGS = [*toy.BASELINE, "--env_name", "toy_rewards"]
NO_GOALS = {"sac", "td3", "ppo", "bc", "iql", "rebrac", "cql"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac", "td3", "ppo"])
def test_agents_train_without_goals(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = FLAGS if name != "ppo" else ["--env_name", "toy_rewards", "--num_envs", "4", "--num_eval_envs", "4"]
    flags += ["--unroll_length", "5", "--num_minibatches", "2", "--vis_length", "0"] if name == "ppo" else []
    flags += ["--num_timesteps", "120", "--num_evals", "2"] if name == "ppo" else []
    assert training.main([*flags, "--agent", name]) == 0
    printed, directory = capsys.readouterr().out, tmp_path / "runs" / f"toy_rewards_{name}_s0"
    assert "rewards of an episode" in printed and "at the goal" not in printed
    last = rows(directory)[-1]
    assert float(last["eval/episode_reward"]) > 0 and np.isfinite([float(value) for value in last.values()]).all()
    assert not [column for column in last if "success" in column or "dist" in column or "at_goal" in column]
    assert (directory / "curves.png").stat().st_size > 1000
    assert report.main([str(tmp_path / "runs")], "report.py") == 2
    assert "has no goals; what is compared here is success at goals" in capsys.readouterr().err


def test_an_evaluation_with_goals_tells_what_it_told():
    """The metrics of `toy`, and none of them for the same world without goals."""
    found = []
    for env in (toy.Toy(), toy_rewards.ToyRewards()):
        policy = rollout.memoryless(lambda state, goal, key: jnp.ones_like(state))
        metrics, *_ = rollout.evaluate(
            env, policy, jax.random.PRNGKey(0), num_envs=2, episode_length=3, action_repeat=1
        )
        found.append(set(metrics))
    assert found[0] - found[1] == set(rollout.OF_GOALS) and "episode_reward" in found[1]


@pytest.mark.parametrize("name", [name for name, algorithm in AGENTS.items() if algorithm.goals])
def test_agents_that_need_goals_say_so(name):
    flags, agent_config = read_flags(["--env_name", "toy_rewards", "--agent", name])
    with pytest.raises(
        FlagError, match=f"--agent is '{name}', which learns from goals; --env_name toy_rewards has none"
    ):
        make_run(flags, agent_config)


def test_who_learns_without_goals():
    assert {name for name, algorithm in AGENTS.items() if not algorithm.goals} >= NO_GOALS
    assert AGENTS["crl"].goals and AGENTS["gcbc"].goals and AGENTS["tmd"].goals


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--use_her"], "--use_her learns from achieved goals, and the environment has none"),
        (["--commanded_goals", "achieved"], "--commanded_goals is 'achieved'; --env_name toy_rewards has no goals"),
    ],
)
def test_flags_that_need_goals(argv, words):
    with pytest.raises(FlagError, match=words):
        make_run(*read_flags([*FLAGS, "--agent", "sac", *argv]))


def test_a_file_without_rewards_is_refused(tmp_path):
    columns = {name: np.asarray(leaf) for name, leaf in toy_rewards.walks(3, 5).items()}
    spec = Spec.of(toy_rewards.ToyRewards(), 0.9)
    files.write(tmp_path / "whole.npz", columns)
    ring = sources.read(str(tmp_path / "whole.npz"), spec).ring.rows
    assert ring.goal.shape == (15, 1, 0)
    np.testing.assert_array_equal(ring.reward[:, 0], columns.pop("rewards"))
    files.write(tmp_path / "part.npz", columns)
    with pytest.raises(FlagError, match="has no rewards"):
        sources.read(str(tmp_path / "part.npz"), spec)
