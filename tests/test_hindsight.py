"""Hindsight: which samples have goals of it, their rewards, the law of these goals, and what excludes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.core.types import Batch, Spec
from goalax.envs import create_env
from goalax.flags import FlagError
from tests.helpers.baselines import GAMMA, Q_AGENTS, SIZE, SPEC, made_up_batch, make


@pytest.fixture(scope="module")
def batch():
    return made_up_batch()


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8, 1.0])
def test_share_and_rewards_of_hindsight_goals(ratio, batch):
    config = AGENTS["td3"].config(use_her=True, her_ratio=ratio)
    relabelled, count = config.hindsight(batch, SPEC), round(ratio * SIZE)
    np.testing.assert_array_equal(relabelled.goal[:count], batch.future_state[:count, [0, 2]])
    np.testing.assert_array_equal(relabelled.reward[:count], batch.future_reward[:count])
    np.testing.assert_array_equal(relabelled.goal[count:], batch.goal[count:])
    np.testing.assert_array_equal(relabelled.reward[count:], batch.reward[count:])
    others = set(Batch._fields) - {"goal", "reward"}
    assert all(getattr(relabelled, name) is getattr(batch, name) for name in others)


@pytest.mark.parametrize("name", Q_AGENTS)
def test_without_her_nothing_is_relabelled(name, batch):
    assert AGENTS[name].config().hindsight(batch, SPEC) is batch


@pytest.mark.parametrize("name", ["reacher", "simple_u_maze"])
def test_hindsight_reward_is_the_success_of_the_environment(name):
    env = create_env(name)
    spec = Spec.of(env, GAMMA)
    state_key, goal_key = jax.random.split(jax.random.PRNGKey(0))
    state = jax.random.normal(state_key, (200, env.state_dim))
    spread = env.goal_reach_thresh / env.goal_dim**0.5
    goal = env.goal_of(state) + spread * jax.random.normal(goal_key, (200, env.goal_dim))
    success = jax.vmap(env.measures)(state, goal)["success"]
    assert 0.2 < success.mean() < 0.8
    np.testing.assert_array_equal(spec.reached(state, goal), success)


@pytest.mark.parametrize("name", Q_AGENTS)
def test_her_and_dense_rewards_exclude_each_other(name):
    dense = SPEC._replace(dense_reward=True)
    make(name, dense)
    with pytest.raises(FlagError, match="--use_her .* without --dense_reward"):
        make(name, dense, use_her=True)


@pytest.mark.parametrize("name", Q_AGENTS)
def test_her_and_repeated_actions_exclude_each_other(name):
    repeated = SPEC._replace(action_repeat=2)
    make(name, repeated)
    with pytest.raises(FlagError, match="--use_her .* with --action_repeat 1"):
        make(name, repeated, use_her=True)


@pytest.mark.parametrize(("strategy", "law"), [("uniform", 1.0), ("goal_law", None)])
@pytest.mark.parametrize("name", [*Q_AGENTS, "gcbc"])
def test_strategy_is_the_law_of_goals(name, strategy, law):
    flags = {} if name == "gcbc" else {"use_her": True}
    found = make(name, her_strategy=strategy, **flags).needs.law
    assert (found is None) == (law is None)
    if law is not None:  # uniform: as likely near as far
        np.testing.assert_array_equal(found(jnp.array([0.0, 0.45, 0.99]), jnp.full(3, 10)), [1, 5, 10])
