"""Correctors of plans that are followed: networks that say how to change an action of an old plan where the world is
not quite where the plan said, now or at the decisions before.

Networks of https://github.com/sunTr1aL/gym_qwen (commit 9d07908); docs/planning.md tells differences.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from goalax.core.types import Array
from goalax.flags import FlagError
from goalax.learning.networks import Network
from goalax.learning.recent import at, pushed
from goalax.learning.transformer import WEIGHTS, Transformer

# Of the temporal transformer, as in that code; a token is half as wide as the other layers.
BLOCKS, HEADS, DROPOUT, WIDER = 2, 4, 0.1, 2


class History(NamedTuple):
    """The last K decisions in each of B episodes, the oldest first; zeros behind the newest."""

    z: Array  # [B, K, Z] latent state
    expected: Array  # [B, K, Z] as the plan predicted it; z itself where the plan was new
    action: Array  # [B, K, A] of the plan
    length: Array  # [B] int32 decisions that there are


def blank(num: int, steps: int, latent_size: int, action_size: int) -> History:
    """Of `num` fresh episodes: nothing."""
    latent = jnp.zeros((num, steps, latent_size))
    return History(latent, latent, jnp.zeros((num, steps, action_size)), jnp.zeros(num, jnp.int32))


def remembered(history: History, z: Array, expected: Array, action: Array) -> History:
    """With one more decision each, [B, Z], [B, Z], [B, A]."""
    (z, expected, action), length, _ = pushed(history[:3], history.length, (z, expected, action))
    return History(z, expected, action, length)


def latest(z: Array, expected: Array, action: Array, length: Array) -> tuple[Array, Array, Array]:
    """The newest decision of a history: [B, Z], [B, Z], [B, A]."""
    place = length - 1
    return at(z, place), at(expected, place), at(action, place)


class Corrector(NamedTuple):
    """A network with its parameters."""

    correct: Callable[[History], Array]  # actions [B, A] in place of the newest ones, where an old plan is followed
    history: int  # K


class TwoLayers(nn.Module):
    """[..., F] -> [..., width]: dense, SiLU, dense."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.silu(nn.Dense(self.width)(x))
        return nn.Dense(self.width)(x)


def gated(parts: list[Array], planned: Array, action: Array) -> Array:
    """The end of a corrector, in the module that calls it: a gate says how much all `parts` together may change of what
    was planned [B, width]; before training it is the action [B, A] itself, and at any time within [-1, 1]."""
    width, both = planned.shape[-1], jnp.concatenate(parts, axis=-1)
    gate = jax.nn.sigmoid(TwoLayers(width)(both))
    fused = gate * TwoLayers(width)(both) + (1 - gate) * planned
    change = nn.Dense(action.shape[-1], kernel_init=nn.initializers.zeros)(fused)
    return jnp.clip(action + jnp.tanh(change), -1, 1)


class TwoTower(nn.Module):
    """A history -> action [B, A], from its newest decision; what is real and what was planned are encoded apart."""

    width: int = 256

    @nn.compact
    def __call__(self, z: Array, expected: Array, action: Array, length: Array, key: Array | None = None) -> Array:
        z, expected, action = latest(z, expected, action, length)
        planned = TwoLayers(self.width)(action)
        parts = [*(TwoLayers(self.width)(x) for x in (z, expected, z - expected)), planned]
        return gated(parts, planned, action)


class Temporal(nn.Module):
    """A history -> action [B, A], from all of its decisions: each is a token, and what a causal transformer makes of
    the newest one stands beside its action. With a key, which is consumed, a share of it is dropped."""

    width: int = 256

    @nn.compact
    def __call__(self, z: Array, expected: Array, action: Array, length: Array, key: Array | None = None) -> Array:
        tokens = nn.Dense(self.width // 2)(jnp.concatenate([z, expected, z - expected, action], axis=-1))
        places = self.param("places", WEIGHTS, tokens.shape[1:])
        seen = Transformer(BLOCKS, HEADS, DROPOUT, WIDER)(tokens + places[None], key)
        newest = at(action, length - 1)
        planned = TwoLayers(self.width)(newest)
        return gated([at(seen, length - 1), planned], planned, newest)


ARCHITECTURES = {"two_tower": TwoTower, "temporal": Temporal}


def network_of(architecture: str, width: int) -> Network[Array]:
    """The network (*history) -> action [B, A]. FlagError for a width that its heads cannot share."""
    if architecture == "temporal" and (left := width % (2 * HEADS)):
        raise FlagError(
            f"--width is {width}; with --architecture temporal it must be a multiple of {2 * HEADS}, for example"
            f" {width - left + 2 * HEADS}."
        )
    return cast(Network[Array], ARCHITECTURES[architecture](width))
