"""Tests of SAC, TD3 and GCBC: Bellman targets against numpy, known Q-values, delayed updates, several seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.agents.q_learning import TwinCritic, bellman_target
from goalax.core.types import Batch, Spec
from tests.helpers.baselines import GAMMA, Q_AGENTS, SIZE, made_up_batch, make


@pytest.fixture(scope="module")
def batch():
    return made_up_batch()


# ---- Bellman targets ----


def numpy(tree):
    """The same with 64 bits in numpy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), tree)


def network(params, *inputs):
    """A network with one hidden layer and no LayerNorm, in numpy."""
    first, last = (params[f"Dense_{i}"] for i in (0, 1))
    hidden = np.concatenate(inputs, axis=-1) @ first["kernel"] + first["bias"]
    return hidden / (1 + np.exp(-hidden)) @ last["kernel"] + last["bias"]


def values(critics, *inputs):
    """The value of each critic, [2, B]."""
    return np.stack([network(critic["params"], *inputs)[:, 0] for critic in critics])


def sac_action(params, observed, goal, key):
    """A draw of the policy, and its entropy times the temperature."""
    mean, raw = np.split(network(params["actor"]["params"]["MLP_0"], observed, goal), 2, axis=-1)
    std = np.exp(-5 + 3.5 * (np.tanh(raw) + 1))
    noise = numpy(jax.random.normal(key, mean.shape))
    action = np.tanh(mean + std * noise)
    density = np.exp(-0.5 * noise**2) / (std * np.sqrt(2 * np.pi)) / (1 - action**2)
    return action, -np.exp(params["log_alpha"]) * np.log(density).sum(-1)


def sac_next_value(state, batch, key):
    action, entropy = sac_action(state.params, batch.next_state, batch.goal, jax.random.split(key)[0])
    return values(state.target, batch.next_state, batch.goal, action).min(0) + entropy


def td3_next_value(state, batch, key):
    action = np.tanh(network(state.target["actor"]["params"]["MLP_0"], batch.next_state, batch.goal))
    noise = np.clip(0.4 * numpy(jax.random.normal(key, action.shape)), -0.3, 0.3)
    action = np.clip(action + noise, -1, 1)
    return values(state.target["critic"], batch.next_state, batch.goal, action).min(0)


