"""The inner product of representations by the root of their size, as critics of OGBench have it."""

import math

import jax.numpy as jnp
from jax import Array

from goalax.learning.energies.base import energy
from goalax.learning.pairwise import pairwise_dot


def pairwise_scaled_dot(x: Array, y: Array) -> Array:
    """`scaled_dot` of all pairs, [B, D] x [C, D] -> [B, C]."""
    return pairwise_dot(x, y) / math.sqrt(x.shape[-1])


@energy("scaled_dot", pairwise=pairwise_scaled_dot)
def scaled_dot(x: Array, y: Array) -> Array:
    """x . y / sqrt(D), the bilinear critic of arXiv 2410.20092."""
    return jnp.sum(x * y, axis=-1) / math.sqrt(x.shape[-1])
