"""Energies that are minus a distance: Euclidean, squared, sum of absolute differences."""

import jax.numpy as jnp
from jax import Array

from goalax.learning.energies.base import energy, minus
from goalax.learning.pairwise import pairwise_squared_distance
from goalax.learning.quasimetrics import EPS, squared_distance


@energy("l2", "norm", pairwise=lambda x, y: -jnp.sqrt(pairwise_squared_distance(x, y) + EPS))
def l2(x: Array, y: Array) -> Array:
    """Minus the Euclidean distance, -sqrt(|x - y|^2 + EPS); later JaxGCRL releases mean `l2_squared` by "l2"."""
    return -jnp.sqrt(squared_distance(x, y) + EPS)


@energy("l2_squared", "l2_no_sqrt", pairwise=minus(pairwise_squared_distance))
def l2_squared(x: Array, y: Array) -> Array:
    """Minus the squared Euclidean distance."""
    return -squared_distance(x, y)


@energy("l1")
def l1(x: Array, y: Array) -> Array:
    """Minus the sum of absolute differences."""
    return -jnp.sum(jnp.abs(x - y), axis=-1)
