"""Binary NCE: every entry is classified as positive or negative."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, is_positive


@CONTRASTIVE_LOSSES.register("binary", "binary_nce")
def binary(logits: Array) -> Array:
    """Cross-entropy of classifying every entry as positive or negative. Eysenbach et al., arXiv 2206.07568."""
    return jnp.mean(jax.nn.softplus(jnp.where(is_positive(logits), -logits, logits)))
