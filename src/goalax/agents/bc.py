"""BC: behaviour cloning, which imitates the actions of the buffer whatever their rewards; a goal, where there is one,
is the commanded one. (With goals that were achieved later it is GCBC.)"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm, NoisyConfig
from goalax.core.types import Agent, Array, Batch, Spec
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class BCConfig(NoisyConfig):
    pass


class BCState(NamedTuple):
    params: dict  # actor
    optimizer: optax.OptState


def squared_error(action: Array, stored: Array) -> Array:
    """Of actions [B, A], summed over the action, [B]: but for a constant -2 log pi(stored) of a Gaussian, spread 1."""
    return jnp.sum((action - stored) ** 2, axis=-1)


def imitation(config: NoisyConfig, spec: Spec, goal_of: Callable[[Batch], Array]) -> Agent:
    """An actor that imitates the actions of a batch, told the goals [B, G] that `goal_of` takes from it."""
    actor, optimizer = deterministic_actor(config.mlp, spec.action_size), optax.adam(config.policy_lr)

    def init(key):
        params = {"actor": actor.init(key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size))}
        return BCState(params, optimizer.init(params))

    def loss(params, batch):
        """Maximum likelihood for noise of a fixed size."""
        action = jnp.tanh(actor.apply(params["actor"], batch.state, goal_of(batch)))
        return jnp.mean(squared_error(action, batch.action))

    def update(agent, batch, key):
        actor_loss, gradients = jax.value_and_grad(loss)(agent.params, batch)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer)
        return BCState(optax.apply_updates(agent.params, steps), optimizer_state), {"actor_loss": actor_loss}

    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update)


def make(config: BCConfig, spec: Spec) -> Agent:
    return imitation(config, spec, lambda batch: batch.goal)


AGENTS.add("bc", Algorithm(BCConfig, make, goals=False))
