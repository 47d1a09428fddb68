"""TD-MPC2: golden values, its losses against loops, the planner against brute force, and plans in the common loop."""

import dataclasses
import functools
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from goalax import flags
from goalax.agents import AGENTS
from goalax.agents.mppi import Plan, Search, World, elite_statistics, plan, returns, rollout_prior
from goalax.agents.plans import Planner, replanning
from goalax.agents.tdmpc2 import TDMPC2Config, model_loss, over_time, percentile_scale, policy_loss
from goalax.agents.world_model import MODEL_SIZES, WorldModel
from goalax.core import buffer
from goalax.core.types import Batch, Needs, Path, Spec
from goalax.flags import FlagError
from goalax.host import memory
from goalax.host.config import Flags
from goalax.host.make import make
from goalax.learning.latents import mish, mish_mlp, sim_norm
from goalax.learning.two_hot import BINS, cross_entropy, decode, symexp, symlog, two_hot
from tests.helpers import ROOT, toy, toy_rewards
from tests.helpers.offline import equal
from tests.helpers.programs import programs
from tests.helpers.rings import filled_ring, stored_steps

toy.register()
toy_rewards.register()
FOLDER = ROOT / "tests" / "golden" / "planning"
SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
SMALL = {"encoder_dim": 8, "h_dim": 8, "latent_dim": 16, "num_q": 3, "num_samples": 16, "num_prior": 4}
SMALL |= {"num_elites": 4, "iterations": 2}
RUN = {"num_envs": 4, "num_eval_envs": 4, "unroll_length": 5, "utd_ratio": 0.1, "min_replay_size": 10}
RUN |= {"max_replay_size": 40, "batch_size": 8, "vis_length": 0, "num_timesteps": 400, "agent": "tdmpc2"}


