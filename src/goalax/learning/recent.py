"""The last steps of N episodes, for networks that see more than the present: each episode fills its window from the
front, and then loses its oldest step with every new one."""

from typing import Any

import jax
import jax.numpy as jnp

from goalax.core.rollout import where
from goalax.core.types import Array


def pushed(seen: Any, length: Array, new: Any) -> tuple[Any, Array, Array]:
    """The windows with one more step each.

    Args:
      seen: leaves [N, K, F], the oldest step first, zeros behind the newest.
      length: [N] int32 steps that there are.
      new: leaves [N, F].

    Returns:
      The windows and lengths after it, and the place [N] of the new step.
    """
    steps = jax.tree.leaves(seen)[0].shape[1]
    full, place = length == steps, jnp.minimum(length, steps - 1)
    seen = jax.tree.map(lambda old, now: put(where(full, jnp.roll(old, -1, axis=1), old), place, now), seen, new)
    return seen, jnp.minimum(length + 1, steps), place


def put(values: Array, place: Array, new: Array) -> Array:
    """values [N, K, F] with `new` [N, F] at one place [N] each."""
    here = jnp.arange(values.shape[1])[None] == place[:, None]
    return jnp.where(here[..., None], new[:, None], values)


def at(values: Array, place: Array) -> Array:
    """What is at one place [N] each of values [N, K, F], [N, F]."""
    return jnp.take_along_axis(values, place[:, None, None], axis=1)[:, 0]
