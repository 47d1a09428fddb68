"""Networks of latent world models: Mish layers, and SimNorm, which makes a latent state a list of distributions."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from goalax.core.types import Array
from goalax.learning.networks import Network

GROUP = 8  # entries of a distribution of SimNorm
WEIGHTS = nn.initializers.normal(0.02)
LAYER_NORM_EPS = 1e-5  # of PyTorch, where the published networks were trained
LARGE = 20.0  # from here on Mish is the identity to the last bit, and its exponentials would overflow later


def sim_norm(x: Array, group: int = GROUP) -> Array:
    """Softmax within groups of neighbouring entries, [..., D] -> [..., D] (arXiv 2310.16828, section 3.1).

    Raises:
      ValueError: D is no multiple of the group.
    """
    if x.shape[-1] % group:
        raise ValueError(f"{x.shape[-1]} entries are no whole number of groups of {group}.")
    return jax.nn.softmax(x.reshape(*x.shape[:-1], x.shape[-1] // group, group)).reshape(x.shape)


def mish(x: Array) -> Array:
    """x tanh(log(1 + exp x)), of any shape (arXiv 1908.08681); with one exponential in place of three."""
    e = jnp.exp(jnp.minimum(x, LARGE))
    odd = e * (e + 2)
    return x * odd / (odd + 2)


class MishMLP(nn.Module):
    """[..., F] -> [..., outputs]: per hidden layer dense, LayerNorm, Mish; the last one linear, or with SimNorm."""

    outputs: int
    widths: tuple[int, ...]
    simplex: bool = False  # LayerNorm and SimNorm behind the last layer
    zero: bool = False  # the last layer begins with zeros
    dropout: float = 0.0  # share of the first layer's outputs that are dropped, where a key is given

    @nn.compact
    def __call__(self, x: Array, key: Array | None = None) -> Array:
        for layer, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=WEIGHTS)(x)
            if layer == 0 and key is not None and self.dropout:
                keep = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
                x = jnp.where(keep, x / (1 - self.dropout), 0.0)
            x = mish(nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x))
        x = nn.Dense(self.outputs, kernel_init=nn.initializers.zeros if self.zero else WEIGHTS)(x)
        return sim_norm(nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x)) if self.simplex else x


def mish_mlp(outputs: int, *widths: int, simplex: bool = False, zero: bool = False, dropout: float = 0.0):
    """A `MishMLP` as agents see networks."""
    return cast(Network[Array], MishMLP(outputs, widths, simplex, zero, dropout))
