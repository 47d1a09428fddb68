"""The networks of TD-MPC2: golden values of their parts, layer by layer, their sizes."""

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from goalax.agents.tdmpc2 import TDMPC2Config
from goalax.agents.world_model import MODEL_SIZES, WorldModel
from goalax.learning.latents import mish, mish_mlp, sim_norm
from goalax.learning.two_hot import BINS, cross_entropy, decode, symexp, symlog, two_hot
from tests.helpers.offline import SPEC
from tests.helpers.planning import FOLDER, SMALL, golden, normal


def test_the_golden_files_are_what_their_program_makes():
    spec = importlib.util.spec_from_file_location("make_planning_golden", FOLDER / "make_planning_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(module.FILES)
    assert [line for name in module.FILES for line in module.differences(name)] == []


def test_sim_norm():
    values = golden("simnorm")
    np.testing.assert_allclose(sim_norm(values["x"].astype(np.float32)), values["y"], rtol=1e-5)
    with pytest.raises(ValueError, match="12 entries"):
        sim_norm(jnp.zeros((2, 12)))


def test_mish_and_its_gradient():
    x = np.linspace(-30, 60, 181)
    np.testing.assert_allclose(mish(jnp.asarray(x, jnp.float32)), x * np.tanh(np.logaddexp(0, x)), rtol=1e-5, atol=1e-7)
    slope = jax.vmap(jax.grad(mish))(jnp.asarray(x, jnp.float32))
    step = 1e-5
    of = lambda x: x * np.tanh(np.logaddexp(0, x))  # noqa: E731
    np.testing.assert_allclose(slope, (of(x + step) - of(x - step)) / (2 * step), rtol=1e-4, atol=1e-5)


def test_discrete_regression():
    values = golden("two_hot")
    x, logits = (values[name].astype(np.float32) for name in ("x", "logits"))
    np.testing.assert_allclose(symlog(x), values["symlog"], rtol=1e-5)
    np.testing.assert_allclose(two_hot(jnp.asarray(x)), values["target"], atol=2e-5)
    np.testing.assert_allclose(symexp(values["target"] @ np.linspace(-10, 10, BINS)), values["decoded_target"], 1e-4)
    np.testing.assert_allclose(decode(logits), values["decoded_logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits, jnp.asarray(x)), values["soft_cross_entropy"], rtol=1e-4)
    with pytest.raises(ValueError, match="Expected logits"):
        cross_entropy(logits, x[:-1])


def test_sizes_are_about_as_large_as_they_are_called():
    spec = SPEC._replace(state_size=24, goal_size=0, action_size=6)
    for name, size in MODEL_SIZES.items():
        params = jax.eval_shape(WorldModel(size, spec, 0.0).init, jax.random.PRNGKey(0))
        millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
        assert 0.7 * float(name) < millions < 1.3 * float(name)


def test_what_comes_after_a_plan_is_worth_the_mean_of_two_q():
    model = WorldModel(TDMPC2Config(**{**SMALL, "num_q": 2}).size, SPEC, 0.0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * normal(leaf.size, *leaf.shape), model.init(jax.random.PRNGKey(0)))
    params["critic"][1] = jax.tree.map(lambda leaf: -leaf, params["critic"][1])  # or both would say much the same
    z, key = sim_norm(normal(1, 5, 16)), jax.random.PRNGKey(2)
    action = model.draw(params, z, jax.random.split(key)[0])
    inputs = jnp.concatenate([z, action], axis=-1)
    q = np.stack([decode(model.bins.apply(one, inputs)) for one in params["critic"]])
    assert np.abs(q[0] - q[1]).mean() > 0.1
    np.testing.assert_allclose(model.world(params).value(z, key), q.mean(axis=0), rtol=1e-5)


def test_networks_are_the_published_ones_layer_by_layer():
    """Dense, LayerNorm, Mish; behind the last dense layer nothing, or LayerNorm and SimNorm."""

    def dense(x, layer):
        return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)

    def layer_norm(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * np.asarray(layer["scale"]) + np.asarray(
            layer["bias"]
        )

    x = np.asarray(normal(0, 4, 5), np.float64)
    for simplex in (False, True):
        network = mish_mlp(16, 6, 7, simplex=simplex)
        params = jax.tree.map(
            lambda leaf: leaf + 0.3 * normal(leaf.size, *leaf.shape), network.init(jax.random.PRNGKey(1), x)
        )
        layers, expected = params["params"], x
        for i in range(2):
            expected = layer_norm(dense(expected, layers[f"Dense_{i}"]), layers[f"LayerNorm_{i}"])
            expected = expected * np.tanh(np.log1p(np.exp(expected)))
        expected = dense(expected, layers["Dense_2"])
        if simplex:
            expected = np.exp(layer_norm(expected, layers["LayerNorm_2"])).reshape(4, 2, 8)
            expected = (expected / expected.sum(-1, keepdims=True)).reshape(4, 16)
        np.testing.assert_allclose(network.apply(params, jnp.asarray(x, jnp.float32)), expected, rtol=2e-4, atol=1e-5)


def test_dropout_is_that_of_the_first_layer():
    network = mish_mlp(3, 400, 5, dropout=0.25)
    params = network.init(jax.random.PRNGKey(0), jnp.zeros(2))
    params["params"]["Dense_0"]["bias"] = jnp.ones(400)
    calls = []

    def seen(next_function, args, kwargs, context):
        calls.append((context.module.name, np.asarray(args[0])))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(seen):
        network.apply(params, jnp.zeros(2), jax.random.PRNGKey(1))
    inputs = dict(calls)
    dropped = inputs["LayerNorm_0"] == 0
    assert 0.15 < dropped.mean() < 0.35 and np.allclose(inputs["LayerNorm_0"][~dropped], 1 / 0.75)
    assert (inputs["LayerNorm_1"] != 0).all()


def test_two_different_q_are_drawn_of_all():
    model = WorldModel(TDMPC2Config(**SMALL).size, SPEC, 0.0)
    critic = [{"which": jnp.int32(i)} for i in range(5)]
    draw = jax.jit(jax.vmap(lambda key: jnp.stack([one["which"] for one in model.two_of(critic, key)])))
    drawn = np.asarray(draw(jax.random.split(jax.random.PRNGKey(0), 400)))
    pairs, times = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in itertools.combinations(range(5), 2)] and times.min() > 15