@pytest.mark.parametrize(
    ("name", "next_value", "flags"),
    [("sac", sac_next_value, {}), ("td3", td3_next_value, {"target_noise": 0.4, "noise_clip": 0.3})],
)
def test_target_and_loss_equal_numpy(name, next_value, flags, batch):
    rates = {"policy_lr": 0.03, "critic_lr": 0.03}  # so that networks and targets part
    agent = make(name, h_dim=16, n_hidden=1, use_ln=False, reward_scaling=3.0, tau=0.2, **rates, **flags)
    state, update, samples = agent.init(jax.random.PRNGKey(0)), jax.jit(agent.update), numpy(batch)
    for i in range(4):
        key, before = jax.random.PRNGKey(i), numpy(state)
        target = 3 * samples.reward + samples.discount * next_value(before, samples, key)
        q = values(before.params["critic"], samples.state, samples.goal, samples.action)
        state, metrics = update(state, batch, key)
        np.testing.assert_allclose(metrics["q_target"], target.mean(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["q"], q[0].mean(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["critic_loss"], ((q - target) ** 2).sum(0).mean(), rtol=1e-4)


def test_the_actor_of_sac_goes_by_the_lower_critic(batch):
    """Of two that were moved apart, so that each is the lower one somewhere."""
    agent, key = make("sac", h_dim=16, n_hidden=1, use_ln=False), jax.random.PRNGKey(3)
    state = agent.init(jax.random.PRNGKey(0))
    move = lambda leaf, i: leaf + 0.3 * jax.random.normal(jax.random.PRNGKey(leaf.size + i), leaf.shape)  # noqa: E731
    critic = [jax.tree.map(lambda leaf, i=i: move(leaf, i), one) for i, one in enumerate(state.params["critic"])]
    state = state._replace(params=state.params | {"critic": critic})
    _, metrics = jax.jit(agent.update)(state, batch, key)
    samples, params = numpy(batch), numpy(state.params)
    action, entropy = sac_action(params, samples.state, samples.goal, jax.random.split(key)[1])
    q = values(params["critic"], samples.state, samples.goal, action)
    assert (q[0] < q[1]).any() and (q[0] > q[1]).any()
    np.testing.assert_allclose(metrics["actor_loss"], -np.mean(q.min(0) + entropy), rtol=1e-4)


def test_only_a_termination_cuts_the_bootstrap(batch):
    target = bellman_target(batch, jnp.full(SIZE, 7.0), 2.0)
    np.testing.assert_allclose(target[::3], 2 * batch.reward[::3], rtol=1e-6)
    np.testing.assert_allclose(target[1::3], 2 * batch.reward[1::3] + GAMMA * 7, rtol=1e-6)


def test_slow_parameters_follow_by_tau(batch):
    agent = make("sac", h_dim=8, critic_lr=0.1, tau=0.2)
    before = agent.init(jax.random.PRNGKey(0))
    after, _ = jax.jit(agent.update)(before, batch, jax.random.PRNGKey(1))
    expected = jax.tree.map(lambda slow, new: 0.8 * slow + 0.2 * new, before.target, after.params["critic"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.target, expected)


# ---- Known Q-values ----


def chain_batch(key, size, terminal):
    """Samples of two states A and B, one-hot: an action > 0 leads from A to B, and nothing leads back.

    The commanded goal is always A, so that goal B is known from hindsight alone. Where B is terminal, no transition
    starts there.
    """
    keys = jax.random.split(key, 3)
    here = jax.random.bernoulli(keys[0], 0.0 if terminal else 0.5, (size,))
    action = jax.random.uniform(keys[1], (size, 1), minval=-1)
    then = here | (action[:, 0] > 0)
    later = then | jax.random.bernoulli(keys[2], 0.5, (size,))
    state, next_state, future_state = (jax.nn.one_hot(x.astype(int), 2) for x in (here, then, later))
    return Batch(
        state=state,
        action=action,
        next_state=next_state,
        goal=jax.nn.one_hot(jnp.zeros(size, int), 2),
        future_state=future_state,
        future_action=action,
        reward=(~then).astype(jnp.float32),
        future_reward=(then == later).astype(jnp.float32),
        discount=jnp.where(then & terminal, 0.0, 0.5),
    )


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", Q_AGENTS)
def test_values_of_a_chain_are_known(name, terminal):
    spec = Spec(2, 2, 1, (0, 1), 0.5, goal_reach_thresh=0.5)
    flags = {"disable_entropy_actor": True} if name == "sac" else {"saturation_penalty": 0.0, "target_noise": 0.05}
    rates = {"policy_lr": 1e-3, "critic_lr": 1e-3, "tau": 0.1}
    agent = make(name, spec, use_her=True, her_ratio=0.5, h_dim=64, **rates, **flags)

    @jax.jit
    def train(state, key):
        def step(state, key):
            batch_key, key = jax.random.split(key)
            return agent.update(state, chain_batch(batch_key, 128, terminal), key)[0], None

        return jax.lax.scan(step, state, jax.random.split(key, 2000))[0]

    state = train(agent.init(jax.random.PRNGKey(0)), jax.random.PRNGKey(1))
    at_goal = 1.0 if terminal else 2.0  # B for ever: 1 + 0.5 + 0.25 + ...
    expected = {  # (state, goal, action): discounted number of steps at the goal under the best policy
        ("A", "B", 1): at_goal,
        ("A", "B", -1): 0.5 * at_goal,
        ("A", "A", -1): 2.0,
        ("A", "A", 1): 0.0,
    }
    if not terminal:
        expected |= {("B", "B", 1): 2.0, ("B", "B", -1): 2.0, ("B", "A", 1): 0.0, ("B", "A", -1): 0.0}
    one_hot = {"A": np.eye(2)[0], "B": np.eye(2)[1]}
    observed, goal = (np.stack([one_hot[case[i]] for case in expected]) for i in (0, 1))
    action = np.array([[0.7 * case[2]] for case in expected])
    score = TwinCritic(AGENTS[name].config(h_dim=64), spec).lower(state.params["critic"], observed, goal, action)
    np.testing.assert_allclose(score, list(expected.values()), atol=0.15, err_msg=str(list(expected)))
    assert agent.mode(state, one_hot["A"], one_hot["B"]) > 0 > agent.mode(state, one_hot["A"], one_hot["A"])


# ---- TD3, GCBC, seeds ----


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actor_and_targets_move_once_per_delay(delay, batch):
    agent = make("td3", h_dim=8, policy_delay=delay)
    state, update = agent.init(jax.random.PRNGKey(0)), jax.jit(agent.update)
    moved = {"actor": [], "critic": [], "slow actor": [], "slow critic": []}
    for i in range(6):
        after, _ = update(state, batch, jax.random.PRNGKey(i))
        for prefix, field in {"": "params", "slow ": "target"}.items():
            for name in ("actor", "critic"):
                pair = (jax.tree.leaves(getattr(x, field)[name]) for x in (state, after))
                moved[prefix + name].append(any((a != b).any() for a, b in zip(*pair, strict=True)))
        state = after
    due = [i % delay == 0 for i in range(1, 7)]
    assert moved == {"actor": due, "critic": [True] * 6, "slow actor": due, "slow critic": due}


def test_saturation_penalty(batch):
    """The loss of the actor with and without the penalty differs by the weighted mean of squares before tanh."""
    without, weighted = (make("td3", h_dim=8, policy_delay=1, saturation_penalty=weight) for weight in (0.0, 3.0))
    state, key = without.init(jax.random.PRNGKey(0)), jax.random.PRNGKey(1)
    losses = [jax.jit(agent.update)(state, batch, key)[1]["actor_loss"] for agent in (without, weighted)]
    before_tanh = np.arctanh(np.asarray(without.mode(state, batch.state, batch.goal), float))
    np.testing.assert_allclose(losses[1] - losses[0], 3 * np.mean(before_tanh**2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["td3", "gcbc"])
def test_exploration_noise(name):
    agent = make(name, h_dim=8, exploration_noise=0.3)
    state, observed, goal = agent.init(jax.random.PRNGKey(0)), jnp.zeros((4000, 3)), jnp.zeros((4000, 2))
    noise = agent.act(state, observed, goal, jax.random.PRNGKey(1)) - agent.mode(state, observed, goal)
    np.testing.assert_allclose(noise.std(axis=0), 0.3, rtol=0.05)


def test_gcbc_learns_the_action_that_led_to_the_goal():
    spec = Spec(1, 1, 1, (0,), 0.9, goal_reach_thresh=0.1)
    agent = make("gcbc", spec, h_dim=64, policy_lr=3e-3)
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
    zero = jnp.zeros(256)
    for key in jax.random.split(jax.random.PRNGKey(1), 300):
        here, action = jax.random.uniform(key, (2, 256, 1), minval=-0.8, maxval=0.8)
        there, unused = here + action, jnp.full((256, 1), 9.0)
        state, _ = update(state, Batch(here, action, there, unused, there, unused, zero, zero, zero), key)
    here, goal = jnp.array([[-0.5], [0.0], [0.5]]), jnp.array([[0.0], [-0.6], [0.4]])
    np.testing.assert_allclose(agent.mode(state, here, goal), goal - here, atol=0.1)


@pytest.mark.parametrize("name", [*Q_AGENTS, "gcbc"])
def test_vmap_over_seeds_equals_each_alone(name, batch):
    agent = make(name, h_dim=8)

    update, update_both = jax.jit(agent.update), jax.jit(jax.vmap(agent.update, in_axes=(0, None, 0)))
    alone = [agent.init(jax.random.PRNGKey(seed)) for seed in range(2)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    for i in range(4):
        keys = jax.random.split(jax.random.PRNGKey(i), 2)
        alone = [update(state, batch, key)[0] for state, key in zip(alone, keys, strict=True)]
        together, _ = update_both(together, batch, keys)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state.params for state in alone))
    for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_sac_and_td3_share_the_flags_of_q_learning():
    names = {name: {field.name for field in dataclasses.fields(AGENTS[name].config)} for name in Q_AGENTS}
    own = {"sac": {"alpha_init", "alpha_lr", "disable_entropy_actor", "target_entropy_scale"}}
    own["td3"] = {"policy_delay", "target_noise", "noise_clip", "exploration_noise", "saturation_penalty"}
    assert names["sac"] - own["sac"] == names["td3"] - own["td3"]
