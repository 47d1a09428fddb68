"""Tests of the agents: shapes, exploring, depth, what each loss reaches, and that it falls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from goalax.agents import AGENTS, c_tec, cql, fb, sac
from tests.helpers.agents import COMMON, RELATIVES, make, small_batch


def after_updates(agent, count=2):
    """State and last metrics after updates, not compiled: that would take longer than to run them."""
    state = agent.init(jax.random.PRNGKey(7))
    for i in range(count):
        state, metrics = agent.update(state, small_batch(agent.needs), jax.random.PRNGKey(i))
    return state, metrics


@pytest.fixture(scope="module")
def quick_learner():
    """name -> an agent with a high learning rate and its compiled update; kept."""

    def get(name):
        rate = "critic_lr" if hasattr(AGENTS[name].config, "critic_lr") else "policy_lr"
        calm = {"alpha_init": 0.01} if name == "sac" else {}  # or its target would follow the entropy, not the batch
        agent = make(name, **{rate: 1e-2, **calm})
        return agent, jax.jit(agent.update)

    return functools.cache(get)


def each_of(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] if name in RELATIVES else []) for name in names]
    )


@each_of(COMMON)
def test_shapes_and_ranges(name, quick_learner):
    agent, update = quick_learner(name)
    state, metrics = update(agent.init(jax.random.PRNGKey(7)), small_batch(agent.needs), jax.random.PRNGKey(0))
    observed, goal = jnp.ones((4, 5)), jnp.ones((4, 2))
    for action in (agent.mode(state, observed, goal), agent.act(state, observed, goal, jax.random.PRNGKey(0))):
        assert action.shape == (4, 3) and bool(jnp.all(jnp.abs(action) <= 1))
    assert agent.mode(state, observed[0], goal[0]).shape == (3,)
    assert all(value.shape == () and bool(jnp.isfinite(value)) for value in metrics.values())
    before = jax.tree.map(jnp.shape, agent.init(jax.random.PRNGKey(0)))
    assert jax.tree.map(jnp.shape, state) == before


@pytest.mark.parametrize("name", COMMON)
def test_act_explores_and_mode_does_not(name):
    agent = make(name)
    state = agent.init(jax.random.PRNGKey(0))
    observed, goal = jnp.ones((1, 5)), jnp.ones((1, 2))
    actions = [agent.act(state, observed, goal, jax.random.PRNGKey(i)) for i in range(2)]
    assert not np.allclose(*actions)
    np.testing.assert_array_equal(agent.mode(state, observed, goal), agent.mode(state, observed, goal))


def kernels(params):
    """Kernels of hidden layers by their path, those in blocks apart."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    leaves = {path: leaf for path, leaf in leaves.items() if "Dense" in path and "kernel" in path}
    blocks = {path: leaf for path, leaf in leaves.items() if "blocks" in path}
    return blocks, {path: leaf for path, leaf in leaves.items() if path not in blocks}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in COMMON.items() if hasattr(entry.config, "depth")])
def test_depth_is_that_of_every_network(name):
    """Shapes alone: compiling as many deep networks would take minutes."""
    agent = make(name, depth=8, h_dim=16, n_hidden=AGENTS[name].config.n_hidden)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(7))
    after, _ = jax.eval_shape(agent.update, state, small_batch(agent.needs), jax.random.PRNGKey(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    blocks, plain = kernels(state.params)
    assert any("actor" in path for path in blocks) and all(leaf.shape[0] >= 1 for leaf in blocks.values())
    assert name == "srl" or not [path for path in plain if "Dense_2" in path]  # plain ones have two hidden layers


def test_all_blocks_learn():
    agent = make("crl", depth=8, h_dim=16)
    state = agent.init(jax.random.PRNGKey(7))
    after, _ = jax.jit(agent.update)(state, small_batch(agent.needs), jax.random.PRNGKey(0))
    blocks, _ = kernels(jax.tree.map(lambda a, b: np.abs(a - b), after.params, state.params))
    assert blocks and all((step.max(axis=(1, 2)) > 0).all() for step in blocks.values())


@pytest.mark.parametrize("energy", ["cosine", "iqe"])
def test_the_parameter_of_an_energy_is_learned(energy):
    agent = make("crl", energy_fn=energy, repr_dim=16)
    before = agent.init(jax.random.PRNGKey(7)).params["critic"]["energy"]
    assert after_updates(agent)[0].params["critic"]["energy"] != before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in COMMON if hasattr(AGENTS[name].config, "critic_lr") and name not in RELATIVES]
)
def test_rates_of_learning_are_those_of_their_networks(name):
    still = {"policy_lr": 1e-20, "alpha_lr": 1e-20}
    fixed, free = (after_updates(make(name, **flags), 1)[0].params for flags in (still, {}))
    for a, b in zip(jax.tree.leaves(fixed["critic"]), jax.tree.leaves(free["critic"]), strict=True):
        np.testing.assert_array_equal(a, b)
    fixed = after_updates(make(name, critic_lr=1e-20), 1)[0].params
    for a, b in zip(jax.tree.leaves(fixed["actor"]), jax.tree.leaves(free["actor"]), strict=True):
        np.testing.assert_array_equal(a, b)


