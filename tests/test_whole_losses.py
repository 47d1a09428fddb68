"""Losses of whole agents, put together: each by NumPy from the formulas, with the networks' outputs as they are."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.agents.extraction import linear_actor
from goalax.agents.pretraining import joined, uniform_latents
from goalax.agents.q_learning import TwinCritic
from goalax.core.types import Batch, Spec
from goalax.learning.networks import deterministic_actor, gaussian_actor, sample_action

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
SPEC = SPEC._replace(max_decisions=20)
SIZE = 12
DISCOUNT = 0.9 * (np.arange(SIZE) % 4 > 0)  # 0, 4 and 8 end for good
AT_GOAL = np.arange(SIZE) % 8 == 0  # where 4 is not
SMALL = {"h_dim": 8, "n_hidden": 2, "repr_dim": 16}
NEAR_DATA = {"bc_weight": 0.1, "actor_relabel": "uniform"}


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


BATCH = Batch(
    state=normal(0, SIZE, 5),
    action=jnp.tanh(normal(5, SIZE, 3)),
    next_state=normal(1, SIZE, 5),
    goal=normal(6, SIZE, 2),
    future_state=normal(2, SIZE, 5),
    future_action=jnp.tanh(normal(7, SIZE, 3)),
    reward=normal(11, SIZE),
    future_reward=jnp.asarray(AT_GOAL, jnp.float32),
    discount=jnp.asarray(DISCOUNT, jnp.float32),
    actor_state=normal(3, SIZE, 5),
    same=jnp.zeros(SIZE),
    next_action=jnp.tanh(normal(8, SIZE, 3)),
)


def double(x):
    return np.asarray(x, np.float64)


def both(*parts):
    return jnp.concatenate([jnp.asarray(part, jnp.float32) for part in parts], axis=-1)


def log_density(mean):
    return (-0.5 * (double(BATCH.action) - double(mean)) ** 2 - 0.5 * np.log(2 * np.pi)).sum(axis=-1)


def near_data(value, mean, weight):
    """Loss of an actor that maximises a value near stored actions."""
    return -value.mean() / (np.abs(value).mean() + 1e-6) - weight * log_density(mean).mean()


def updated(name, **flags):
    """The config of an agent, a new one whose target networks lie elsewhere, and the metrics of its first update."""
    known = AGENTS[name].config.__dataclass_fields__
    small = {flag: value for flag, value in SMALL.items() if flag in known}
    config = AGENTS[name].config(**{**small, **flags})
    agent = AGENTS[name].make(config, SPEC)
    state = agent.init(jax.random.PRNGKey(0))
    if hasattr(state, "target"):
        elsewhere = jax.tree.map(lambda leaf: leaf + 0.2 * normal(leaf.size, *leaf.shape), state.target)
        state = state._replace(target=elsewhere)
    return config, state, jax.jit(agent.update)(state, BATCH, jax.random.PRNGKey(2))[1]


def close(metrics, **expected):
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, atol=1e-5, err_msg=name)


def mrn(x, y, components=4):
    x, y = (z.reshape(*z.shape[:-1], components, -1) for z in (x, y))
    half = x.shape[-1] // 2
    gain = np.maximum(x[..., :half] - y[..., :half], 0).max(axis=-1)
    return (gain + np.sqrt(((x[..., half:] - y[..., half:]) ** 2).sum(axis=-1) + 1e-6)).mean(axis=-1)


def test_tmd_as_published():
    """Backward InfoNCE, invariance and back-up of two critics, the lower one of which counts for the actor."""
    flags = {"contrastive_loss_fn": "infonce_backward", "distance": "mrn", "potential": False, "temperature": 4.0}
    flags |= {"critics": 2, "critic_goal": "state", "logsumexp_penalty": 0.0, "components": 4}
    config, state, metrics = updated("tmd", step_weight=0.0, invariance_weight=1.0, **flags, **NEAR_DATA)
    encoder = config.mlp(config.repr_dim)
    mean = deterministic_actor(config.mlp, 3).apply(state.params["actor"], BATCH.state, BATCH.actor_state[:, [1, 3]])
    total, values = 0.0, []
    for params in state.params["critic"]:

        def psi(states, params=params):
            return double(encoder.apply(params["psi_s"], states))

        def phi(action, params=params):
            return double(encoder.apply(params["phi"], both(BATCH.state, action)))

        x, y = phi(BATCH.action), psi(BATCH.future_state)
        d, later = mrn(x[:, None], y[None]), mrn(psi(BATCH.next_state)[:, None], y[None])
        ended = (DISCOUNT == 0)[:, None] & ~(np.eye(SIZE, dtype=bool) & AT_GOAL[:, None])
        later = np.where(ended, -20 * np.log(0.9), later)  # as far as an episode is long
        logits, delta = -d / 4, d - later
        contrastive = -np.mean(np.diag(logits) - np.log(np.exp(logits).sum(axis=0)))
        backup = np.where(delta > 3, delta, 0.9 * np.exp(delta) - d)
        tied = 0.05 * (0.5 * np.diag(backup).mean() + 0.5 * backup.mean())
        total += contrastive + mrn(psi(BATCH.state), x).mean() + tied
        values.append(-mrn(phi(jnp.clip(mean, -1, 1)), psi(BATCH.actor_state)))
    close(metrics, critic_loss=total, actor_loss=near_data(np.min(values, axis=0), mean, 0.1))


def test_cmd_as_published():
    """Binary NCE of distances alone over a temperature, two critics; a goal is read with another
    sample's action."""
    flags = {"contrastive_loss_fn": "binary", "distance": "mrn", "potential": False, "temperature": 4.0}
    config, state, metrics = updated("cmd", critics=2, logsumexp_penalty=0.0, components=4, **flags, **NEAR_DATA)
    encoder = config.mlp(config.repr_dim)
    total, others = 0.0, jnp.roll(BATCH.future_action, 1, axis=0)
    for params in state.params["critic"]:
        x = double(encoder.apply(params["encoder"], both(BATCH.state, BATCH.action)))
        y = double(encoder.apply(params["encoder"], both(BATCH.future_state, others)))
        logits, signs = -mrn(x[:, None], y[None]) / 4, 2 * np.eye(SIZE) - 1
        total += np.log1p(np.exp(-signs * logits)).mean()
    close(metrics, critic_loss=total)


