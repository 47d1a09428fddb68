"""Scalars as distributions over bins of their symmetric logarithm: the regression of TD-MPC2 (arXiv 2310.16828)."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core.types import Array

BINS, LOW, HIGH = 101, -10.0, 10.0  # as published; symexp(10) is 22,025
CENTRES = np.linspace(LOW, HIGH, BINS, dtype=np.float32)


def symlog(x: Array) -> Array:
    """sign(x) log(1 + |x|), of any shape (arXiv 2301.04104)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(x: Array) -> Array:
    """Weights [..., BINS] of the two bins around symlog(x), of x [...]; they sum to 1, and their mean is symlog(x).

    Beyond the outermost bins, it is all on these (arXiv 2310.16828, section 3.1).
    """
    place = (jnp.clip(symlog(x), LOW, HIGH) - LOW) * ((BINS - 1) / (HIGH - LOW))
    bins = jnp.arange(BINS, dtype=jnp.float32).reshape(*(1,) * x.ndim, -1)
    return jnp.maximum(0.0, 1 - jnp.abs(place[..., None] - bins))


def decode(logits: Array) -> Array:
    """The scalar [...] that logits [..., BINS] stand for: symexp of the mean bin."""
    # GPUs would round what they multiply to 10 bits.
    return symexp(jnp.matmul(jax.nn.softmax(logits), CENTRES, precision=jax.lax.Precision.HIGHEST))


def cross_entropy(logits: Array, x: Array) -> Array:
    """Of logits [..., BINS] to the two-hot weights of scalars [...], [...].

    Raises:
      ValueError: the shapes do not fit.
    """
    if logits.shape != (*x.shape, BINS):
        raise ValueError(f"Expected logits {(*x.shape, BINS)}, got {logits.shape}.")
    return -jnp.sum(two_hot(x) * jax.nn.log_softmax(logits), axis=-1)
