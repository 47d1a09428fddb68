"""Updates of the actor in every few updates of the critic only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import goalax
from goalax.agents import AGENTS
from goalax.core.branch import together
from goalax.core.types import Path, Visit
from tests.helpers import toy
from tests.helpers.offline import SPEC, batch_of, config_of

toy.register()


def make(name, **flags):
    return AGENTS[name].make(config_of(name, repr_dim=8, **flags), SPEC)


def small_batch(needs):
    batch = batch_of(size=6)
    if needs.within:
        steps, none = jnp.array([0, 3, 7, 12, needs.within, needs.within]), jnp.zeros((6, 0))
        reached = (steps < needs.within).astype(jnp.float32)
        batch = batch._replace(visit=Visit(batch.goal, steps, reached, jnp.full(6, 20), jnp.zeros(6), none, none))
    if needs.horizon == 1:
        return batch
    path = Path(
        state=jnp.stack([batch.state, batch.next_state, batch.future_state], 1),
        action=jnp.stack([batch.action, batch.future_action], 1),
        reward=jnp.zeros((6, 2)),
        discount=jnp.full((6, 2), 0.9),
        stored=jnp.ones((6, 2)),
    )
    return batch._replace(path=path)


def same(a, b):
    return all(bool(jnp.array_equal(x, y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("crl", {}),
        ("crl", {"bc_weight": 0.3}),
        ("crl", {"disable_entropy_actor": True}),
        ("tmd", {"action_chunk": 2}),
        ("srl", {"visit_backup": True}),
        ("tmd", {"hazard_weight": 1.0, "visit_backup": True, "bc_weight": 0.3}),
    ],
)
def test_the_actor_moves_in_every_third_update_and_as_if_there_were_no_others(name, flags):
    delayed, plain = make(name, policy_delay=3, **flags), make(name, **flags)
    update, update_both = jax.jit(delayed.update), jax.jit(plain.update)
    state, batch = delayed.init(jax.random.PRNGKey(0)), small_batch(plain.needs)
    shown = state.actor_metrics
    for i in range(1, 7):
        key = jax.random.PRNGKey(i)
        after, metrics = update(state, batch, key)
        assert not same(after.params["critic"], state.params["critic"])
        assert same(after.params["actor"], state.params["actor"]) == (i % 3 > 0)
        assert same(after.params["log_alpha"], state.params["log_alpha"]) == (i % 3 > 0 or "log_alpha" not in metrics)
        expected, both = update_both(state._replace(updates=None, actor_metrics=None), batch, key)
        assert metrics.keys() == both.keys()
        if i % 3 == 0:
            for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected.params), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
            shown = {key: both[key] for key in shown}
        else:  # the critic learns as beside the actor
            for a, b in zip(*(jax.tree.leaves(each.params["critic"]) for each in (after, expected)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose([metrics[key] for key in shown], list(shown.values()), rtol=1e-5, atol=1e-7)
        state = after


def test_the_temperature_is_known_before_the_actor_moves():
    agent = make("crl", policy_delay=3, alpha_init=0.1)
    _, metrics = agent.update(agent.init(jax.random.PRNGKey(0)), small_batch(agent.needs), jax.random.PRNGKey(1))
    np.testing.assert_allclose(metrics["log_alpha"], np.log(0.1), rtol=1e-6)


def test_seeds_run_one_branch():
    """A program of several seeds has a conditional, where `jax.lax.cond` alone would become both branches."""

    def both(branch):
        return lambda count, x: branch(count[0] > 2, jnp.sin, jnp.cos, x)

    def one(branch):
        return lambda count, x: branch(count > 2, jnp.sin, jnp.cos, x)

    counts, x = jnp.array([3, 3]), jnp.array([1.0, 2.0])
    for count, function in ((counts, jnp.sin), (counts - 1, jnp.cos)):
        np.testing.assert_allclose(jax.vmap(one(together))(count, x), function(x), rtol=1e-6)
        np.testing.assert_allclose(one(together)(count[0], x), function(x), rtol=1e-6)
        np.testing.assert_allclose(both(together)(count, x), function(x), rtol=1e-6)

    def conditionals(branch):
        return str(jax.make_jaxpr(jax.vmap(one(branch)))(counts, x)).count("cond[")

    assert conditionals(together) == 1 and conditionals(jax.lax.cond) == 0


@pytest.mark.slow
def test_seeds_on_two_devices_are_each_of_them_alone_and_a_restored_one_goes_on(tmp_path):
    flags = {"num_envs": 4, "num_eval_envs": 4, "unroll_length": 5, "utd_ratio": 0.1, "min_replay_size": 10}
    flags |= {"max_replay_size": 40, "batch_size": 8, "h_dim": 8, "n_hidden": 1, "num_timesteps": 400}
    flags |= {"agent": "crl", "policy_delay": 3, "vis_length": 0}
    several = goalax.make("toy", num_seeds=2, num_devices=2, **flags)
    both = several.advance(several.start(seed=0), 6)
    run = goalax.make("toy", **flags)
    alone = run.advance(run.start(seed=1), 6)
    of_second = jax.tree.map(lambda leaf: leaf[1], both.agent.agent.params)
    for a, b in zip(jax.tree.leaves(of_second), jax.tree.leaves(alone.agent.agent.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    run.save(alone, tmp_path / "checkpoint")
    restored = run.restore(tmp_path / "checkpoint")
    assert same(run.advance(restored, 4), run.advance(alone, 4))
