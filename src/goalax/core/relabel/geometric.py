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
        tail = discounting ** left.astype(jnp.float32)
        ahead = jnp.ceil(jnp.log1p(-uniform * (1 - tail)) / math.log(discounting))
    return jnp.clip(ahead.astype(jnp.int32), 1, left)


@RELABEL.register("geometric")
def geometric(discounting: float) -> Law:
    """P(k) proportional to discounting^k: the discounted future (arXiv 2206.07568, section 3)."""
    return functools.partial(truncated_geometric, discounting=discounting)
