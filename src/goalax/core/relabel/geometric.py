"""The law of contrastive RL: a geometric number of steps, cut at the end of the episode."""

import functools
import math

import jax.numpy as jnp
from jax import Array

from goalax.core.relabel.base import RELABEL, Law


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
        rate = math.log(discounting)  # of Python's floats: a discounting next to 1 would round to 1 as a float32
        within = -jnp.expm1(left * rate)  # what the untruncated law gives to 1 <= k <= left
        ahead = jnp.ceil(jnp.log1p(-uniform * within) / rate)
    return jnp.clip(ahead.astype(jnp.int32), 1, left)


@RELABEL.register("geometric")
def geometric(discounting: float) -> Law:
    """P(k) proportional to discounting^k: the discounted future (arXiv 2206.07568, section 3)."""
    return functools.partial(truncated_geometric, discounting=discounting)
