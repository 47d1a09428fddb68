"""A batch, and what is shared by tests of whole losses: an agent's update beside the same by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.core.types import Batch, Spec
from tests.helpers.planning import normal

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
SPEC = SPEC._replace(max_decisions=20)
SIZE = 12
DISCOUNT = 0.9 * (np.arange(SIZE) % 4 > 0)  # 0, 4 and 8 end for good
AT_GOAL = np.arange(SIZE) % 8 == 0  # where 4 is not
SMALL = {"h_dim": 8, "n_hidden": 2, "repr_dim": 16}
NEAR_DATA = {"bc_weight": 0.1, "actor_relabel": "uniform"}


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
