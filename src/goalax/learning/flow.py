"""Flow matching (arXiv 2210.02747): fields of velocities that carry noise to samples along straight lines."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.core.types import Array

MARGIN = 1e-5  # between bounds and what is clipped to them, as in the code of InFOM (arXiv 2506.08902)

# (points [..., S], times [...] from 0 to 1) -> velocities [..., S]
Field = Callable[[Array, Array], Array]


class Bounds(NamedTuple):
    """The least and the largest value of each entry that was seen."""

    low: Array  # [S]
    high: Array  # [S]

    @classmethod
    def of_nothing(cls, size: int) -> "Bounds":
        """Those that any value widens."""
        largest = jnp.full(size, jnp.finfo(jnp.float32).max)
        return cls(largest, -largest)

    def widened(self, points: Array) -> "Bounds":
        """These, and of points [B, S]."""
        return Bounds(jnp.minimum(self.low, jnp.min(points, axis=0)), jnp.maximum(self.high, jnp.max(points, axis=0)))

    def clip(self, points: Array) -> Array:
        """Points [..., S] moved inside."""
        low, high = (jnp.broadcast_to(bound, points.shape) for bound in (self.low + MARGIN, self.high - MARGIN))
        return jnp.clip(points, low, high)


def on_the_line(noise: Array, sample: Array, time: Array) -> Array:
    """Where noise [..., S] is at times [...] on its way to samples [..., S], with velocity sample - noise (the optimal
    transport path of the paper, equation 22, with no noise left at its end)."""
    return time[..., None] * sample + (1 - time[..., None]) * noise


def matching_error(field: Field, point: Array, time: Array, velocity: Array) -> Array:
    """Squared errors of a field, mean over entries, [...] (the paper, equation 9 with velocities of single samples).

    Args:
      point: [..., S], `on_the_line`.
      time: [...].
      velocity: [..., S] that the field should have there.
    """
    return jnp.mean((velocity - field(point, time)) ** 2, axis=-1)


def carried(field: Field, noise: Array, steps: int, bounds: Bounds) -> Array:
    """Where a field carries noise [..., S] from time 0 to 1: Euler's method, clipped to bounds after every step."""

    def step(point: Array, number: Array) -> tuple[Array, None]:
        time = jnp.broadcast_to(number / steps, point.shape[:-1])
        return bounds.clip(point + field(point, time) / steps), None

    return jax.lax.scan(step, noise, jnp.arange(steps))[0]
