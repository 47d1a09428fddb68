"""The networks: one residual MLP, shallow or very deep, and the actors on top of it."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from goalax.core.types import Array

T_co = TypeVar("T_co", covariant=True)


class Network(Protocol[T_co]):
    """A Flax module as agents see it: T is what it computes, which Flax's own types do not say."""

    def init(self, key: Array, *inputs: Array) -> Any: ...
    def apply(self, params: Any, *inputs: Array) -> T_co: ...


LOG_STD_RANGE = (-5.0, 2.0)
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
BLOCK = 4  # layers of a residual block
# From this depth on the activations inside of a block are computed again in the backward pass, which keeps only what
# goes into a block. An update of CRL, width and batch 256, one CPU core, beside the plain MLP of equal depth: one block
# takes 1.0 of its time (1.2 if computed again), 2 / 4 / 8 blocks 0.73 / 0.74 / 0.89 (1.4 / 1.3 / 1.3 if kept, because a
# loop copies what it keeps), and 8 blocks 46 MiB of temporary memory against 250 if kept. No GPU was measured.
REMAT_DEPTH = 8


def hidden(x: Array, h_dim: int, use_ln: bool, use_relu: bool) -> Array:
    """A hidden layer of the module that calls it: dense, LayerNorm, activation; [..., F] -> [..., h_dim]."""
    x = nn.Dense(h_dim, kernel_init=KERNEL_INIT)(x)
    x = nn.LayerNorm()(x) if use_ln else x
    return nn.relu(x) if use_relu else nn.swish(x)


class MLP(nn.Module):
    """[..., F] -> [..., outputs]: n_hidden layers (dense, LayerNorm, activation), a residual every skip_connections of
    them (0: none), then one linear layer. Architecture of arXiv 2408.11052."""

    outputs: int
    h_dim: int = 256
    n_hidden: int = 2
    use_ln: bool = True
    use_relu: bool = False
    skip_connections: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        skip = None
        for layer in range(self.n_hidden):
            x = hidden(x, self.h_dim, self.use_ln, self.use_relu)
            if self.skip_connections and layer % self.skip_connections == 0:
                skip = x = x if skip is None else x + skip
        return nn.Dense(self.outputs, kernel_init=KERNEL_INIT)(x)


class Normed(nn.Module):
    """What another module gives, with LayerNorm behind it."""

    module: nn.Module

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.LayerNorm()(self.module(x))


def normed(network: Network[Array]) -> Network[Array]:
    """The network with LayerNorm behind its last layer, and so with a learned scale and bias of its outputs."""
    return cast(Network[Array], Normed(cast(nn.Module, network)))


class Block(nn.Module):
    """[..., h_dim] -> [..., h_dim]: the input plus what BLOCK hidden layers make of it."""

    h_dim: int
    use_ln: bool
    use_relu: bool

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, None]:
        y = x
        for _ in range(BLOCK):
            y = hidden(y, self.h_dim, self.use_ln, self.use_relu)
        return x + y, None  # as `nn.scan` wants it: carry, and nothing to stack


class DeepMLP(nn.Module):
    """[..., F] -> [..., outputs]: one hidden layer, depth / BLOCK residual blocks, one linear layer.

    The function of `MLP` with n_hidden = depth + 1 and skip_connections = BLOCK, as in arXiv 2503.14858. Its blocks are
    compiled once, whatever the depth; their parameters are stacked, [depth / BLOCK, ...].
    """

    outputs: int
    depth: int  # a multiple of BLOCK, which counts the layers in blocks
    h_dim: int = 256
    use_ln: bool = True
    use_relu: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = hidden(x, self.h_dim, self.use_ln, self.use_relu)
        blocks = nn.scan(
            Block if self.depth < REMAT_DEPTH else nn.remat(Block, prevent_cse=False),  # a loop has no CSE to prevent
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth // BLOCK,
        )
        x, _ = blocks(self.h_dim, self.use_ln, self.use_relu, name="blocks")(x)
        return nn.Dense(self.outputs, kernel_init=KERNEL_INIT)(x)