def test_cmd2_as_published():
    """A contrastive critic f, and distances that learn f(g, a_g, g) - f(s, a, g), which is never below 0."""
    config, state, metrics = updated("cmd2", distance="mrn", components=4, energy_fn="l2", distillation_weight=0.7)
    params, encoder = state.params["critic"], config.mlp(config.repr_dim)
    goals, others = BATCH.future_state[:, [1, 3]], jnp.roll(BATCH.future_action, 1, axis=0)

    def phi(states, action):
        return double(encoder.apply(params["phi"], both(states, action)))

    def energy(x, y):
        return -np.sqrt(((x - y) ** 2).sum(axis=-1))

    psi = double(encoder.apply(params["psi"], goals))
    logits = energy(phi(BATCH.state, BATCH.action)[:, None], psi[None])
    taught = np.maximum(energy(phi(BATCH.future_state, others), psi)[None] - logits, 0)
    assert (taught == 0).any() and (taught > 0).any()
    x = double(encoder.apply(params["encoder"], both(BATCH.state, BATCH.action)))
    y = double(encoder.apply(params["encoder"], both(BATCH.future_state, others)))
    distillation = np.mean((mrn(x[:, None], y[None]) - taught) ** 2)
    close(metrics, distillation_loss=distillation)
    close(metrics, critic_loss=double(metrics["contrastive_loss"]) + 0.7 * distillation)


