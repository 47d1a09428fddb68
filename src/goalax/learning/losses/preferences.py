"""Losses of preference learning, the positive being preferred: DPO, IPO, SPPO."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, is_positive, margins


@CONTRASTIVE_LOSSES.register("dpo", "dp")
def dpo(logits: Array) -> Array:
    """-mean_ij log sigmoid(F_ii - F_ij): the positive is preferred to the entry. Rafailov et al., arXiv 2305.18290."""
    return jnp.mean(jax.nn.softplus(-margins(logits)))


@CONTRASTIVE_LOSSES.register("ipo")
def ipo(logits: Array) -> Array:
    """mean_ij (F_ii - F_ij - 1)^2: the positive leads every entry by 1. Azar et al., arXiv 2310.12036."""
    return jnp.mean((margins(logits) - 1) ** 2)


@CONTRASTIVE_LOSSES.register("sppo")
def sppo(logits: Array) -> Array:
    """Squared error to 1 (positives, weighted by B) and -1 (negatives), mean over ij. Wu et al., arXiv 2405.00675."""
    positive = is_positive(logits)
    error = logits - jnp.where(positive, 1.0, -1.0)
    return jnp.mean(jnp.where(positive, len(logits), 1.0) * error**2)
