"""The forward-backward loss: logits as densities."""

import jax.numpy as jnp
from jax import Array

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, mean_negative, positives


@CONTRASTIVE_LOSSES.register("fb")
def fb(logits: Array) -> Array:
    """Forward-backward loss: half the mean squared negative minus the mean positive. Touati & Ollivier, 2103.07945."""
    return 0.5 * mean_negative(logits**2) - jnp.mean(positives(logits))
