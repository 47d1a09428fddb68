"""Goals: which one a state achieves, and how far it is from another one."""

import jax.numpy as jnp
from jax import Array


def goal_of(state: Array, goal_indices: tuple[int, ...]) -> Array:
    """The goal [..., G] that a state [..., S] achieves."""
    return state[..., jnp.array(goal_indices)]


def distance(achieved: Array, goal: Array) -> Array:
    """How far a goal [..., G] is from an achieved one [..., G], in the units of the environment, [...]."""
    return jnp.linalg.norm(achieved - goal, axis=-1)


def reached(dist: Array, threshold: float) -> Array:
    """1 where the goal is nearer than the threshold, else 0; [...] -> float32 [...]."""
    return (dist < threshold).astype(jnp.float32)
