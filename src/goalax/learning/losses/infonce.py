"""InfoNCE: cross-entropy of finding the positive, along rows, columns or both."""

import jax.numpy as jnp
from jax import Array

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, log_odds_against


@CONTRASTIVE_LOSSES.register("infonce", "fwd_infonce")
def infonce(logits: Array, resubs: bool = True) -> Array:
    """Cross-entropy of picking, for each row, its goal among all. van den Oord et al., arXiv 1807.03748, Eq. 4."""
    return jnp.mean(log_odds_against(logits, 1, resubs))


@CONTRASTIVE_LOSSES.register("infonce_backward", "bwd_infonce")
def infonce_backward(logits: Array, resubs: bool = True) -> Array:
    """Cross-entropy of picking, for each goal, its row among all: `infonce` of the transposed logits."""
    return jnp.mean(log_odds_against(logits, 0, resubs))


@CONTRASTIVE_LOSSES.register("symmetric_infonce", "sym_infonce")
def symmetric_infonce(logits: Array, resubs: bool = True) -> Array:
    """Sum (not mean) of `infonce` and `infonce_backward`."""
    return infonce(logits, resubs) + infonce_backward(logits, resubs)
