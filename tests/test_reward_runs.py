"""Runs of offline agents that learn from rewards: with several seeds, resumed, going on online, and what they learn."""

import jax
import numpy as np
import pytest

from goalax.core.train import forget_metrics
from goalax.data import files
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy, toy_rewards
from tests.helpers.offline import OF_REWARDS, equal

toy.register()
toy_rewards.register()

OFFLINE = [*toy.BASELINE, "--dataset", "data.npz", "--offline_steps", "50", "--num_timesteps", "0"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, to work in."""
    monkeypatch.chdir(tmp_path)
    files.write("data.npz", {key: np.asarray(leaf) for key, leaf in toy_rewards.walks(200, 11).items()})
    return tmp_path


def run_of(name, *flags, env="toy_rewards"):
    return make_run(*read_flags([*OFFLINE, "--agent", name, "--env_name", env, *flags]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "env"), [*((name, "toy_rewards") for name in OF_REWARDS), ("rebrac", "toy")])
def test_resume_is_exact_with_and_without_goals(name, env, here):
    run = run_of(name, env=env)
    whole = run.learn(run.start(), 40)
    run.save(run.learn(run.start(), 20), here / "run")
    again = run_of(name, env=env)
    resumed = again.learn(again.restore(here / "run"), 20)
    assert equal(forget_metrics(resumed), forget_metrics(whole))  # `learn` begins the sums of metrics anew
    assert int(resumed.gradient_steps) == 40
    metrics = run.evaluate(whole)
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("eval/time_at_goal" in metrics) == (env == "toy")


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_REWARDS)
def test_seeds_learn_side_by_side_what_each_learns_alone(name, here):
    both = run_of(name, "--num_seeds", "2")
    agents = both.learn(both.start(), 10).agent
    alone = run_of(name)
    second = alone.learn(alone.start(1), 10).agent
    for leaf, other in zip(jax.tree.leaves(agents), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(leaf[1], other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_REWARDS)
def test_it_goes_on_online(name, here):
    run = run_of(name, "--num_timesteps", "200")
    state = run.advance(run.collect(run.learn(run.start(), 4)), 2)
    metrics = run.evaluate(state)
    assert int(state.env_steps) == (run.sizes.prefill_unrolls + 2) * run.sizes.steps_per_unroll
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_values_find_better_actions_than_the_stored_ones(here):
    """In walks that go anywhere, imitation goes nowhere; the others go where the rewards are."""
    sizes = ["--utd_ratio", "5", "--num_eval_envs", "64", "--batch_size", "128", "--h_dim", "64"]
    more = {"iql": ["--awr_alpha", "10"], "rebrac": ["--critic_bc", "0.01", "--actor_bc", "0.01"]}
    more["cql"] = ["--cql_alpha", "0.1", "--policy_lr", "3e-4"]
    rewards = {}
    for name in OF_REWARDS:
        run = run_of(name, *sizes, *more.get(name, []), "--discounting", "0.9")
        rewards[name] = run.evaluate(run.learn(run.start(), 2000))["eval/episode_reward"]
    assert all(rewards[name] > 2 * rewards["bc"] for name in ("iql", "rebrac", "cql")), rewards
