"""The world model of TD-MPC2 (arXiv 2310.16828): encoder, latent dynamics, reward, a few Q, and a policy prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.mppi import World
from goalax.core.types import Array, Spec
from goalax.learning.latents import mish_mlp
from goalax.learning.networks import Network
from goalax.learning.two_hot import BINS, decode

LOG_STD_RANGE = (-10.0, 2.0)  # as published


class ModelSize(NamedTuple):
    """Widths of the networks, and how many there are."""

    encoder_dim: int  # of the encoder's hidden layers
    encoder_layers: int  # of them
    h_dim: int  # of the two hidden layers of all others
    latent_dim: int
    num_q: int


# Name, which is about the number of parameters in millions -> widths; arXiv 2310.16828, appendix H, and its code.
MODEL_SIZES = {
    "1": ModelSize(256, 1, 384, 128, 2),
    "5": ModelSize(256, 1, 512, 512, 5),
    "19": ModelSize(1024, 2, 1024, 768, 5),
}


class WorldModel(NamedTuple):
    """The networks. Their parameters are {"encoder", "dynamics", "reward", "critic": one each, "actor"}."""

    size: ModelSize
    spec: Spec
    dropout: float  # in the first layer of the Q, while they learn

    @property
    def encoder(self) -> Network[Array]:
        size = self.size
        return mish_mlp(size.latent_dim, *[size.encoder_dim] * size.encoder_layers, simplex=True)

    @property
    def dynamics(self) -> Network[Array]:
        return mish_mlp(self.size.latent_dim, *[self.size.h_dim] * 2, simplex=True)

    @property
    def bins(self) -> Network[Array]:
        """That of the reward and of every Q."""
        return mish_mlp(BINS, *[self.size.h_dim] * 2, zero=True, dropout=self.dropout)

    @property
    def actor(self) -> Network[Array]:
        return mish_mlp(2 * self.spec.action_size, *[self.size.h_dim] * 2)

    def init(self, key: Array) -> dict[str, Any]:
        keys = iter(jax.random.split(key, 4 + self.size.num_q))
        observed, latent = self.spec.state_size + self.spec.goal_size, self.size.latent_dim
        both = jnp.zeros(latent + self.spec.action_size)
        return {
            "encoder": self.encoder.init(next(keys), jnp.zeros(observed)),
            "dynamics": self.dynamics.init(next(keys), both),
            "reward": self.bins.init(next(keys), both),
            "actor": self.actor.init(next(keys), jnp.zeros(latent)),
            "critic": [self.bins.init(key, both) for key in keys],
        }

    def encode(self, params: dict, state: Array, goal: Array) -> Array:
        """The latent state [..., Z] of states [..., S] with goals [..., G]."""
        return self.encoder.apply(params["encoder"], jnp.concatenate([state, goal], axis=-1))

    def step(self, params: dict, z: Array, action: Array) -> Array:
        """The latent state [..., Z] after an action [..., A]."""
        return self.dynamics.apply(params["dynamics"], pair(z, action))

    def reward(self, params: dict, z: Array, action: Array) -> Array:
        """Logits [..., BINS] of the reward of an action."""
        return self.bins.apply(params["reward"], pair(z, action))

    # Networks one after the other, not vmapped: XLA's batched products are several times slower on CPUs.
    def q(self, critic: list[dict], z: Array, action: Array, key: Array | None = None) -> list[Array]:
        """Logits [..., BINS] of each Q; with a key, with dropout."""
        inputs = pair(z, action)
        if key is None:
            return [self.bins.apply(one, inputs) for one in critic]
        keys = jax.random.split(key, len(critic))
        return [self.bins.apply(one, inputs, k) for one, k in zip(critic, keys, strict=True)]

    def two_of(self, critic: list[dict], key: Array) -> list[dict]:
        """Two different Q, drawn; consumes key."""
        if len(critic) == 2:
            return critic
        drawn = jax.random.choice(key, len(critic), (2,), replace=False)
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves)[drawn], *critic)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(2)]

    def value(self, critic: list[dict], z: Array, action: Array, key: Array, combine: Callable) -> Array:
        """combine(q, q) of two Q that are drawn, decoded, [...]; consumes key."""
        return combine(*(decode(logits) for logits in self.q(self.two_of(critic, key), z, action)))

    def policy(self, params: dict, z: Array) -> tuple[Array, Array]:
        """Mean and log standard deviation, both [..., A], of the prior's Gaussian before tanh."""
        mean, log_std = jnp.split(self.actor.apply(params["actor"], z), 2, axis=-1)
        low, high = LOG_STD_RANGE
        return mean, low + 0.5 * (high - low) * (jnp.tanh(log_std) + 1)

    def draw(self, params: dict, z: Array, key: Array) -> Array:
        """An action [..., A] of the prior; consumes key."""
        mean, log_std = self.policy(params, z)
        return jnp.tanh(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape))

    def world(self, params: dict) -> World:
        """The model as planners see it."""

        def value(z: Array, key: Array) -> Array:
            draw_key, q_key = jax.random.split(key)
            return self.value(params["critic"], z, self.draw(params, z, draw_key), q_key, average)

        return World(
            step=partial(self.step, params),
            reward=lambda z, action: decode(self.reward(params, z, action)),
            value=value,
            prior=partial(self.draw, params),
        )


def pair(z: Array, action: Array) -> Array:
    """What the networks of state and action see, [..., Z + A]."""
    return jnp.concatenate([z, action], axis=-1)


def average(one: Array, other: Array) -> Array:
    return (one + other) / 2
