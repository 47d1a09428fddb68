"""Correctors: the network by NumPy, distillation, what is corrected and collected, and `goalax correct` on a run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents.correctors import Samples, TwoTower, acting, collect, distil, distillation_loss, two_tower
from goalax.agents.mppi import Plan
from goalax.agents.plans import Planner
from goalax.agents.speculation import EXTENDED, FOLLOWED, Speculation, beginning, decision, is_old
from goalax.commands import correct
from goalax.commands import train as training
from tests.helpers import toy

toy.register()


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def louder(params):
    return jax.tree.map(lambda leaf: leaf + 0.3 * normal(leaf.size, *leaf.shape), params)


# ---- The network -----------------------------------------------------------------------------------------------------


def test_it_begins_as_the_plan_and_stays_in_range():
    net = two_tower(8)
    z, expected, action = normal(0, 50, 4), normal(1, 50, 4), jnp.tanh(normal(2, 50, 2))
    params = net.init(jax.random.PRNGKey(3), z, expected, action)
    np.testing.assert_array_equal(net.apply(params, z, expected, action), action)
    changed = net.apply(louder(params), z, expected, action)
    assert float(jnp.max(jnp.abs(changed))) <= 1 and float(jnp.max(jnp.abs(changed - action))) > 0.1


def test_two_towers_by_numpy():
    net = TwoTower(6)
    z, expected, action = (np.asarray(x, np.float64) for x in (normal(0, 5, 4), normal(1, 5, 4), normal(2, 5, 2)))
    inputs = [jnp.asarray(x, jnp.float32) for x in (z, expected, 0.3 * action)]
    params = louder(net.init(jax.random.PRNGKey(3), *inputs))
    p = jax.tree.map(np.asarray, params)["params"]

    def two(number, x):
        first, second = (p[f"TwoLayers_{number}"][f"Dense_{i}"] for i in range(2))
        hidden = x @ first["kernel"] + first["bias"]
        return hidden / (1 + np.exp(-hidden)) @ second["kernel"] + second["bias"]

    planned = two(0, 0.3 * action)
    both = np.concatenate([two(1, z), two(2, expected), two(3, z - expected), planned], axis=1)
    gate = 1 / (1 + np.exp(-two(4, both)))
    fused = gate * two(5, both) + (1 - gate) * planned
    change = np.tanh(fused @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    np.testing.assert_allclose(net.apply(params, *inputs), np.clip(0.3 * action + change, -1, 1), rtol=1e-4, atol=1e-5)


def test_distillation_learns_what_depends_on_how_far_off_the_plan_is():
    z, expected, action = normal(0, 600, 4), normal(1, 600, 4), 0.3 * jnp.tanh(normal(2, 600, 2))
    teacher = action + 0.3 * jnp.tanh(z - expected)[:, :2]
    samples, net = Samples(z, expected, action, teacher), two_tower(32)
    params = net.init(jax.random.PRNGKey(3), z, expected, action)
    plan_error = float(jnp.mean((action - teacher) ** 2))
    learn = lambda weight: jax.jit(  # noqa: E731
        lambda: distil(
            net,
            params,
            samples,
            jax.random.PRNGKey(4),
            epochs=60,
            batch_size=64,
            learning_rate=3e-3,
            regularization=weight,
        )
    )()
    free, errors = learn(0.0)
    np.testing.assert_allclose(distillation_loss(net, params, samples, 0.0), [plan_error] * 2, rtol=1e-5)
    assert errors.shape == (60,) and float(errors[-1]) < 0.1 * plan_error
    held, _ = learn(3.0)  # between plan and teacher, three times nearer to the plan
    change = np.asarray(net.apply(held, z, expected, action) - action) / np.asarray(teacher - action)
    assert 0.15 < np.median(change) < 0.35
    far = float(jnp.mean((net.apply(free, z, expected, action) - action) ** 2))
    loss, error = distillation_loss(net, free, samples, 2.0)
    np.testing.assert_allclose(loss, error + 2 * far, rtol=1e-4)


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


def test_only_old_plans_are_corrected_and_predictions_stay_those_of_the_plan():
    planner, rules, seen = plane(2), Speculation(2, 4, 9.0, 1.0), []

    def corrector(z, expected, planned):
        return planned + 10 * (z - expected)

    held = same = beginning(planner, rules, 3)
    for t in range(5):
        state, key = 0.1 * normal(t, 3, 2), jax.random.PRNGKey(0)
        action, held, step = decision(planner, rules, None, held, state, jnp.zeros((3, 0)), key, False, corrector)
        plain, same, _ = decision(planner, rules, None, same, state, jnp.zeros((3, 0)), key, False)
        jax.tree.map(np.testing.assert_array_equal, held, same)
        np.testing.assert_array_equal(step.planned, plain)
        old = np.asarray(is_old(step.kind))
        expected = np.where(old[:, None], plain + 10 * (step.z - step.expected), plain)
        np.testing.assert_allclose(action, expected, rtol=1e-5)
        seen += [int(step.kind[0])]
        assert old.all() == (t % 4 > 0)
    assert FOLLOWED in seen and EXTENDED in seen


def test_corrected_decisions_are_counted():
    planner, rules = plane(2), Speculation(2, 3, 9.0, 1.0)
    inputs = lambda state, goal: (state, goal)  # noqa: E731
    for corrector, expected in ((None, 0.0), (lambda z, p, a: a, 2 / 3)):
        policy = acting(planner, rules, None, inputs, corrector)
        memory = policy.start(2)
        for t in range(6):
            _, memory = policy.act(memory, normal(t, 2, 2), jnp.zeros((2, 0)), None)
        metrics = policy.measures(memory)
        np.testing.assert_allclose(metrics["plans_per_decision"], [1 / 3] * 2)
        np.testing.assert_allclose(metrics["corrected_per_decision"], [expected] * 2)


def test_samples_are_decisions_by_old_plans_with_what_a_new_one_would_do():
    """In `toy`, which moves as the planner says; one environment has died and is no sample any more."""
    env, planner, rules = toy.Toy(), plane(2), Speculation(2, 3, 9.0, 1.0)
    inputs = lambda state, goal: (2 * state, goal)  # noqa: E731
    key = jax.random.PRNGKey(0)
    samples, kept = collect(env, planner, rules, None, inputs, key, num_envs=4, decisions=7, action_repeat=1)
    np.testing.assert_array_equal(kept, np.tile(np.array([0, 1, 1, 0, 1, 1, 0], bool)[:, None], (1, 4)))
    samples = Samples(*map(np.asarray, samples))
    # The teacher's plans begin at 0.1 to the right of what is, the old ones are two steps in, or the prior's.
    np.testing.assert_allclose(samples.teacher, samples.z / 100 + np.array([0.1, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(samples.action[2, :, 1], 0.5)
    start = np.asarray(samples.z[0])
    np.testing.assert_allclose(samples.action[1], start / 100 + np.array([0.2, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(samples.expected[1], start + 0.3 * samples.action[0], rtol=1e-5)
    np.testing.assert_allclose(samples.z[1] - samples.z[0], 0.6 * samples.action[0], rtol=1e-4, atol=1e-5)
    far = plane(2)._replace(prior=lambda agent, z: jnp.ones_like(z) * jnp.array([9.0, 0.0])[None])
    _, kept = collect(env, far, rules, None, inputs, key, num_envs=4, decisions=40, action_repeat=1)
    ended = np.argmax(np.cumsum(kept, axis=0), axis=0) + 1
    assert (ended < 39).all() and not kept[int(ended.max()) :].any()


# ---- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "The first word must be one of collect, train, evaluate"),
        (["learn"], "not 'learn'"),
        (["collect", "--out", "a.npz"], "It takes one run directory, but 0 are given."),
        (["collect", "nowhere", "--out", "a.npz"], "nowhere"),
        (["collect", "x", "--out", "a.txt"], "--out is 'a.txt'; it must be an npz file."),
        (["collect", "x", "--out", "no/a.npz"], "there is no folder no."),
        (["train", "--data", "a.npz", "--out", "b.npz"], "--data is 'a.npz'; there is no such file."),
        (["train", "--data", "bad.npz", "--out", "b.npz"], "no npz file that can be read"),
        (["train", "--data", "other.npz", "--out", "b.npz"], "holds no z"),
        (["train", "--data", "few.npz", "--out", "b.npz"], "--batch_size is 256; few.npz has 4 samples"),
        (["evaluate", "x", "--corrector", "no.npz"], "--corrector is 'no.npz'; there is no such file."),
        (["evaluate", "x", "--exec_horizon", "1"], "--exec_horizon is 1; it must be at least 2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    np.savez("other.npz", x=np.zeros(3))
    few = {name: np.zeros((5, 2), np.float32) for name in Samples._fields}
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
    # Episodes of 10 decisions with plans that are good for 3; at most one died.
    assert 100 < len(data["z"]) <= 120 and {leaf.shape[0] for leaf in data.values()} == {len(data["z"])}
    assert data["z"].shape[1:] == data["expected"].shape[1:] == (16,) and set(data["episode"]) <= set(range(20))
    flags = ["--data", "data.npz", "--out", "corrector.npz", "--width", "16", "--batch_size", "16", "--epochs", "40"]
    assert correct.main(["train", *flags]) == 0
    printed = capsys.readouterr().out
    first, last = (float(word) for word in printed.split("squared error to new plans: ")[1].split()[0:6:5])
    assert last < first
    table = ["--episodes", "8", "--mismatch", "9"]
    assert correct.main(["evaluate", run, "--corrector", "corrector.npz", *table]) == 0
    printed = capsys.readouterr().out
    rows = [line.strip("│ ").split("│") for line in printed.splitlines() if "│" in line]
    cells = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows}
    assert list(cells) == ["new ones only", "followed", "corrected"]
    plans = {name: values[2:4] for name, values in cells.items()}
    np.testing.assert_allclose(list(itertools.chain(*plans.values())), [1, 0, 0.4, 0, 0.4, 0.6], atol=0.02)
    learned = dict(np.load("corrector.npz"))
    np.savez("other.npz", **{**learned, "width": 24})
    assert correct.main(["evaluate", run, "--corrector", "other.npz", *table]) == 2
    assert "trained for a run of other sizes" in capsys.readouterr().err
