"""Losses of agents that learn distances, put together: each by NumPy from the formulas."""

import jax.numpy as jnp
import numpy as np

from goalax.learning.networks import deterministic_actor
from tests.helpers.whole_losses import (
    AT_GOAL,
    BATCH,
    DISCOUNT,
    NEAR_DATA,
    SIZE,
    both,
    close,
    double,
    near_data,
    updated,
)


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
