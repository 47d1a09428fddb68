"""The law of OGBench: a geometric number of steps, and the end of the episode for all that lies after it."""

import math

import jax.numpy as jnp
from jax import Array

from goalax.core.relabel.base import RELABEL, Law


def clipped_geometric(uniform: Array, left: Array, discounting: float) -> Array:
    """Steps ahead: min(k, left) for P(k) = (1 - discounting) discounting^(k - 1), k >= 1, by inversion.

    The end gets all of the mass that lies after it, discounting^(left - 1), where `truncated_geometric` spreads that
    over all steps: near the end of an episode goals are its last state more often.

    Args:
      uniform: [B] in [0, 1).
      left: [B] int32 >= 1, steps to the end of the episode.
      discounting: in (0, 1); 1 is the end.

    Returns:
      [B] int32.
    """
    if discounting == 1:
        return left
    ahead = 1 + jnp.floor(jnp.log1p(-uniform) / math.log(discounting))
    return jnp.minimum(jnp.minimum(ahead, 2.0**30).astype(jnp.int32), left)


@RELABEL.register("clipped")
def clipped(discounting: float) -> Law:
    """As goals are drawn in OGBench (arXiv 2410.20092), where the last row of an episode is none; here it is one."""
    return lambda uniform, left: clipped_geometric(uniform, left, discounting)
