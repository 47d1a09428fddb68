"""The causal transformer: blocks of attention and of an MLP, each behind a LayerNorm (arXiv 1706.03762, 2002.04745)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from goalax.core.types import Array

WEIGHTS = nn.initializers.normal(0.02)
WIDER = 4  # hidden width of a block's MLP, in widths of a token, unless said


def dropped(x: Array, share: float, key: Array | None) -> Array:
    """x with a share of its entries set to 0 and the others scaled up; x itself without a key, which is consumed."""
    if key is None or not share:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - share, x.shape), x / (1 - share), 0.0)


def attention(query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """What tokens [B, T, heads, D] read of themselves and of those before them (arXiv 1706.03762, equation 1).

    Returns:
      [B, T, heads, D], and the weights [B, heads, T, T], whose rows sum to 1.
    """
    scores = jnp.einsum("bthd,bshd->bhts", query, key) / jnp.sqrt(query.shape[-1])
    steps = jnp.arange(query.shape[1])
    seen = steps[None, :] <= steps[:, None]
    weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf))
    return jnp.einsum("bhts,bshd->bthd", weights, value), weights


class Block(nn.Module):
    """[B, T, D] -> [B, T, D]: the input, plus what attention reads, plus what an MLP makes of both."""

    heads: int
    dropout: float  # share of what is added that is dropped, where a key is given
    wider: int = WIDER

    @nn.compact
    def __call__(self, x: Array, key: Array | None = None) -> Array:
        width = x.shape[-1]
        read_key, think_key = (None, None) if key is None else jax.random.split(key)
        parts = nn.Dense(3 * width, kernel_init=WEIGHTS)(nn.LayerNorm()(x))
        query, keys, value = jnp.split(parts.reshape(*x.shape[:-1], 3 * self.heads, -1), 3, axis=-2)
        read, _ = attention(query, keys, value)
        x = x + dropped(nn.Dense(width, kernel_init=WEIGHTS)(read.reshape(x.shape)), self.dropout, read_key)
        thought = nn.gelu(nn.Dense(self.wider * width, kernel_init=WEIGHTS)(nn.LayerNorm()(x)))
        return x + dropped(nn.Dense(width, kernel_init=WEIGHTS)(thought), self.dropout, think_key)


class Transformer(nn.Module):
    """Tokens [B, T, D] -> [B, T, D]: what comes out at a place depends on the tokens up to it, and on no later one.

    D is a multiple of `heads`.
    """

    blocks: int
    heads: int
    dropout: float = 0.0  # also of the tokens
    wider: int = WIDER

    @nn.compact
    def __call__(self, x: Array, key: Array | None = None) -> Array:
        keys = [None] * (1 + self.blocks) if key is None else list(jax.random.split(key, 1 + self.blocks))
        x = dropped(x, self.dropout, keys[0])
        for each in keys[1:]:
            x = Block(self.heads, self.dropout, self.wider)(x, each)
        return nn.LayerNorm()(x)