def golden(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def small_batch(horizon=3, size=6, goal_size=2):
    path = Path(
        state=normal(0, size, horizon + 1, 5),
        action=jnp.tanh(normal(1, size, horizon, 3)),
        reward=normal(2, size, horizon) ** 2,
        discount=0.9 * (jnp.arange(size * horizon).reshape(size, horizon) % 4 > 0),
        stored=stored_steps(size, horizon),
        future_reward=(normal(3, size, horizon) > 0).astype(jnp.float32),
    )
    first = path.state[:, 0], path.action[:, 0], path.state[:, 1], normal(4, size, goal_size)
    rest = normal(5, size, 5), path.action[:, 0], path.reward[:, 0], path.future_reward[:, 0], path.discount[:, 0]
    return Batch(*first, *rest, path=path)


def agent_of(spec=SPEC, **flags):
    return AGENTS["tdmpc2"].make(TDMPC2Config(**{**SMALL, **flags}), spec)


# ---- Formulas --------------------------------------------------------------------------------------------------------


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


def test_an_iteration_of_the_planner():
    values = golden("mppi")
    actions = jnp.asarray(values["actions"], jnp.float32)[:, None]  # [H, 1, N, A]
    rewards, last = (jnp.asarray(values[name], jnp.float32) for name in ("rewards", "terminal_value"))
    clock = jnp.zeros((1, 16, 1))
    world = World(
        step=lambda z, action: z + 1,
        reward=lambda z, action: rewards[z[0, 0, 0].astype(int)][None],
        value=lambda z, key: last[None],
        prior=lambda z, key: z,
    )
    value = returns(world, float(values["gamma"]), clock, actions, jax.random.PRNGKey(0))
    np.testing.assert_allclose(value[0], values["value"], rtol=1e-5)
    numbers = {name: float(values[name]) for name in ("temperature", "min_std", "max_std")}
    search = Search(3, 16, 0, int(values["num_elites"]), 1, discounting=0.95, **numbers)
    mean, std, elites, weight = elite_statistics(value, actions, search)
    np.testing.assert_allclose(weight[0], values["score"], rtol=1e-5)
    np.testing.assert_array_equal(elites[:, 0], actions[:, 0, values["elite"]])
    np.testing.assert_allclose(mean[:, 0], values["mean"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std[:, 0], values["std"], rtol=1e-4)


def test_percentile_scale():
    values = golden("percentile_scale")
    q = jnp.asarray(values["q"], jnp.float32)
    np.testing.assert_allclose(percentile_scale(jnp.float32(3), q, 0.01), values["after"], rtol=1e-5)
    assert float(percentile_scale(jnp.float32(2), 0 * q, 0.5)) == 1.5  # no less than 1


def test_sizes_are_about_as_large_as_they_are_called():
    spec = SPEC._replace(state_size=24, goal_size=0, action_size=6)
    for name, size in MODEL_SIZES.items():
        params = jax.eval_shape(WorldModel(size, spec, 0.0).init, jax.random.PRNGKey(0))
        millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
        assert 0.7 * float(name) < millions < 1.3 * float(name)


# ---- The planner -----------------------------------------------------------------------------------------------------


def valley(goal):
    """A point in the plane that moves by 0.3 of its action, around a hill between it and its goal."""

    def reward(z, action):
        near = jnp.sum((z + 0.3 * action - goal) ** 2, axis=-1)
        hill = jnp.exp(-20 * jnp.sum((z + 0.3 * action - 0.5 * goal) ** 2, axis=-1))
        return -near - hill - 0.05 * jnp.sum(action**2, axis=-1)

    return World(
        step=lambda z, action: z + 0.3 * action,
        reward=reward,
        value=lambda z, key: -jnp.sum((z - goal) ** 2, axis=-1),
        prior=lambda z, key: jnp.zeros_like(z),
    )


def test_plans_are_as_good_as_the_best_of_all():
    world = valley(jnp.array([0.6, 0.1]).reshape(1, 1, 2))
    search = Search(2, 512, 8, 32, 8, temperature=10.0, min_std=0.02, max_std=2.0, discounting=0.9)
    z = jnp.array([[0.0, 0.0], [0.5, -0.4], [-0.3, 0.3]])
    found = jax.jit(lambda z, mean, key: plan(world, search, z, mean, key, False))(
        z, jnp.zeros((3, 2, 2)), jax.random.PRNGKey(0)
    )
    grid = np.linspace(-1, 1, 15)
    every = np.array(list(itertools.product(grid, repeat=4)), np.float32).reshape(-1, 2, 2)  # [K, H, A]
    every = jnp.asarray(np.repeat(np.moveaxis(every, 1, 0)[:, None], 3, axis=1))
    value = lambda actions: returns(  # noqa: E731
        world, 0.9, jnp.repeat(z[:, None], actions.shape[2], axis=1), actions, jax.random.PRNGKey(0)
    )
    best = jnp.max(value(every), axis=1)
    reached = value(jnp.moveaxis(found.actions, 1, 0)[:, :, None])[:, 0]
    nothing = value(jnp.zeros((2, 3, 1, 2)))[:, 0]
    assert bool(jnp.all(reached > best - 0.02)) and bool(jnp.all(best - nothing > 0.1))
    assert float(jnp.max(jnp.abs(found.actions))) <= 1


def test_values_that_are_no_numbers_count_as_nothing():
    world = valley(jnp.zeros((1, 1, 2)))._replace(value=lambda z, key: jnp.full(z.shape[:2], jnp.nan))
    value = returns(world, 0.9, jnp.ones((2, 4, 2)), jnp.ones((3, 2, 4, 2)), jax.random.PRNGKey(0))
    np.testing.assert_array_equal(value, np.zeros((2, 4)))


def test_a_search_begins_where_the_last_one_ended_one_step_later():
    """A made-up planner that finds what it was given plus 1."""

    def found(agent, z, mean, key, explore):
        return Plan(mean + 10 * explore, mean + 1)

    planner = Planner(3, 1, 1, lambda agent, state, goal: state, found, None, None)
    held = replanning(planner)
    warm, seen = held.start(None, 2), []
    for _ in range(3):
        action, warm = held.mode(None, warm, jnp.zeros((2, 1)), jnp.zeros((2, 0)))
        seen.append(warm.mean[0, :, 0])
        np.testing.assert_array_equal(action[:, 0], [len(seen) - 1] * 2)  # what was given, without noise
    np.testing.assert_array_equal(seen, [[1, 1, 1], [2, 2, 1], [3, 2, 1]])
    np.testing.assert_array_equal(warm.decisions, [3, 3])
    assert float(held.act(None, warm, jnp.zeros((2, 1)), jnp.zeros((2, 0)), None)[0][0, 0]) == 12


def searched(prior=0.0, explore=False, start=0.0, num=1, **changes):
    """A plan of one step for `num` points at the origin that want to go right as far as they can."""
    world = valley(jnp.zeros((1, 1, 1)))._replace(
        reward=lambda z, action: action[..., 0],
        value=lambda z, key: jnp.zeros(z.shape[:-1]),
        prior=lambda z, key: jnp.full_like(z, prior),
    )
    numbers = {"temperature": 10.0, "min_std": 0.05, "max_std": 0.05} | changes
    search = Search(1, 64, 1, 8, 1, discounting=0.9, **numbers)
    mean = jnp.full((num, 1, 1), start)
    return plan(world, search, jnp.zeros((num, 1)), mean, jax.random.PRNGKey(0), explore)


def test_a_search_begins_around_its_mean():
    """With a standard deviation of 0.05 the best of 64 are 0.06 to 0.2 farther right, wherever that is."""
    for start in (0.0, -0.5):
        found = float(searched(prior=-1.0, start=start).mean[0, 0, 0]) - start
        assert 0.06 < found < 0.2


def test_sequences_of_the_prior_are_among_those_that_are_compared():
    assert float(searched(prior=0.9, temperature=100.0).actions[0, 0, 0]) == pytest.approx(0.9)
    assert float(searched(prior=-0.9, temperature=100.0).actions[0, 0, 0]) < 0.3


def test_the_prior_chooses_from_where_its_last_action_led():
    """A world that moves by its action, and a policy that acts as it stands: every action is twice the one before."""
    world = valley(jnp.zeros((1, 1, 2)))._replace(step=lambda z, action: z + action, prior=lambda z, key: z)
    search = Search(3, 16, 2, 4, 1, temperature=1.0, min_std=0.1, max_std=2.0, discounting=0.9)
    z = normal(0, 4, 2)
    actions = rollout_prior(world, search, z, jax.random.PRNGKey(0))
    assert actions.shape == (3, 4, 2, 2)
    for t, factor in enumerate((1, 2, 4)):
        for k in range(2):
            np.testing.assert_allclose(actions[t, :, k], factor * z, rtol=1e-6)


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


def test_what_is_found_is_drawn_from_the_elites_by_their_weights():
    """With much weight on values it is the best of 8 elites, with none any of them."""
    best, any_of_them = (searched(num=200, temperature=each).actions[:, 0, 0] for each in (1e4, 0.0))
    behind = np.asarray(best - any_of_them)
    assert behind.min() > -1e-6 and 0.02 < behind.mean() < 0.2
    assert 0.05 < np.mean(behind < 1e-6) < 0.25  # one in eight is the best one


def test_exploration_adds_noise_of_the_last_standard_deviation():
    sizes = {"num": 500, "min_std": 0.01, "max_std": 0.01}
    calm, noisy = (np.asarray(searched(explore=explore, **sizes).actions[:, 0, 0]) for explore in (False, True))
    assert 0.009 < np.std(noisy - calm) < 0.011 and abs(np.mean(noisy - calm)) < 0.002


def test_until_the_first_update_actions_are_uniform():
    agent = agent_of()
    state, num = agent.init(jax.random.PRNGKey(0)), 300
    held = agent.memory.start(state, num)
    args = held, normal(1, num, 5), normal(2, num, 2), jax.random.PRNGKey(3)
    action, after = agent.memory.act(state, *args)
    assert stats.kstest(np.asarray(action).ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    jax.tree.map(np.testing.assert_array_equal, after, held)
    action, after = agent.memory.act(state._replace(updates=jnp.int32(1)), *args)
    assert action.shape == (num, 3) and int(after.decisions[0]) == 1
    assert stats.kstest(np.asarray(action).ravel(), stats.uniform(-1, 2).cdf).pvalue < 1e-6


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


# ---- The update ------------------------------------------------------------------------------------------------------


def test_a_number_may_stand_for_a_size():
    assert flags.set_in((Flags(), TDMPC2Config()), {"model_size": 1}, {})[1].model_size == "1"
    with pytest.raises(FlagError, match="--model_size is 2; it must be text"):
        flags.set_in((Flags(), TDMPC2Config()), {"model_size": 2}, {})


def test_two_different_q_are_drawn_of_all():
    model = WorldModel(TDMPC2Config(**SMALL).size, SPEC, 0.0)
    critic = [{"which": jnp.int32(i)} for i in range(5)]
    draw = jax.jit(jax.vmap(lambda key: jnp.stack([one["which"] for one in model.two_of(critic, key)])))
    drawn = np.asarray(draw(jax.random.split(jax.random.PRNGKey(0), 400)))
    pairs, times = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in itertools.combinations(range(5), 2)] and times.min() > 15


def test_an_update_is_one_step_of_adam():
    """From nothing, by hand: its length is the rate; the encoder is slower, targets follow."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0})
    rate, slower, tau = config.model_lr, config.encoder_lr_scale, config.tau
    state, key = agent_of(num_q=2, dropout=0.0).init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2)
    busy = jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), state.params)
    state = state._replace(params=busy, target=busy["critic"])
    after, _ = jax.jit(agent_of(num_q=2, dropout=0.0).update)(state, small_batch(), key)
    moved = jax.tree.map(lambda new, old: np.abs(np.asarray(new - old)), after.params, state.params)
    largest = {name: max(leaf.max() for leaf in jax.tree.leaves(part)) for name, part in moved.items()}
    for name, size in {"encoder": slower * rate, "dynamics": rate, "reward": rate, "critic": rate}.items():
        np.testing.assert_allclose(largest[name], size, rtol=1e-2, err_msg=name)  # Adam's first step is of this length
    assert 0.5 * config.policy_lr < largest["actor"] <= 1.01 * config.policy_lr
    for slow, new, old in zip(
        *map(jax.tree.leaves, (after.target, after.params["critic"], busy["critic"])), strict=True
    ):
        np.testing.assert_allclose(slow, old + tau * (new - old), rtol=0, atol=1e-7)
        assert np.abs(new - old).max() == 0 or not np.array_equal(slow, old)


def test_losses_equal_loops():
    """Of one sample and one step after the other; two Q, so that which two are drawn is known."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0, "rho": 0.7})
    agent, batch = agent_of(num_q=2, dropout=0.0, rho=0.7), small_batch()
    state, key = agent.init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2)
    busy = lambda tree: jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), tree)  # noqa: E731
    state = state._replace(params=busy(state.params), target=busy(busy(state.target)))
    after, metrics = jax.jit(agent.update)(state, batch, key)
    assert int(after.updates) == 1
    model, params, path = WorldModel(config.size, SPEC, 0.0), state.params, batch.path
    draw_key, _ = jax.random.split(jax.random.split(key)[0])
    after = model.encode(params, jnp.moveaxis(path.state[:, 1:], 1, 0), jnp.broadcast_to(batch.goal, (3, 6, 2)))
    action = model.draw(params, after, draw_key)  # as drawn in the update
    consistency = reward = value = mean_target = 0.0
    for b, t in itertools.product(range(6), range(3)):
        z = model.encode(params, path.state[b, 0], batch.goal[b])
        for before in range(t):
            z = model.step(params, z, path.action[b, before])
        q_next = [float(decode(logits)) for logits in model.q(state.target, after[t, b], action[t, b])]
        target = float(path.reward[b, t]) + float(path.discount[b, t]) * min(q_next)
        weight, u = float(path.stored[b, t]) * 0.7**t / 3 / 6, path.action[b, t]
        consistency += weight * float(np.mean((model.step(params, z, u) - after[t, b]) ** 2))
        reward += weight * float(cross_entropy(model.reward(params, z, u), path.reward[b, t]))
        both = model.q(params["critic"], z, u)
        value += weight * float(sum(cross_entropy(q, jnp.float32(target)) for q in both)) / 2
        mean_target += target / 18
    for name, expected in {
        "consistency_loss": consistency,
        "reward_loss": reward,
        "critic_loss": value,
        "q_target": mean_target,
    }.items():
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("size", [0.1, 100.0])
def test_gradients_have_their_weights_and_are_clipped(size):
    """Adam's first mean is a tenth of what it saw, of gradients below and above the length from which they are cut."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0})
    agent, batch, key = agent_of(num_q=2, dropout=0.0), small_batch(), jax.random.PRNGKey(2)
    state = agent.init(jax.random.PRNGKey(1))
    busy = jax.tree.map(lambda leaf: leaf + size * normal(leaf.size, *leaf.shape), state.params)
    state = state._replace(params=busy, target=busy["critic"])
    model, slices = WorldModel(config.size, SPEC, 0.0), config.slices(batch, SPEC)
    draw_key, _ = jax.random.split(jax.random.split(key)[0])
    after = model.encode(busy, slices.state[1:], slices.goal[1:])
    q = [decode(logits) for logits in model.q(busy["critic"], after, model.draw(busy, after, draw_key))]
    target = slices.reward + slices.discount * jnp.minimum(*q)

    def published(params):
        parts = model_loss(model, config.rho, params, slices, after, target, key)[1][1]
        return 20 * parts["consistency_loss"] + 0.1 * parts["reward_loss"] + 0.1 * parts["critic_loss"]

    gradient = jax.jit(jax.grad(published))(busy)
    del gradient["actor"]
    length = float(optax.tree.norm(gradient))
    assert (length > 20) == (size > 1), length
    after, _ = jax.jit(agent.update)(state, batch, key)
    seen = optax.tree.get(after.optimizer.inner_states["model"], "mu")
    for name, part in gradient.items():
        for leaf, expected in zip(*map(jax.tree.leaves, (seen[name], part)), strict=True):
            np.testing.assert_allclose(leaf, 0.1 * min(1, 20 / length) * expected, rtol=1e-3, atol=1e-4)


def test_the_prior_is_between_its_two_spreads():
    """From exp(-10) to exp(2), as published."""
    model = WorldModel(TDMPC2Config(**SMALL).size, SPEC, 0.0)
    params, z = model.init(jax.random.PRNGKey(0)), sim_norm(normal(0, 4, 16))
    last = "Dense_2"
    for bias, expected in ((-9.0, -10), (0.0, -4), (9.0, 2)):
        leaves = params["actor"]["params"]
        moved = {**leaves[last], "bias": jnp.full(6, bias), "kernel": jnp.zeros_like(leaves[last]["kernel"])}
        mean, log_std = model.policy({**params, "actor": {"params": {**leaves, last: moved}}}, z)
        np.testing.assert_allclose(mean, bias)
        np.testing.assert_allclose(log_std, expected, atol=1e-5)


def test_a_search_may_have_no_sequences_of_the_prior():
    agent = agent_of(num_prior=0)
    state = agent.init(jax.random.PRNGKey(0))
    assert jnp.all(jnp.isfinite(jax.jit(agent.mode)(state, normal(0, 4, 5), normal(1, 4, 2))))


def test_loss_of_the_policy_prior_equals_a_loop():
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "entropy_weight": 0.1})
    model = WorldModel(config.size, SPEC, 0.0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), model.init(jax.random.PRNGKey(0)))
    z, key, old = sim_norm(normal(3, 4, 6, 16)), jax.random.PRNGKey(5), jnp.float32(2)
    loss, (scale, metrics) = policy_loss(config, model, params, z, old, key)
    noise = normal_of(jax.random.split(key)[0], 4, 6, 3)
    q, entropy = np.zeros((4, 6)), np.zeros((4, 6))
    for t, b in itertools.product(range(4), range(6)):
        mean, log_std = (np.asarray(x, float) for x in model.policy(params, z[t, b]))
        before = mean + np.exp(log_std) * noise[t, b]
        both = model.q(params["critic"], z[t, b], jnp.tanh(jnp.asarray(before, jnp.float32)))
        q[t, b] = np.mean([float(decode(logits)) for logits in both])
        log_density = -0.5 * ((before - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        entropy[t, b] = -3 * np.sum(log_density)
    expected_scale = 2 + 0.01 * (max(np.percentile(q[0], 95) - np.percentile(q[0], 5), 1) - 2)
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-5)
    expected = -np.mean([0.5**t * np.mean(0.1 * entropy[t] + q[t] / expected_scale) for t in range(4)])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean() / 3, rtol=1e-4)


def normal_of(key, *shape):
    return np.asarray(jax.random.normal(key, shape), float)


def test_over_time():
    values = jnp.array([[1.0, 3.0], [4.0, 0.0], [8.0, 8.0]])
    np.testing.assert_allclose(over_time(values, 0.5), (2 + 0.5 * 2 + 0.25 * 8) / 3)


@pytest.mark.slow
def test_the_prior_does_not_train_the_model_nor_the_other_way_round():
    """What only one of the losses sees changes the networks of that one alone."""
    agent, batch, key = agent_of(), small_batch(), jax.random.PRNGKey(0)
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(7))
    # Fresh values are 0 everywhere, and tell the prior nothing.
    keys = iter(jax.random.split(key, 100))
    state = state._replace(
        params=jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), state.params)
    )
    params = update(state, batch, key)[0].params
    divided = update(state._replace(scale=jnp.float32(50)), batch, key)[0].params
    rewarded = update(state, batch._replace(path=batch.path._replace(reward=batch.path.reward + 1)), key)[0].params
    for name in params:
        assert equal(params[name], divided[name]) == (name != "actor")
    assert equal(params["actor"], rewarded["actor"]) and not equal(params["reward"], rewarded["reward"])


@pytest.mark.slow
def test_losses_fall_on_a_fixed_batch():
    agent, batch = agent_of(model_lr=1e-2), small_batch()
    update, state, seen = jax.jit(agent.update), agent.init(jax.random.PRNGKey(7)), []
    for i in range(80):
        state, metrics = update(state, batch, jax.random.PRNGKey(i))
        assert all(value.shape == () and bool(jnp.isfinite(value)) for value in metrics.values())
        seen.append([float(metrics[name]) for name in ("consistency_loss", "reward_loss")])
    first, last = np.mean(seen[:5], axis=0), np.mean(seen[-5:], axis=0)
    assert last[1] < 0.7 * first[1] and np.isfinite(last[0])


def test_hindsight_replaces_the_first_goals_and_their_rewards():
    batch = small_batch()
    slices = TDMPC2Config(use_her=True, her_ratio=0.5).slices(batch, SPEC)
    assert slices.state.shape == (4, 6, 5) and slices.goal.shape == (4, 6, 2) and slices.reward.shape == (3, 6)
    for b in range(6):
        goal = batch.future_state[b, jnp.array([1, 3])] if b < 3 else batch.goal[b]
        reward = batch.path.future_reward[b] if b < 3 else batch.path.reward[b]
        np.testing.assert_array_equal(slices.reward[:, b], reward)
        for t in range(4):
            np.testing.assert_array_equal(slices.goal[t, b], goal)


def test_rewards_of_achieved_goals_on_the_way():
    spec = SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,), goal_reach_thresh=0.5)
    ring, needs = filled_ring(0), Needs(horizon=3)
    batch = buffer.sample(ring, jax.random.PRNGKey(0), 64, spec, 5, needs)
    way, goal = np.asarray(batch.path.state[:, 1:, 0]), np.asarray(batch.future_state[:, 0])
    np.testing.assert_array_equal(batch.path.future_reward, np.abs(way - goal[:, None]) < 0.5)
    assert 0 < float(jnp.mean(batch.path.future_reward)) < 1
    np.testing.assert_array_equal(batch.path.future_reward[:, 0], batch.future_reward)


@pytest.mark.slow
def test_without_goals():
    spec = SPEC._replace(goal_size=0, goal_indices=())
    agent, batch = agent_of(spec), small_batch(goal_size=0)
    state, metrics = jax.jit(agent.update)(agent.init(jax.random.PRNGKey(0)), batch, jax.random.PRNGKey(1))
    assert agent.score is None and all(bool(jnp.isfinite(value)) for value in metrics.values())
    action, _ = agent.memory.mode(state, agent.memory.start(state, 4), jnp.ones((4, 5)), jnp.zeros((4, 0)))
    assert action.shape == (4, 3)
    assert agent.mode(state, jnp.ones(5), jnp.zeros(0)).shape == (3,)
    with pytest.raises(FlagError, match="--use_her learns from achieved goals"):
        agent_of(spec, use_her=True)


# ---- Flags -----------------------------------------------------------------------------------------------------------

CHANGES = {"num_q": 4, "latent_dim": 8, "h_dim": 9, "encoder_dim": 9, "policy_lr": 0.1, "model_lr": 0.1, "tau": 0.5}
CHANGES |= {"her_ratio": 0.2, "horizon": 4, "min_std": 1.0, "max_std": 0.3, "temperature": 50.0, "dropout": 0.5}
CHANGES |= {"entropy_weight": 0.5, "rho": 0.9, "encoder_lr_scale": 30.0, "her_strategy": "goal_law"}
CHANGES |= {"num_samples": 17, "num_prior": 5, "num_elites": 5, "iterations": 3, "use_her": True, "model_size": "1"}
CHANGES |= {"plan_horizon": 4, "exec_horizon": 4, "mismatch": 100.0, "replans": 0.5}
NEEDED = {
    "mismatch": {"exec_horizon": 2},
    "exec_horizon": {"exec_horizon": 2, "mismatch": 100.0},
    "her_ratio": {"use_her": True},
    "her_strategy": {"use_her": True},
    "model_size": {"latent_dim": 0},
}


def program(**flags):
    agent = agent_of(**flags)
    return programs(agent, small_batch(agent.needs.horizon), SPEC.discounting)


@pytest.fixture(scope="module")
def unchanged():
    """(other flags) -> the program with them; kept."""
    return functools.cache(lambda flags: program(**dict(flags)))


@pytest.mark.slow
def test_equal_flags_make_equal_programs(unchanged):
    assert program() == unchanged(())


@pytest.mark.slow
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TDMPC2Config)])
def test_every_flag_changes_something(name, unchanged):
    needed = NEEDED.get(name, {})
    assert program(**{**needed, name: CHANGES[name]}) != unchanged(tuple(needed.items()))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_elites": 17}, "--num_elites is 17; it must be at most --num_samples 16."),
        ({"num_prior": 17}, "--num_prior is 17; it must be at most --num_samples 16."),
        ({"min_std": 3.0}, "--min_std is 3; it must be at most --max_std 2."),
        ({"latent_dim": 12}, "--latent_dim is 12; it must be a multiple of 8, for example 16."),
        ({"num_q": 1}, "--num_q is 1; it must be at least 2, or 0."),
    ],
)
def test_what_does_not_fit_is_one_sentence(flags, words):
    with pytest.raises(FlagError) as error:
        agent_of(**flags)
    assert str(error.value) == words


def test_long_actions_take_two_more_iterations():
    iterations = [TDMPC2Config().search(SPEC._replace(action_size=size), 3).iterations for size in (19, 20)]
    assert iterations == [6, 8]


# ---- In the loop -----------------------------------------------------------------------------------------------------


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
