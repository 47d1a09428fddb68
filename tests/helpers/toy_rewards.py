"""`toy` without goals, registered as `toy_rewards`: a point that is rewarded for being near (0.5, 0)."""

import jax
import jax.numpy as jnp

from goalax.envs.base import ENVS
from tests.helpers import toy

BEST = (0.5, 0.0)


class ToyRewards(toy.Toy):
    goal_dim, goal_indices, goal_reach_thresh, observation_size = 0, (), 0.0, 2

    def _state(self, position, goal, start):
        state = super()._state(position, jnp.zeros(2), start)
        reward = jnp.exp(-10 * jnp.sum((position - jnp.array(BEST)) ** 2))
        metrics = {name: jnp.zeros(()) for name in state.metrics}
        return state.replace(
            obs=position, reward=jnp.zeros(()) if start else reward, metrics=metrics, info={"goal": jnp.zeros(0)}
        )

    def sample_goal(self, key):
        return jnp.zeros(0)


def register() -> None:
    """Adds `toy_rewards` to the registry, once."""
    if "toy_rewards" not in ENVS:
        ENVS.add("toy_rewards", ToyRewards)


def walks(episodes: int, rows: int, seed: int = 0) -> dict[str, jax.Array]:
    """A file of random walks through `toy_rewards`, each with a direction of its own, by the keys of a file."""
    start_key, way_key, noise_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    start = jax.random.uniform(start_key, (episodes, 1, 2), minval=-0.2, maxval=0.2)
    way = jax.random.uniform(way_key, (episodes, 1, 2), minval=-0.5, maxval=0.5)
    action = jnp.clip(way + 0.5 * jax.random.normal(noise_key, (episodes, rows, 2)), -1, 1)
    moved = start + 0.3 * jnp.cumsum(action, axis=1)
    states = jnp.concatenate([start, moved[:, :-1]], axis=1)
    rewards = jnp.exp(-10 * jnp.sum((moved - jnp.array(BEST).reshape(1, 1, 2)) ** 2, axis=-1))
    ends = jnp.tile(jnp.arange(rows) == rows - 1, (episodes, 1))
    return {
        "observations": states.reshape(-1, 2),
        "actions": action.reshape(-1, 2),
        "terminals": ends.reshape(-1),
        "rewards": jnp.where(ends, 0.0, rewards).reshape(-1),
    }
