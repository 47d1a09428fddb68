"""Energies that are inner products: plain, and of unit vectors with a learned scale."""

import jax.numpy as jnp
from jax import Array

from goalax.learning.energies.base import energy
from goalax.learning.pairwise import pairwise_dot, unit


@energy("dot", pairwise=pairwise_dot)
def dot(x: Array, y: Array) -> Array:
    """Inner product."""
    return jnp.sum(x * y, axis=-1)


@energy("cosine", "cos", pairwise=lambda x, y, scale: scale * pairwise_dot(unit(x), unit(y)), init=1 / 0.07)
def cosine(x: Array, y: Array, scale: Array | float) -> Array:
    """Cosine of the angle between x and y (0 if one of them is 0) times a learned scale, as in CLIP (2103.00020)."""
    return scale * dot(unit(x), unit(y))
