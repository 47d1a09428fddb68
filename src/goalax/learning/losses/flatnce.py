"""FlatNCE: InfoNCE's gradient without the rounding of its small values."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, log_odds_against


@CONTRASTIVE_LOSSES.register("flatnce")
def flatnce(logits: Array, resubs: bool = True) -> Array:
    """FlatNCE over rows: mean exp(c - stopgrad(c)), c = log sum_j exp(F_ij - F_ii). Chen et al., arXiv 2107.01152.

    The value is always 1; only the gradient matters. The paper sums over the negatives alone (`resubs=False`); with
    the positive in the sum the gradient is the one of `infonce`.
    """
    return _flat(log_odds_against(logits, 1, resubs))


@CONTRASTIVE_LOSSES.register("flatnce_backward")
def flatnce_backward(logits: Array, resubs: bool = True) -> Array:
    """FlatNCE over columns: `flatnce` of the transposed logits."""
    return _flat(log_odds_against(logits, 0, resubs))


def _flat(c: Array) -> Array:
    return jnp.mean(jnp.exp(c - jax.lax.stop_gradient(c)))
