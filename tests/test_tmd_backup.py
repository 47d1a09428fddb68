"""The back-up of TMD: by way-points, of chunks, and where what comes later is the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import consistency, tmd
from goalax.agents.chunks import of_decisions
from goalax.core.relabel.waypoint import DISCOUNTING as LAMBDA
from goalax.core.relabel.waypoint import NEXT, mixed_steps
from goalax.core.types import Batch, Path, Spec, Waypoint
from tests.helpers.chain import DISCOUNTING, LENGTH, chain_agent, chain_batch
from tests.helpers.frontier import section
from tests.helpers.planning import normal


def test_golden_backup_by_way_points():
    g = section("mqe")
    discounting = (float(g["gamma"]) ** g["steps"].astype(np.float32))[:, None]
    found = consistency.linex(
        jnp.array(g["d"], jnp.float32), jnp.array(g["d_way"], jnp.float32), discounting, float(g["clip"])
    )
    np.testing.assert_allclose(found, g["divergence"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(consistency.weighted_mean(found, float(g["diagonal"])), g["backup_loss"], rtol=1e-5)


def test_golden_way_points():
    """The published law takes a coin and a uniform number, ours one number that stands for both."""
    g = section("mqe/waypoint")
    assert float(g["lambda"]) == LAMBDA
    uniform = np.where(g["one_step"], NEXT / 2, NEXT + (1 - NEXT) * g["uniform"])
    np.testing.assert_array_equal(mixed_steps(jnp.array(uniform), jnp.array(g["ahead"])), g["steps"])


@pytest.mark.parametrize("ahead", [1, 2, 7, 500])
def test_way_points_lie_between_and_follow_their_law(ahead):
    uniform = (jnp.arange(20_000) + 0.5) / 20_000
    steps = np.asarray(mixed_steps(uniform, jnp.full(20_000, ahead)))
    assert steps.min() == 1 and steps.max() <= ahead
    k = np.arange(1, ahead + 1)
    share = NEXT * (k == 1) + (1 - NEXT) * (1 - LAMBDA) * LAMBDA ** (k - 1)
    share[-1] += (1 - NEXT) * LAMBDA**ahead
    np.testing.assert_allclose(np.bincount(steps, minlength=ahead + 1)[1:] / 20_000, share, atol=2e-4)


def test_way_points_of_chunks_lie_behind_all_of_their_actions():
    law = tmd.TMDConfig(backup="waypoint", action_chunk=3).law_of_way_points
    uniform = (jnp.arange(1000) + 0.5) / 1000
    for ahead in (1, 2, 3, 7):
        steps = np.asarray(law(uniform, jnp.full(1000, ahead)))
        assert steps.min() == min(3, ahead) and steps.max() == ahead


def test_a_chunk_of_two_is_as_far_as_two_rows():
    """Gamma squared is the discount of its step and of its back-up, by NumPy from the networks' outputs."""
    spec, gamma = Spec(3, 2, 2, (0, 1), 0.7, 0.5), 0.7**2
    config = tmd.TMDConfig(h_dim=8, n_hidden=1, repr_dim=16, action_chunk=2)
    assert config.decision(spec) == spec._replace(action_size=4, discounting=pytest.approx(gamma))
    critic = tmd.TMDCritic(config, spec, config.decision(spec), tmd.VisitHead.of(config, spec))
    params = critic.init(iter(jax.random.split(jax.random.PRNGKey(0), 16)))
    states, chunks, ones = normal(0, 6, 3, 3), jnp.tanh(normal(1, 6, 2, 2)), jnp.ones((6, 2))
    path = Path(states, chunks, 0 * ones, 0.7 * ones, ones)
    first = states[:, 0], chunks[:, 0], states[:, 1], normal(2, 6, 2), normal(3, 6, 3)
    batch = Batch(*first, chunks[:, 0], *0 * ones.T, 0.7 * ones[:, 0], path=path)
    metrics, metric = critic.loss(params, of_decisions(batch))[2], config.metric(params["metric"])
    encode = critic.encoder.apply
    x = encode(params["phi"], jnp.concatenate([states[:, 0], chunks.reshape(6, 4)], axis=1))
    there, goal = encode(params["psi_s"], states[:, 2]), encode(params["psi"], batch.future_state[:, :2])
    d = np.asarray(metric.between(x, there))
    assert d.max() < 3  # where the divergence is no line yet
    np.testing.assert_allclose(metrics["step_loss"], np.mean(gamma * np.exp(d) - d), rtol=1e-5)
    d, later = (np.asarray(metric.pairwise(each, goal)) for each in (x, there))
    backup = gamma * np.exp(d - later) - d
    np.testing.assert_allclose(metrics["backup_loss"], (np.diag(backup).mean() + backup.mean()) / 2, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 40, 400])
