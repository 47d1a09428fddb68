"""Correctors: networks by NumPy, histories, files, and distillation."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents.correctors import ARCHITECTURES, History, blank, network_of, remembered
from goalax.agents.distillation import Decisions, Samples, distil, distillation_loss, histories
from goalax.flags import FlagError
from goalax.host import corrector_files
from goalax.learning.transformer import Transformer
from tests.helpers.planning import normal, plane


def louder(params):
    """Parameters far enough from those of the start for everything to matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), params)


def now(z, expected, action):
    """The history of who sees the decision at hand only."""
    return History(z[:, None], expected[:, None], action[:, None], jnp.ones(len(z), jnp.int32))


def made_up():
    """Nine histories of one to three decisions, whose actions are small, and zeros behind them."""
    rng = np.random.default_rng(1)
    length = 1 + np.arange(9) % 3
    there = (np.arange(3)[None] < length[:, None])[..., None]
    leaves = (rng.normal(size=(9, 3, size)) * there for size in (4, 4, 2))
    z, expected, action = (leaf.astype(np.float32) for leaf in leaves)
    return History(z, expected, 0.1 * action, length)


HISTORY = made_up()


@functools.cache
def started(name):
    """A network as a jitted function, and parameters of its start."""
    net = network_of(name, 8)
    return jax.jit(net.apply), jax.device_get(jax.jit(net.init)(jax.random.PRNGKey(3), *HISTORY))


def newest(leaf, history=HISTORY):
    return np.asarray(leaf)[np.arange(len(leaf)), np.asarray(history.length) - 1]


# ---- The networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_begins_as_the_plan_and_stays_in_range(name):
    apply, params = started(name)
    action = newest(HISTORY.action)
    np.testing.assert_array_equal(apply(params, *HISTORY), action)
    wild = jax.tree.map(lambda leaf: 3 * leaf, louder(params))
    changed = np.abs(apply(wild, *HISTORY._replace(action=9 * HISTORY.action)))
    assert changed.max() == 1 and changed.min() < 1


def layers(params):
    """The layers of a corrector in float64: `two` is dense, SiLU, dense; `gated` the end of all."""
    p = params["params"]

    def two(number, x):
        first, second = (p[f"TwoLayers_{number}"][f"Dense_{i}"] for i in range(2))
        hidden = x @ first["kernel"] + first["bias"]
        return hidden / (1 + np.exp(-hidden)) @ second["kernel"] + second["bias"]

    def gated(number, dense, both, planned, action):
        gate = 1 / (1 + np.exp(-two(number, both)))
        fused = gate * two(number + 1, both) + (1 - gate) * planned
        return np.clip(action + np.tanh(fused @ p[dense]["kernel"] + p[dense]["bias"]), -1, 1)

    return p, two, gated


def test_two_towers_by_numpy():
    apply, params = started("two_tower")
    _, two, gated = layers(params := louder(params))
    z, expected, action = (newest(leaf).astype(np.float64) for leaf in HISTORY[:3])
    planned = two(0, action)
    both = np.concatenate([two(1, z), two(2, expected), two(3, z - expected), planned], axis=1)
    found = apply(params, *HISTORY)
    np.testing.assert_allclose(found, gated(4, "Dense_0", both, planned, action), rtol=1e-4, atol=1e-5)


