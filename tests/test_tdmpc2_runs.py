"""Plans of TD-MPC2 in the common loop: kept, forgotten, saved, several seeds, without goals."""

import jax
import numpy as np
import pytest

from goalax.host import memory
from goalax.host.make import make
from tests.helpers import toy, toy_rewards
from tests.helpers.planning import SMALL

toy.register()
toy_rewards.register()
RUN = {"num_envs": 4, "num_eval_envs": 4, "unroll_length": 5, "utd_ratio": 0.1, "min_replay_size": 10}
RUN |= {"max_replay_size": 40, "batch_size": 8, "vis_length": 0, "num_timesteps": 400, "agent": "tdmpc2"}


@pytest.fixture(scope="module")
def run():
    return make("toy", episode_length=7, **RUN, **SMALL)


@pytest.fixture(scope="module")
def begun(run):
    """A state in the midst of episodes, on the host."""
    return jax.device_get(run.advance(run.start(), 3))


@pytest.mark.slow
def test_what_is_kept_is_forgotten_at_fresh_starts(run, begun):
    warm, step, fresh = begun.env.memory, begun.env.episode_step, 0
    state = begun
    for _ in range(4):
        np.testing.assert_array_equal(warm.decisions, step)
        assert ((np.abs(warm.mean).max(axis=(1, 2)) == 0) == (step == 0)).all()
        fresh += int((step == 0).sum())
        state = jax.device_get(run.advance(jax.device_put(state), 1))
        warm, step = state.env.memory, state.env.episode_step
    assert fresh > 0


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_in_the_midst_of_plans(run, begun, tmp_path):
    assert (begun.env.memory.decisions > 0).any()
    run.save(jax.device_put(begun), tmp_path / "run")
    restored = run.restore(tmp_path / "run")
    for a, b in zip(jax.tree.leaves(begun), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = run.advance(jax.device_put(begun), 1), run.advance(restored, 1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_several_seeds_at_once():
    seeds = make("toy", episode_length=7, num_seeds=2, **RUN, **SMALL)
    state = seeds.advance(seeds.start(), 2)  # the first of which begins with uniform actions
    assert state.env.memory.mean.shape == (2, 4, 3, 2)
    assert not np.allclose(*state.env.memory.mean)
    assert all(np.isfinite(value).all() and value.shape == (2,) for value in seeds.evaluate(state).values())


def test_the_prediction_of_memory_knows_the_plans(run):
    longer = make("toy", episode_length=7, **RUN, **SMALL, plan_horizon=13)
    more = memory.predict(longer)["environments"] - memory.predict(run)["environments"]
    assert more == 2 * 4 * 10 * 2 * 4  # twice, environments, steps, entries of an action, bytes


@pytest.mark.slow
def test_a_policy_without_memory_plans_anew(run, begun):
    policy = run.policy(jax.device_put(begun))
    action = policy(np.zeros((3, 2)), np.ones((3, 2)))
    assert action.shape == (3, 2) and np.abs(action).max() <= 1
    np.testing.assert_allclose(policy(np.zeros((3, 2)), np.ones((3, 2))), action)
    assert policy(np.zeros(2), np.ones(2)).shape == (2,)


@pytest.mark.slow
def test_in_the_loop_without_goals():
    run = make("toy_rewards", episode_length=7, **RUN, **SMALL)
    state = run.advance(run.start(), 2)
    assert state.env.memory.mean.shape == (4, 3, 2) and state.buffer.rows.goal.shape == (40, 4, 0)
    metrics = run.evaluate(state)
    assert all(np.isfinite(value) for value in metrics.values()) and metrics["eval/episode_reward"] > 0