def test_the_backup_has_its_least_where_the_way_is_as_long_as_it_was(rows):
    """Even of way-points that are farther than where the divergence turns linear."""
    discounting = 0.99**rows
    d = jnp.linspace(0, 8, 8001)
    best = float(d[jnp.argmin(consistency.linex(d, 1.0, jnp.float32(discounting), 3.0))])
    assert best == pytest.approx(1 - np.log(discounting), abs=2e-3)


def test_nothing_is_reached_after_the_end_but_what_was_reached_there():
    d = jnp.arange(9.0).reshape(3, 3)
    far = consistency.out_of_reach(d, jnp.array([True, False, True]), jnp.array([1.0, 0.0, 0.0]), 50.0)
    np.testing.assert_array_equal(far, [[0, 50, 50], [3, 4, 5], [50, 50, 50]])


@pytest.mark.parametrize("backup", ["next", "waypoint"])
def test_the_end_is_that_of_what_comes_later(backup):
    """With a way-point not the next row's: whether it has ended there, and whether there is at the goal."""
    spec = Spec(2, 2, 1, (0, 1), 0.9, 0.5)
    ended, reached = jnp.array([0.0, 1, 1]), jnp.array([0.0, 0, 1])
    batch = chain_batch(jax.random.PRNGKey(0), 3)
    batch = batch._replace(discount=0.9 * (1 - ended), future_reward=reached)
    if backup == "waypoint":
        batch = batch._replace(waypoint=Waypoint(batch.future_state, jnp.array([2, 3, 4]), ended, reached))
        batch = batch._replace(discount=0.9 * ended, future_reward=1 - reached)
    later = consistency.backup_of(spec, 0.9, batch)
    np.testing.assert_array_equal(later.terminal, ended > 0)
    np.testing.assert_array_equal(later.reached, reached)
    rows = np.ones(3) if backup == "next" else np.array([2, 3, 4])
    np.testing.assert_allclose(later.discounting[:, 0], 0.9**rows, rtol=1e-6)
    np.testing.assert_array_equal(later.state, batch.next_state if backup == "next" else batch.future_state)


@pytest.mark.slow
def test_terminal_states_become_far_from_every_goal():
    """The last state of a chain that is not absorbing but the end: no goal can be reached from it any more."""
    agent = chain_agent("tmd", h_dim=32, critic_lr=1e-3, critic_goal="state", zeta=1.0, contrastive_weight=0.1)

    def batch_of(key, ends):
        batch = chain_batch(key, 64)
        at_end = batch.next_state[:, -1] > 0
        there = jnp.all(batch.next_state == batch.future_state, axis=1).astype(jnp.float32)
        return batch._replace(discount=jnp.where(at_end & ends, 0.0, DISCOUNTING), future_reward=there)

    @jax.jit
    def trained(ends):
        def step(state, key):
            batch_key, key = jax.random.split(key)
            return agent.update(state, batch_of(batch_key, ends), key)[0], None

        return jax.lax.scan(step, agent.init(jax.random.PRNGKey(0)), jax.random.split(jax.random.PRNGKey(1), 300))[0]

    # From the state before the end to one far behind it: the action there leads into the end.
    before_end, behind = np.eye(LENGTH)[[LENGTH - 2]], np.eye(LENGTH)[[1]]
    d = [-float(agent.score(trained(jnp.array(ends)), before_end, behind)[0]) for ends in (False, True)]
    assert d[1] > 1.5 * d[0]
