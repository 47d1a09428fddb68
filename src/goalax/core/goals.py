"""Goals: which one a state achieves, how far it is from another one, and how far ahead relabelled goals lie."""

import math

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


def truncated_geometric(uniform: Array, left: Array, discounting: float) -> Array:
    """Steps ahead, by inversion of P(k) proportional to discounting^k on 1 <= k <= left.

    Args:
      uniform: [B] in [0, 1).
      left: [B] int32 >= 1, steps to the end of the episode.
      discounting: in (0, 1]; 1 is the uniform law.

    Returns:
      [B] int32.
    """
    if discounting == 1:
        ahead = jnp.ceil(uniform * left)
    else:
        tail = discounting ** left.astype(jnp.float32)
        ahead = jnp.ceil(jnp.log1p(-uniform * (1 - tail)) / math.log(discounting))
    return jnp.clip(ahead.astype(jnp.int32), 1, left)
