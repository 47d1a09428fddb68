"""What a learned distance looks like on a batch: numbers that tell whether it is one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from goalax.core.types import Array, Metrics

SELF_SAMPLES = 32  # of a batch, for the distance of states to themselves where it takes a pass of a network more


def neighbours(x: Array) -> Array:
    """That of another sample, [B, ...]: samples of a batch are independent, so any shift does."""
    return jnp.roll(x, 1, axis=0)


def distance_metrics(between: Callable, x: Array, y: Array, via: Array, itself: tuple[Array, Array]) -> Metrics:
    """What a learned distance, `between` of representations, looks like on a batch.

    Args:
      x, y: [B, D] of states, or states and actions, and of goals that they reached.
      via: [B, D] of states as sources and goals in one, for random ways from x to y.
      itself: two [N, D], of states as sources and of the same states as goals.
    """
    positives, middle = between(x, y), neighbours(via)
    detours = between(x, middle) + between(middle, y)
    return {
        "distance_pos": jnp.mean(positives),
        "distance_neg": jnp.mean(between(x, neighbours(y))),
        "distance_self": jnp.mean(between(*itself)),
        "triangle_violation": jnp.mean(jax.nn.relu(positives - detours)),  # 0 up to rounding for a quasimetric
    }
