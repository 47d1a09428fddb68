"""The law of way-points: a row between a sample and its goal, most often one near by."""

import math

import jax.numpy as jnp
from jax import Array

NEXT = 0.2  # probability of the next row, and discount of the geometric law of the others: both as published
DISCOUNTING = 0.95


def mixed_steps(uniform: Array, ahead: Array, next_share: float = NEXT, discounting: float = DISCOUNTING) -> Array:
    """Steps to the way-point, [B] int32 from 1 to `ahead`: 1 with probability `next_share`, else geometric, at most
    `ahead` (MQE, arXiv 2511.07730).

    Args:
      uniform: [B] in [0, 1), of which the part above `next_share` decides the geometric steps.
      ahead: [B] int32, steps to the goal.
    """
    rest = jnp.clip((uniform - next_share) / (1 - next_share), 0.0, 1 - 1e-7)
    geometric = 1 + jnp.floor(jnp.log1p(-rest) / math.log(discounting)).astype(jnp.int32)
    return jnp.where(uniform < next_share, 1, jnp.minimum(geometric, ahead))
