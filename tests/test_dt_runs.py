"""Runs of the Decision Transformer: resumed, online, with several seeds, and what it learns."""

import jax
import numpy as np
import pytest

from goalax.data import files
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.offline import noisy_walks

toy.register()

RUN = [*toy.BASELINE[: toy.BASELINE.index("--h_dim")], "--agent", "dt", "--context_length", "3", "--n_blocks", "1"]
RUN += ["--h_dim", "16", "--dataset", "data.npz", "--offline_steps", "40", "--num_timesteps", "120"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, noisy walks through `toy`, to work in."""
    monkeypatch.chdir(tmp_path)
    files.write("data.npz", noisy_walks())
    return tmp_path


def equal(state, other):
    leaves, others = jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(other))
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


@pytest.mark.slow
def test_a_resumed_run_goes_on_bit_for_bit(here):
    """Offline, and online in the midst of episodes, whose contexts are part of what is saved."""
    run = make_run(*read_flags([*RUN, "--normalize_observations", "true"]))
    half = run.learn(run.start(), 20)
    run.save(half, "saved")
    whole = run.learn(half, 20)
    assert equal(run.learn(run.restore("saved"), 20).agent, whole.agent)
    online = run.advance(run.collect(whole), 1)
    assert int(np.max(online.env.memory.length)) > 0
    run.save(online, "online")
    restored = run.restore("online")
    after = run.advance(online, 1)
    assert equal(run.advance(restored, 1), after)
    assert all(np.isfinite(value) for value in run.evaluate(after).values())


@pytest.mark.slow
def test_contexts_begin_anew_where_episodes_do(here):
    """Episodes have at most 10 steps here, and none ever remembers more than it has behind it."""
    more = ["--num_timesteps", "400", "--context_length", "30", "--min_replay_size", "20"]
    run = make_run(*read_flags([*RUN[: RUN.index("--dataset")], *more]))
    state = run.collect(run.start())
    for _ in range(6):
        held, step = state.env.memory, np.asarray(state.env.episode_step)
        assert held.state.shape[1] == 10
        np.testing.assert_array_equal(held.length, step)
        state = run.advance(state, 1)


@pytest.mark.slow
def test_seeds_are_runs_of_their_own(here):
    both = make_run(*read_flags([*RUN, "--num_seeds", "2"]))
    learned = jax.device_get(both.learn(both.start(), 10).agent)
    alone = make_run(*read_flags(RUN))
    second = jax.device_get(alone.learn(alone.start(1), 10).agent)
    for leaf, other in zip(jax.tree.leaves(learned), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(leaf[1], other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_learns_to_reach_goals(here):
    sizes = ["--utd_ratio", "5", "--num_eval_envs", "64", "--batch_size", "64", "--h_dim", "32", "--policy_lr", "3e-3"]
    run = make_run(*read_flags([*RUN, *sizes, "--warm_up", "50", "--dropout", "0"]))
    before = run.evaluate(run.learn(run.start(), 1))
    after = run.evaluate(run.learn(run.start(), 1500))
    assert before["eval/episode_success_any"] < 0.3 and after["eval/episode_success_any"] > 0.9
    assert after["eval/final_dist"] < 0.5 * before["eval/final_dist"]