def test_the_temporal_one_by_numpy_around_its_transformer():
    apply, params = started("temporal")
    p, two, gated = layers(params := louder(params))
    z, expected, action = (leaf.astype(np.float64) for leaf in HISTORY[:3])
    tokens = np.concatenate([z, expected, z - expected, action], axis=2)
    tokens = tokens @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"] + p["places"]
    transform = jax.jit(Transformer(2, 4, wider=2).apply)
    seen = transform({"params": p["Transformer_0"]}, jnp.asarray(tokens, jnp.float32))
    assert p["Transformer_0"]["Block_1"]["Dense_2"]["kernel"].shape == (4, 8) and tokens.shape == (9, 3, 4)
    planned = two(0, newest(action))
    both = np.concatenate([newest(seen), planned], axis=1)
    found = apply(params, *HISTORY)
    np.testing.assert_allclose(found, gated(1, "Dense_1", both, planned, newest(action)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_the_temporal_one_sees_the_past_and_nobody_what_is_behind_the_newest(name):
    place, last = np.arange(3)[None], HISTORY.length[:, None] - 1
    changed = lambda where: HISTORY._replace(z=HISTORY.z + where[..., None].astype(np.float32))  # noqa: E731
    apply, params = started(name)
    params = louder(params)
    before, other = (apply(params, *each) for each in (HISTORY, changed(place < last)))
    moved = np.abs(before - other).max(axis=1) > 1e-5
    np.testing.assert_array_equal(moved, (HISTORY.length > 1) & (name == "temporal"))
    np.testing.assert_array_equal(apply(params, *changed(place > last)), before)


@pytest.mark.slow
def test_only_with_a_key_does_the_temporal_one_drop_what_it_sees():
    apply, params = started("temporal")
    params, keys = louder(params), [[], [jax.random.PRNGKey(0)], [jax.random.PRNGKey(1)]]
    found = [np.asarray(apply(params, *HISTORY, *key)) for key in keys]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(found, 2)) > 1e-3


def test_a_width_that_heads_cannot_share_is_one_sentence():
    with pytest.raises(FlagError) as error:
        network_of("temporal", 20)
    expected = "--width is 20; with --architecture temporal it must be a multiple of 8, for example 24."
    assert str(error.value) == expected


# ---- Histories -------------------------------------------------------------------------------------------------------


def test_histories_of_stored_decisions_are_those_that_were_remembered():
    """Rows are two episodes, of 5 and of 3 decisions; none sees the other's."""
    rows = [normal(i, 8, size) for i, size in enumerate((4, 4, 2, 2))]
    samples = Samples(jnp.arange(8), jnp.array([1, 2, 3, 3, 3, 1, 2, 3]))
    stored, one_more = histories(Decisions(*rows), samples, 3), jax.jit(remembered)
    for first, last in ((0, 5), (5, 8)):
        history = blank(1, 3, 4, 2)
        for r in range(first, last):
            history = one_more(history, *(leaf[r : r + 1] for leaf in rows[:3]))
            jax.tree.map(
                np.testing.assert_array_equal, jax.tree.map(lambda leaf, r=r: leaf[r : r + 1], stored), history
            )


def test_files_tell_which_decisions_belong_together(tmp_path):
    """Three episodes side by side, of which the second one ended for good after two decisions."""
    made = np.ones((4, 3), bool)
    made[2:, 1] = False
    old = made & np.array([0, 1, 1, 0], bool)[:, None]
    number = np.arange(12).reshape(4, 3, 1).astype(np.float32)  # of the decision, 3 t + n
    corrector_files.write_decisions(tmp_path / "d.npz", Decisions(number, number, number, number), made, old)
    decisions, train, test, _ = corrector_files.read_decisions(tmp_path / "d.npz", 2, 0.1)
    np.testing.assert_array_equal(decisions.z[:, 0], [0, 3, 6, 9, 1, 4, 2, 5, 8, 11])
    np.testing.assert_array_equal(decisions.z[train.row, 0], [3, 6, 4])
    np.testing.assert_array_equal(decisions.z[test.row, 0], [5, 8])  # of the last episode
    seen = histories(decisions, test, 2)
    np.testing.assert_array_equal(seen.z[..., 0], [[2, 5], [5, 8]])
    np.testing.assert_array_equal(corrector_files.read_decisions(tmp_path / "d.npz", 4, 0.1)[2].length, [2, 3])


def test_files_of_before_are_read_without_histories(tmp_path):
    """Their rows are decisions by old plans, all environments of a time together, and nothing in between."""
    rows = {name: normal(i, 6, 2) for i, name in enumerate(Decisions._fields)}
    np.savez(tmp_path / "old.npz", **rows, episode=np.array([0, 1, 2, 0, 1, 2]))
    _, train, test, origin = corrector_files.read_decisions(tmp_path / "old.npz", 1, 0.1)
    assert origin is None
    np.testing.assert_array_equal(train.row, [0, 1, 3, 4])
    np.testing.assert_array_equal(test.row, [2, 5])
    np.testing.assert_array_equal(test.length, [1, 1])
    with pytest.raises(FlagError, match="holds no decisions by new plans, and so no histories: collect it again"):
        corrector_files.read_decisions(tmp_path / "old.npz", 2, 0.1)


def test_correctors_of_before_are_two_towers(tmp_path):
    path, (apply, params) = tmp_path / "c.npz", started("two_tower")
    params = louder(params)
    size = corrector_files.write_corrector(path, params, "two_tower", 8, 1)
    assert size == sum(leaf.size for leaf in jax.tree.leaves(params))
    arrays = dict(np.load(path))
    assert {arrays.pop("architecture").item(), arrays.pop("history").item()} == {"two_tower", 1}
    np.savez(path, **arrays)
    planner = plane(2)._replace(latent_size=4)
    found, origin = corrector_files.read_corrector(path, planner)
    assert origin is None
    assert found.history == 1
    np.testing.assert_allclose(found.correct(now(*map(newest, HISTORY[:3]))), apply(params, *HISTORY), rtol=1e-5)
    np.savez(path, **arrays, architecture="other")
    with pytest.raises(FlagError, match="has an architecture 'other' that is unknown here"):
        corrector_files.read_corrector(path, planner)


# ---- Distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_distillation_learns_what_depends_on_how_far_off_the_plan_is():
    z, expected, action = normal(0, 600, 4), normal(1, 600, 4), 0.3 * jnp.tanh(normal(2, 600, 2))
    teacher = action + 0.3 * jnp.tanh(z - expected)[:, :2]
    net, history = network_of("two_tower", 32), now(z, expected, action)
    samples = Samples(jnp.arange(600), jnp.ones(600, jnp.int32))
    params = jax.jit(net.init)(jax.random.PRNGKey(3), *history)
    plan_error = float(jnp.mean((action - teacher) ** 2))
    learn = lambda weight: jax.jit(  # noqa: E731
        lambda: distil(
            net,
            params,
            Decisions(z, expected, action, teacher),
            samples,
            jax.random.PRNGKey(4),
            steps=1,
            epochs=60,
            batch_size=64,
            learning_rate=3e-3,
            regularization=weight,
        )
    )()
    free, errors, beyond = learn(0.0)
    assert np.isnan(beyond).all()
    np.testing.assert_allclose(distillation_loss(net, params, history, teacher, 0.0), [plan_error] * 2, rtol=1e-5)
    assert errors.shape == (60,) and float(errors[-1]) < 0.1 * plan_error
    held, *_ = learn(3.0)  # between plan and teacher, three times nearer to the plan
    change = np.asarray(net.apply(held, *history) - action) / np.asarray(teacher - action)
    assert 0.15 < np.median(change) < 0.35
    far = float(jnp.mean((net.apply(free, *history) - action) ** 2))
    loss, error = distillation_loss(net, free, history, teacher, 2.0)
    np.testing.assert_allclose(loss, error + 2 * far, rtol=1e-4)


@pytest.mark.slow
def test_the_temporal_one_learns_what_only_the_past_tells():
    """The teacher follows how far off the plan was at the decision before, in episodes of six; tested on others."""
    z, expected, action = normal(0, 1500, 4), normal(1, 1500, 4), 0.3 * jnp.tanh(normal(2, 1500, 2))
    number = jnp.arange(1500) % 6
    off = jnp.where((number > 0)[:, None], jnp.roll(z - expected, 1, axis=0), 0.0)
    decisions = Decisions(z, expected, action, action + 0.3 * jnp.tanh(off)[:, :2])
    train, test = (
        Samples(jnp.arange(*rows), jnp.minimum(number[slice(*rows)] + 1, 2)) for rows in ((0, 1200), (1200, 1500))
    )
    net, seen = network_of("temporal", 32), histories(decisions, test, 2)
    sizes = {"steps": 2, "epochs": 40, "batch_size": 64, "learning_rate": 3e-3, "regularization": 0.0}
    params = jax.jit(net.init)(jax.random.PRNGKey(3), *seen)
    learned, *_ = jax.jit(lambda p: distil(net, p, decisions, train, jax.random.PRNGKey(4), **sizes))(params)
    before, after = (
        float(distillation_loss(net, p, seen, decisions.teacher[1200:], 0.0)[1]) for p in (params, learned)
    )
    assert after < 0.3 * before


@pytest.mark.slow
def test_the_epoch_is_kept_that_is_best_on_what_is_held_out():
    """The teacher of the samples is noise, so that what is learned by heart is worse and worse on others."""
    z, expected, action, teacher = normal(0, 200, 4), normal(1, 200, 4), 0.1 * normal(2, 200, 2), normal(3, 200, 2)
    decisions, net = Decisions(z, expected, action, teacher), network_of("two_tower", 64)
    train, test = (Samples(jnp.arange(*rows), jnp.ones(100, jnp.int32)) for rows in ((0, 100), (100, 200)))
    sizes = {"steps": 1, "batch_size": 20, "learning_rate": 3e-3, "regularization": 0.0, "held_out": test}
    params = jax.jit(net.init)(jax.random.PRNGKey(4), *now(z, expected, action))
    learn = lambda epochs: distil(net, params, decisions, train, jax.random.PRNGKey(5), epochs=epochs, **sizes)  # noqa: E731
    kept, errors, beyond = jax.jit(lambda: learn(40))()
    assert errors[-1] < 0.5 * errors[0] and beyond[-1] > 1.1 * beyond.min()
    seen = histories(decisions, test, 1)
    found = distillation_loss(net, kept, seen, teacher[100:], 0.0)[1]
    np.testing.assert_allclose(found, beyond.min(), rtol=1e-5)


def test_an_epoch_that_diverged_is_not_kept():
    """The network is one number, which grows by a tenth an epoch and is none any more from a half on."""

    class Number:
        def apply(self, number, z, expected, action, length, key=None):
            return 0 * action[:, 0] + jnp.where(number < 0.45, number, jnp.nan)

    decisions = Decisions(*(jnp.zeros((8, 2)) for _ in range(3)), jnp.ones((8, 2)))
    train, test = (Samples(jnp.arange(*rows), jnp.ones(4, jnp.int32)) for rows in ((0, 4), (4, 8)))
    sizes = {"steps": 1, "epochs": 8, "batch_size": 4, "learning_rate": 0.1, "regularization": 0.0, "held_out": test}
    kept, _, beyond = distil(Number(), jnp.float32(0), decisions, train, jax.random.PRNGKey(0), **sizes)
    np.testing.assert_allclose(kept, 0.4, rtol=0.02)
    assert np.isfinite(beyond[:4]).all() and np.isnan(beyond[4:]).all()