def iqe(x, y, alpha=0.5, components=4):
    """By walking along the intervals of every row."""
    lengths = np.zeros((len(x), x.shape[-1] // components))
    for i, row in np.ndindex(*lengths.shape):
        part = slice(row * components, (row + 1) * components)
        end = -np.inf
        for start, stop in sorted(zip(x[i, part], y[i, part], strict=True)):
            lengths[i, row] += max(0, stop - max(start, end))
            end = max(end, stop)
    return alpha * lengths.mean(axis=-1) + (1 - alpha) * lengths.max(axis=-1)


def test_qrl_as_published():
    flags = {"distance": "iqe", "multiplier": "exp", "multiplier_speed": 1.0, "dynamics_error": "distance"}
    config, state, metrics = updated("qrl", components=4, any_goals=1.0, **flags, **NEAR_DATA)
    params, network = state.params["critic"], config.mlp(config.repr_dim)

    def encode(states):
        return double(network.apply(params["encoder"], states))

    def predicted(action):
        return z + double(network.apply(params["dynamics"], both(z, action)))

    z, z_next, goal = encode(BATCH.state), encode(BATCH.next_state), encode(BATCH.future_state)
    push = np.mean(100 * np.log1p(np.exp(5 - iqe(z, np.roll(goal, 1, axis=0)) / 100)))
    excess = np.mean(np.maximum(iqe(z, z_next) - 1, 0) ** 2)
    guess = predicted(BATCH.action)
    dynamics = np.mean(iqe(z_next, guess) + iqe(guess, z_next)) / 2
    close(metrics, critic_loss=push + excess - (excess - 0.05) + dynamics)  # of a multiplier of 1, which climbs
    mean = deterministic_actor(config.mlp, 3).apply(state.params["actor"], BATCH.state, BATCH.actor_state[:, [1, 3]])
    value = -iqe(predicted(jnp.clip(mean, -1, 1)), encode(BATCH.actor_state))
    close(metrics, actor_loss=near_data(value, mean, 0.1))


def test_coordinates_of_qrl_are_no_step_away_from_who_achieves_them():
    config, state, metrics = updated("qrl", components=4, distance="iqe", critic_goal="goal")
    params, network = state.params["critic"], config.mlp(config.repr_dim)
    z, z_next = (double(network.apply(params["encoder"], states)) for states in (BATCH.state, BATCH.next_state))
    itself = double(network.apply(params["psi"], BATCH.state[:, [1, 3]]))
    close(metrics, step_excess=np.mean(np.maximum(iqe(z, z_next) - 1, 0) ** 2) + np.mean(iqe(z, itself) ** 2))


def test_pre_training_of_fb():
    config, state, metrics = updated("fb", n_hidden=1, repr_dim=4)
    params, slow, network = state.params["critic"], state.target, config.mlp(4)
    uniform_key, order_key, share_key = jax.random.split(jax.random.PRNGKey(2), 3)  # as in the update

    def backward(states, params=params):
        x = double(network.apply(params["backward"], states))
        return 2 * x / np.linalg.norm(x, axis=-1, keepdims=True)

    stored = double(jax.random.uniform(share_key, (SIZE, 1))) < 0.5
    of_states = backward(jax.random.permutation(order_key, BATCH.state))
    z = np.where(stored, of_states, double(uniform_latents(uniform_key, SIZE, 4)))
    goal, actor = joined(BATCH.goal, jnp.asarray(z, jnp.float32)), linear_actor(config.mlp, 3)

    def forward(states, action, params=params):
        return np.stack([double(network.apply(one, both(states, goal, action))) for one in params["forward"]])

    after = backward(BATCH.next_state)
    next_action = jnp.clip(actor.apply(state.params["actor"], BATCH.next_state, goal), -1, 1)
    target = (forward(BATCH.next_state, next_action, slow) @ backward(BATCH.next_state, slow).T).mean(axis=0)
    measure = forward(BATCH.state, BATCH.action) @ after.T
    others = ~np.eye(SIZE, dtype=bool)

    def off_diagonal(matrix):
        return (matrix * others).sum(axis=-1) / (SIZE - 1)

    errors = (measure - DISCOUNT[:, None] * target) ** 2
    loss = np.mean([0.5 * off_diagonal(error) - np.diag(one) for one, error in zip(measure, errors, strict=True)])
    products = after @ after.T
    orthonormal = np.mean(off_diagonal(products**2) - 2 * np.diag(products))
    mean = actor.apply(state.params["actor"], BATCH.state, goal)
    value = (forward(BATCH.state, jnp.clip(mean, -1, 1)) * z).sum(axis=-1).min(axis=0)
    close(metrics, critic_loss=loss + orthonormal, actor_loss=-value.mean() - 10 * log_density(mean).mean())


def test_fine_tuning_of_crl_infonce():
    config = AGENTS["crl_infonce"].config(h_dim=8, n_hidden=1, repr_dim=4)
    agent = AGENTS["crl_infonce"].make(config, SPEC)
    assert agent.switch is not None
    state = agent.init(jax.random.PRNGKey(0))
    tuned = agent.switch(state, BATCH, jax.random.PRNGKey(1))
    _, metrics = jax.jit(agent.update)(tuned, BATCH, jax.random.PRNGKey(2))
    params, network = state.params["critic"], config.mlp(4)

    def phi(action):
        return [double(network.apply(one, both(BATCH.state, action))) for one in params["phi"]]

    def psi(states):
        return [double(network.apply(one, states)) for one in params["psi"]]

    def rewards(states):
        return double(config.mlp(1).apply(params["reward"], both(states, BATCH.goal)))[:, 0]

    contrastive = []
    for x, y in zip(phi(BATCH.action), psi(BATCH.future_state), strict=True):
        logits = x @ y.T / 2
        total = np.log(np.exp(logits).sum(axis=1))
        contrastive.append((total - np.diag(logits)).mean() + 0.01 * (total**2).mean())
    error = np.mean((rewards(BATCH.next_state) - double(BATCH.reward)) ** 2)
    close(metrics, critic_loss=np.mean(contrastive) + error)
    mean = linear_actor(config.mlp, 3).apply(state.params["actor"], BATCH.state, BATCH.goal)
    pairs = zip(phi(jnp.clip(mean, -1, 1)), psi(BATCH.actor_state), strict=True)
    logits = np.min([np.maximum(x @ y.T / 2, np.log(1e-6)) for x, y in pairs], axis=0)
    ratio = np.exp(np.diag(logits) - np.log(np.exp(logits).sum(axis=1)) + np.log(SIZE))
    close(metrics, actor_loss=near_data(ratio * rewards(BATCH.actor_state), mean, 0.1))


def test_rebrac():
    config, state, metrics = updated("rebrac", policy_delay=1, critic_lr=1e-12, actor_bc=0.3, critic_bc=0.7)
    network, critic, slow = deterministic_actor(config.actor_mlp, 3), TwinCritic(config, SPEC), state.target
    wanted = np.tanh(double(network.apply(slow["actor"], BATCH.next_state, BATCH.goal)))
    noise = np.clip(config.target_noise * double(normal(2, SIZE, 3)), -config.noise_clip, config.noise_clip)  # its key
    action = np.clip(wanted + noise, -1, 1)
    inputs = BATCH.next_state, BATCH.goal, jnp.asarray(action, jnp.float32)
    worth = np.min([double(q) for q in critic.values(slow["critic"], *inputs)], axis=0)
    far = ((action - double(BATCH.next_action)) ** 2).sum(axis=-1)
    target = double(BATCH.reward) + DISCOUNT * (worth - 0.7 * far)
    q = critic.values(state.params["critic"], BATCH.state, BATCH.goal, BATCH.action)
    close(metrics, critic_loss=sum(np.mean((double(each) - target) ** 2) for each in q))
    chosen = jnp.tanh(network.apply(state.params["actor"], BATCH.state, BATCH.goal))
    value = np.min([double(q) for q in critic.values(state.params["critic"], BATCH.state, BATCH.goal, chosen)], axis=0)
    far = ((double(chosen) - double(BATCH.action)) ** 2).sum(axis=-1)
    close(metrics, actor_loss=0.3 * far.mean() - value.mean() / np.abs(value).mean())


def test_cql():
    config, state, metrics = updated("cql", cql_alpha=3.0, cql_samples=2)
    network, critic, params = gaussian_actor(config.actor_mlp, 3), TwinCritic(config, SPEC), state.params
    target_key, key = jax.random.split(jax.random.PRNGKey(2))  # as in the update, and below
    random_key, now_key, next_key = jax.random.split(jax.random.split(key)[0], 3)

    def drawn(states, number, key):
        parts = (jnp.stack([part] * number) for part in network.apply(params["actor"], states, BATCH.goal))
        return sample_action(*parts, key)

    def values(of, states, action):
        many = (jnp.stack([part] * len(action)) for part in (states, BATCH.goal))
        return np.stack([double(q) for q in critic.values(of, *many, action)])

    (following,), _ = drawn(BATCH.next_state, 1, target_key)
    target = double(BATCH.reward) + DISCOUNT * values(state.target, BATCH.next_state, following[None]).min(axis=0)[0]
    stored = values(params["critic"], BATCH.state, BATCH.action[None])[:, 0]
    close(metrics, bellman_loss=((stored - target) ** 2).mean(axis=1).sum())
    random = jax.random.uniform(random_key, (2, SIZE, 3), minval=-1, maxval=1)
    now, density = drawn(BATCH.state, 2, now_key)
    later, next_density = drawn(BATCH.next_state, 2, next_key)
    parts = (random, 3 * np.log(0.5)), (now, double(density)[None]), (later, double(next_density)[None])
    ratios = [np.exp(values(params["critic"], BATCH.state, action) - log) for action, log in parts]  # all seen in s
    penalty = (np.log(np.concatenate(ratios, axis=1).sum(axis=1)) - stored).mean(axis=1)
    close(
        metrics, cql_penalty=penalty.mean(), critic_loss=((stored - target) ** 2).mean(axis=1).sum() + 3 * penalty.sum()
    )