# Agents in whose targets the policy acts itself: another actor is another target.
THEIR_TARGETS_ACT = ("c_tec", "cql", "fb", "sac")
THEIR_ACTORS_REST_AT_FIRST = ("td3", "rebrac")


@each_of([name for name, entry in COMMON.items() if hasattr(entry.config, "critic_lr")])
def test_actor_and_critic_learn_apart(name, quick_learner):
    """With another actor critics move as they did; where that is another target, with another target actors do."""
    agent, update = quick_learner(name)
    state, batch, kept, moved = agent.init(jax.random.PRNGKey(7)), small_batch(agent.needs), "critic", "actor"
    other, other_batch = state, batch
    if name in THEIR_TARGETS_ACT:
        other_batch, kept, moved = batch._replace(discount=0.5 * batch.discount), moved, kept
    else:
        other = state._replace(params={**state.params, "actor": jax.tree.map(jnp.negative, state.params["actor"])})

    def step(state, batch):
        after = update(state, batch, jax.random.PRNGKey(0))[0].params
        return jax.tree.map(lambda new, old: np.asarray(new - old), after, state.params)

    one, two = step(state, batch), step(other, other_batch)
    for a, b in zip(jax.tree.leaves(one[kept]), jax.tree.leaves(two[kept]), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(jax.tree.leaves(one[moved]), jax.tree.leaves(two[moved]), strict=True)
    assert any((a != b).any() for a, b in pairs) == (name not in THEIR_ACTORS_REST_AT_FIRST)


@each_of(THEIR_TARGETS_ACT)
def test_critics_do_not_learn_from_the_loss_of_the_actor(name, monkeypatch):
    """To the bit, however much it weighs; the gradient of the actor itself is as much larger."""
    module = {"c_tec": c_tec, "cql": cql, "fb": fb, "sac": sac}[name]
    part = "Losses" if name == "fb" else "entropy_actor_loss"
    plain, agent, factor = getattr(module, part), make(name, n_hidden=1, cql_samples=1), []

    def heavy(*args):
        found = plain(*args)
        return found._replace(actor=factor[-1] * found.actor) if name == "fb" else (factor[-1] * found[0], found[1])

    @jax.jit
    def update(state, weight):
        factor.append(weight)
        return agent.update(state, small_batch(agent.needs), jax.random.PRNGKey(0))[0]

    monkeypatch.setattr(module, part, heavy)
    state = agent.init(jax.random.PRNGKey(7))
    light, loud = update(state, 1.0), update(state, 100.0)
    for a, b in zip(jax.tree.leaves(light.params["critic"]), jax.tree.leaves(loud.params["critic"]), strict=True):
        np.testing.assert_array_equal(a, b)
    moments = (optax.tree.get(after.optimizer.inner_states["actor"], "mu") for after in (light, loud))
    small, large = map(optax.tree.norm, moments)
    assert large > 50 * small > 0


@each_of(COMMON)
def test_loss_falls_on_a_fixed_batch(name, quick_learner):
    agent, update = quick_learner(name)
    state, losses = agent.init(jax.random.PRNGKey(7)), []
    for i in range(60):
        state, metrics = update(state, small_batch(agent.needs), jax.random.PRNGKey(i))
        # Of those that an agent has, the one that chases no other.
        names = ("contrastive_loss", "action_error", "critic_loss", "actor_loss")
        found = [name for name in (*names, *metrics) if name in metrics and (name in names or "loss" in name)]
        assert found, f"an agent has a metric with `loss` in its name; these are {', '.join(metrics)}"
        losses.append(metrics[found[0]])
    first, last = losses[:10], losses[-10:]
    assert np.mean(last) < np.mean(first) - 3 * np.std(last) / 10**0.5
