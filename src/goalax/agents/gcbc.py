"""GCBC: goal-conditioned behaviour cloning; online, where it learns from what it does itself, it is GCSL (arXiv
1912.06088): the action of a transition is the right one for any goal that its episode achieved later.
Offline as in OGBench: --h_dim 512 --n_hidden 3; what still differs, a tanh among it: docs/offline.md."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm, HindsightConfig, NoisyConfig
from goalax.core.types import Agent, Spec
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class GCBCConfig(HindsightConfig, NoisyConfig):
    pass


class GCBCState(NamedTuple):
    params: dict  # actor
    optimizer: optax.OptState


def make(config: GCBCConfig, spec: Spec) -> Agent:
    actor, optimizer = deterministic_actor(config.mlp, spec.action_size), optax.adam(config.policy_lr)

    def init(key):
        params = {"actor": actor.init(key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size))}
        return GCBCState(params, optimizer.init(params))

    def loss(params, batch):
        """Squared error, mean over the batch, summed over the action: maximum likelihood for noise of a fixed size."""
        action = jnp.tanh(actor.apply(params["actor"], batch.state, spec.goal_of(batch.future_state)))
        return jnp.mean(jnp.sum((action - batch.action) ** 2, axis=-1))

    def update(agent, batch, key):
        actor_loss, gradients = jax.value_and_grad(loss)(agent.params, batch)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer)
        return GCBCState(optax.apply_updates(agent.params, steps), optimizer_state), {"actor_loss": actor_loss}

    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, needs=config.needs)


AGENTS.add("gcbc", Algorithm(GCBCConfig, make))