class Actor(nn.Module):
    """(state [..., S], goal [..., G]) -> mean and log standard deviation, both [..., A], of a Gaussian before tanh."""

    mlp: Callable[..., Any]  # outputs -> MLP
    action_size: int

    @nn.compact
    def __call__(self, state: Array, goal: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(self.mlp(2 * self.action_size)(jnp.concatenate([state, goal], axis=-1)), 2, axis=-1)
        low, high = LOG_STD_RANGE
        return mean, low + 0.5 * (high - low) * (jnp.tanh(log_std) + 1)


class DeterministicActor(nn.Module):
    """(state [..., S], goal [..., G]) -> [..., A], the action before tanh."""

    mlp: Callable[..., Any]  # outputs -> MLP
    action_size: int

    @nn.compact
    def __call__(self, state: Array, goal: Array) -> Array:
        return self.mlp(self.action_size)(jnp.concatenate([state, goal], axis=-1))


def state_action(state: Array, action: Array) -> Array:
    """What encoders of state-action pairs see, [..., S + A]."""
    return jnp.concatenate([state, action], axis=-1)


def gaussian_actor(mlp: Callable[..., Any], action_size: int) -> Network[tuple[Array, Array]]:
    return cast(Network[tuple[Array, Array]], Actor(mlp, action_size))


def deterministic_actor(mlp: Callable[..., Any], action_size: int) -> Network[Array]:
    return cast(Network[Array], DeterministicActor(mlp, action_size))


class TimeHead(nn.Module):
    """(representations of state and action [B, D], of goals [B, D]) -> logits: of being there [B], of hazards [B, K],
    and of occupancy [B, O].

    The goal modulates the state (FiLM), a residual MLP reads both, their difference and their product, and the hazards
    are `rank` numbers times a learned basis over time. Architecture of arXiv 2605.31273.
    """

    mlp: Callable[..., Any]  # outputs -> MLP
    num_bins: int
    num_occupancy: int = 0
    rank: int = 64

    @nn.compact
    def __call__(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        scale, shift = jnp.split(nn.Dense(2 * x.shape[-1], kernel_init=KERNEL_INIT)(y), 2, axis=-1)
        outputs = self.mlp(1 + self.rank + self.num_occupancy)(fuse(x, y, scale, shift))
        now, factors, occupancy = jnp.split(outputs, [1, 1 + self.rank], axis=-1)
        basis = self.param("time_basis", nn.initializers.normal(0.02), (self.num_bins, self.rank))
        bias = self.param("time_bias", nn.initializers.zeros, (self.num_bins,))
        return now[..., 0], factors @ basis.T + bias[None], occupancy


def fuse(x: Array, y: Array, scale: Array, shift: Array) -> Array:
    """[z, y, z - y, z * y] of z = (1 + scale / 10) x + shift / 10; [B, D] each -> [B, 4 D]."""
    z = (1 + 0.1 * scale) * x + 0.1 * shift
    return jnp.concatenate([z, y, z - y, z * y], axis=-1)


def time_head(mlp: Callable[..., Any], num_bins: int, num_occupancy: int) -> Network[tuple[Array, Array, Array]]:
    return cast(Network[tuple[Array, Array, Array]], TimeHead(mlp, num_bins, num_occupancy))


def sample_action(mean: Array, log_std: Array, key: Array) -> tuple[Array, Array]:
    """A reparameterised sample of the tanh-Gaussian: action [..., A] and its log-density [...]. Consumes key.

    log(1 - tanh(u)^2) is taken as 2 (log 2 - u - softplus(-2u)), which does not lose digits for large |u|.
    """
    noise = jax.random.normal(key, mean.shape)
    before_tanh = mean + jnp.exp(log_std) * noise
    log_density = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
    log_slope = 2 * (jnp.log(2.0) - before_tanh - jax.nn.softplus(-2 * before_tanh))
    return jnp.tanh(before_tanh), jnp.sum(log_density - log_slope, axis=-1)
