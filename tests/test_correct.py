"""Correctors: networks by NumPy, histories, distillation, what is corrected and collected, and `goalax correct` on a
run."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents.correctors import ARCHITECTURES, Corrector, History, blank, latest, network_of, remembered
from goalax.agents.distillation import Decisions, Samples, acting, collect, distil, distillation_loss, histories
from goalax.agents.mppi import Plan
from goalax.agents.plans import Planner
from goalax.agents.speculation import EXTENDED, FOLLOWED, Speculation, beginning, decision, is_old
from goalax.commands import correct
from goalax.commands import train as training
from goalax.flags import FlagError
from goalax.host import corrector_files
from goalax.learning.transformer import Transformer
from tests.helpers import toy

toy.register()


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


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


# ---- What is corrected -----------------------------------------------------------------------------------------------


def plane(horizon):
    """A planner in the plane, where z is the state: plans go right by 0.1, 0.2, ...; the prior goes up by 0.5."""

    def plan(agent, z, mean, key, explore):
        right = 0.1 * jnp.arange(1.0, horizon + 1).reshape(1, horizon, 1) * jnp.array([1.0, 0.0]).reshape(1, 1, 2)
        return Plan(jnp.tile(right, (z.shape[0], 1, 1)) + z[:, None] / 100, mean + 1)

    return Planner(
        horizon=horizon,
        action_size=2,
        latent_size=2,
        encode=lambda agent, state, goal: state,
        plan=plan,
        predict=lambda agent, z, action: z + 0.3 * action,
        prior=lambda agent, z: jnp.zeros_like(z) + jnp.array([0.0, 0.5])[None],
    )


def itself(state, goal):
    return state, goal


def test_only_old_plans_are_corrected_and_predictions_stay_those_of_the_plan():
    planner, rules, kinds = plane(2), Speculation(2, 4, 9.0, 1.0), []

    def correct(history):
        z, expected, action = latest(*history)
        return action + 10 * (z - expected)

    policy, key = acting(planner, rules, None, itself, Corrector(correct, 3)), jax.random.PRNGKey(0)
    memory, same, past = policy.start(3), beginning(planner, rules, 3), []
    act = jax.jit(lambda memory, state, goal: policy.act(memory, state, goal, None))
    decide = jax.jit(lambda held, state, goal: decision(planner, rules, None, held, state, goal, key, False))
    for t in range(5):
        state, nothing = 0.1 * normal(t, 3, 2), jnp.zeros((3, 0))
        action, memory = act(memory, state, nothing)
        same, step = decide(same, state, nothing)
        jax.tree.map(np.testing.assert_array_equal, memory.held, same)
        old = np.asarray(is_old(step.kind))
        expected = np.where(old[:, None], step.planned + 10 * (step.z - step.expected), step.planned)
        np.testing.assert_allclose(action, expected, rtol=1e-5)
        if not old[0]:
            np.testing.assert_array_equal(step.expected, step.z)
        past = [*past, step][-3:]
        np.testing.assert_array_equal(memory.history.length, [len(past)] * 3)
        for name in ("z", "expected"):
            of_past = np.stack([getattr(each, name) for each in past], axis=1)
            np.testing.assert_array_equal(getattr(memory.history, name)[:, : len(past)], of_past)
        np.testing.assert_array_equal(memory.history.action[:, len(past) - 1], step.planned)  # the plan's own
        kinds += [int(step.kind[0])]
        assert old.all() == (t % 4 > 0)
    assert FOLLOWED in kinds and EXTENDED in kinds


def test_what_is_too_far_off_and_has_no_room_is_not_corrected():
    """Of two that miss there is room for one; no corrector has seen what the other one sees."""
    planner, rules = plane(2), Speculation(2, 4, 0.5, 0.5)
    policy, nothing = (
        acting(planner, rules, None, itself, Corrector(lambda h: h.action[:, 0] + 7, 1)),
        jnp.zeros((2, 0)),
    )
    memory, state = policy.start(2), jnp.zeros((2, 2))
    for _ in range(2):  # there is room for one a decision
        _, memory = policy.act(memory, state, nothing, None)
    action, memory = policy.act(memory, jnp.array([[3.0, 0.0], [2.0, 0.0]]), nothing, None)
    np.testing.assert_array_equal(memory.held.plans, [2, 1])
    assert float(jnp.abs(action).max()) < 7 and not memory.corrected[1]
    expected = memory.held.expected
    action, memory = policy.act(memory, expected, nothing, None)
    assert float(action[:, 0].min()) > 6 and memory.corrected.tolist() == [2, 1]


def test_corrected_decisions_are_counted():
    planner, rules = plane(2), Speculation(2, 3, 9.0, 1.0)
    for corrector, expected in ((None, 0.0), (Corrector(lambda history: history.action[:, 0], 1), 2 / 3)):
        policy = acting(planner, rules, None, itself, corrector)
        act, memory = jax.jit(lambda memory, state, p=policy: p.act(memory, state, state[:, :0], None)), policy.start(2)
        for t in range(6):
            _, memory = act(memory, normal(t, 2, 2))
        metrics = policy.measures(memory)
        np.testing.assert_allclose(metrics["plans_per_decision"], [1 / 3] * 2)
        np.testing.assert_allclose(metrics["corrected_per_decision"], [expected] * 2)


def test_what_is_collected_are_decisions_with_what_a_new_plan_would_do():
    """In `toy`, which moves as the planner says; an environment that has died decides nothing any more."""
    env, planner, rules = toy.Toy(), plane(2), Speculation(2, 3, 9.0, 1.0)
    inputs = lambda state, goal: (2 * state, goal)  # noqa: E731
    key = jax.random.PRNGKey(0)
    found, made, old = collect(env, planner, rules, None, inputs, key, num_envs=4, decisions=7, action_repeat=1)
    assert made.all()
    np.testing.assert_array_equal(old, np.tile(np.array([0, 1, 1, 0, 1, 1, 0], bool)[:, None], (1, 4)))
    found = Decisions(*map(np.asarray, found))
    # The teacher's plans begin at 0.1 to the right of what is, the old ones are two steps in, or the prior's.
    np.testing.assert_allclose(found.teacher, found.z / 100 + np.array([0.1, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.action[2, :, 1], 0.5)
    start = np.asarray(found.z[0])
    np.testing.assert_allclose(found.action[1], start / 100 + np.array([0.2, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.expected[1], start + 0.3 * found.action[0], rtol=1e-5)
    np.testing.assert_array_equal(found.expected[::3], found.z[::3])  # those of new plans
    np.testing.assert_allclose(found.z[1] - found.z[0], 0.6 * found.action[0], rtol=1e-4, atol=1e-5)
    far = plane(2)._replace(prior=lambda agent, z: jnp.ones_like(z) * jnp.array([9.0, 0.0])[None])
    _, made, old = collect(env, far, rules, None, inputs, key, num_envs=4, decisions=40, action_repeat=1)
    ended = np.sum(made, axis=0)
    assert (ended < 39).all() and not (old & ~made).any()
    np.testing.assert_array_equal(made, np.arange(40)[:, None] < ended[None])


# ---- The command -----------------------------------------------------------------------------------------------------

FEW = ["--data", "few.npz", "--out", "b.npz"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "The first word must be one of collect, train, evaluate"),
        (["learn"], "not 'learn'"),
        (["collect", "--out", "a.npz"], "It takes one run directory, but 0 are given."),
        (["collect", "nowhere", "--out", "a.npz"], "nowhere"),
        (["collect", "x", "--out", "a.txt"], "--out is 'a.txt'; it must name a file that ends in .npz"),
        (["collect", "x", "--out", "no/a.npz"], "in a directory that exists."),
        (["collect", "x", "--out", "folder.npz"], "it must name a file that ends in .npz"),
        (["train", "--data", "few.npz", "--out", "./few.npz"], "--out is './few.npz', the file of --data"),
        (["train", "--data", "a.npz", "--out", "b.npz"], "--data is 'a.npz'; there is no such file."),
        (["train", "--data", "bad.npz", "--out", "b.npz"], "no npz file that can be read"),
        (["train", "--data", "other.npz", "--out", "b.npz"], "holds no z"),
        (["train", *FEW], "--batch_size is 256; few.npz has 4 samples"),
        (["train", *FEW, "--history", "2"], "--history is 2; it means nothing with --architecture two_tower"),
        (["train", *FEW, "--architecture", "lstm"], "choose from: two_tower, temporal"),
        (["train", *FEW, "--architecture", "temporal"], "and so no histories: collect it again"),
        (["train", *FEW, "--architecture", "temporal", "--width", "12"], "a multiple of 8, for example 16."),
        (["evaluate", "x", "--corrector", "no.npz"], "--corrector is 'no.npz'; there is no such file."),
        (["evaluate", "x", "--exec_horizon", "1"], "--exec_horizon is 1; it must be at least 2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    (tmp_path / "folder.npz").mkdir()
    np.savez("other.npz", x=np.zeros(3))
    few = {name: np.zeros((5, 2), np.float32) for name in Decisions._fields}
    np.savez("few.npz", **few, episode=np.array([0, 0, 0, 0, 1]))
    assert correct.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("correct.py: ") and error.count("\n") == 1 and words in error, error


RUN = [*toy.TINY[: toy.TINY.index("--h_dim")], "--agent", "tdmpc2", "--num_samples", "16", "--num_prior", "4"]
RUN += ["--num_elites", "4", "--iterations", "2", "--encoder_dim", "8", "--h_dim", "8", "--num_q", "2"]


def test_help_names_the_commands(capsys):
    assert correct.main(["--help"]) == 0
    assert "{collect,train,evaluate}" in capsys.readouterr().out


@pytest.mark.slow
def test_from_a_run_to_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*RUN, "--latent_dim", "16", "--exp_name", "tiny"]) == 0
    run = "runs/tiny_s0"
    assert correct.main(["collect", run, "--episodes", "20", "--mismatch", "9", "--out", "data.npz"]) == 0
    data = dict(np.load("data.npz"))
    origin = {name.removeprefix("origin/"): data.pop(name).item() for name in list(data) if name.startswith("origin/")}
    steps = origin.pop("steps")
    rules = {"exec_horizon": 3, "mismatch": 9.0}  # 3 where the run plans at each decision
    assert steps >= 120 and origin == {"run": "tiny_s0", **rules, "teacher": "mean", "seed": 0}
    # Episodes of 10 decisions with plans that are good for 3; at most one died.
    assert 170 < len(data["z"]) <= 200 and {leaf.shape[0] for leaf in data.values()} == {len(data["z"])}
    assert 100 < np.sum(data["old"]) <= 120 and np.sum(data["old"]) <= 0.6 * len(data["z"])
    assert data["z"].shape[1:] == data["expected"].shape[1:] == (16,)
    assert (np.diff(data["episode"]) >= 0).all() and set(data["episode"]) == set(range(20))
    table = ["--episodes", "8", "--mismatch", "9"]
    for name, few in (("two_tower", ["--epochs", "40"]), ("temporal", ["--epochs", "60", "--history", "3"])):
        out = f"{name}.npz"
        flags = ["--data", "data.npz", "--out", out, "--architecture", name, "--width", "16", "--batch_size", "16"]
        assert correct.main(["train", *flags, *few]) == 0
        printed = capsys.readouterr().out
        first, last = (float(word) for word in printed.split("squared error to new plans: ")[1].split()[0:6:5])
        assert last < first
        learned = dict(np.load(out))
        np.savez("other.npz", **{**learned, "width": 24})
        assert correct.main(["evaluate", run, "--corrector", "other.npz", *table]) == 2
        assert "trained for a run of other sizes" in capsys.readouterr().err
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table]) == 0
    printed, error = capsys.readouterr()
    assert not error  # the same run and rules
    rows = [line.strip("│ ").split("│") for line in printed.splitlines() if "│" in line]
    cells = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows}
    assert list(cells) == ["new ones only", "followed", "corrected"]
    assert all(worst <= median and worst <= mean for mean, median, worst, *_ in cells.values())
    plans = {name: values[4:6] for name, values in cells.items()}
    np.testing.assert_allclose(list(itertools.chain(*plans.values())), [1, 0, 0.4, 0, 0.4, 0.6], atol=0.02)
    # With room for four of eight the others wait for one decision; a corrector that has not learned is the plan itself.
    params = network_of("two_tower", 16).init(jax.random.PRNGKey(0), *blank(1, 1, 16, 2))
    corrector_files.write_corrector(Path("begun.npz"), params, "two_tower", 16, 1)
    assert correct.main(["evaluate", run, "--corrector", "begun.npz", *table, "--replans", "0.4"]) == 0
    rows = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    every, followed, corrected = ([float(cell) for cell in row[1:]] for row in rows)
    np.testing.assert_allclose([*followed[4:6], *corrected[4:6]], [0.35, 0, 0.35, 0.6], atol=0.02)
    assert followed[:5] == corrected[:5] and every[4] == 1 and min(row[-1] for row in (every, followed, corrected)) > 0
    assert correct.main(["evaluate", run, "--episodes", "1", "--replans", "0.4"]) == 0
    assert "note: --replans is 0.4, which is room for all of 1 --episodes." in capsys.readouterr().err
    same = ["--seed", "0"]  # the episodes of `collect`
    monkeypatch.setattr(correct, "played", lambda *_: dict.fromkeys(correct.COLUMNS, 0.0))
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, "--exec_horizon", "2"]) == 0
    there, here = (f"tiny_s0 at {steps:,} steps with --exec_horizon {number} --mismatch 9" for number in (3, 2))
    assert f"note: the corrector learned from {there}; this is {here}." in (error := capsys.readouterr().err)
    assert "are these" not in error
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, "--exec_horizon", "2", *same]) == 0
    assert capsys.readouterr().err.count("note: the corrector learned from") == 2
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, *same]) == 0
    assert "learned from episodes of --seed 0, which in the same environment are these." in capsys.readouterr().err


def test_the_teacher_may_be_the_mean_of_the_search():
    env, planner, rules = toy.Toy(), plane(2), Speculation(2, 3, 9.0, 1.0)

    def drawn(agent, z, mean, key, explore):
        plans = planner.plan(agent, z, mean, key, explore)
        return Plan(plans.actions, 0 * plans.mean + 0.25)

    key, sizes = jax.random.PRNGKey(0), {"num_envs": 2, "decisions": 3, "action_repeat": 1}
    search = planner._replace(plan=drawn)
    found, _, _ = collect(env, search, rules, None, itself, key, **sizes, smooth=True)
    action, _, _ = collect(env, search, rules, None, itself, key, **sizes)
    np.testing.assert_array_equal(found.teacher, np.full((3, 2, 2), 0.25))
    assert np.abs(np.asarray(action.teacher) - 0.25).min() > 0
    np.testing.assert_array_equal(found.action, action.action)  # what is executed is the same
