"""CRL: contrastive RL (arXiv 2206.07568; online in JAX: arXiv 2408.11052).
Offline as in OGBench: --contrastive_loss_fn binary --energy_fn scaled_dot --critics 2 --critic_goal state
--logsumexp_penalty 0 --relabel clipped --actor_relabel uniform --bc_weight 0.1; what still differs: docs/offline.md."""

import dataclasses

import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic, several
from goalax.agents.base import (
    AGENTS,
    Algorithm,
    ContrastiveConfig,
    CriticGoalConfig,
    critic_goal_flag,
    require_repr_dim,
)
from goalax.core.types import Agent, Spec
from goalax.flags import flag
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import state_action


@dataclasses.dataclass(frozen=True)
class CRLConfig(CriticGoalConfig, ContrastiveConfig):
    energy_fn: str = flag("l2", "what turns two representations into a logit", valid=ENERGIES)
    critics: int = flag(1, "critics, the most pessimistic of which counts for the actor", low=1, high=2)
    critic_goal: str = critic_goal_flag("goal")


def make(config: CRLConfig, spec: Spec) -> Agent:
    decision, encoder = config.decision(spec), config.mlp(config.repr_dim)
    energy, loss_fn = ENERGIES[config.energy_fn], CONTRASTIVE_LOSSES[config.contrastive_loss_fn]

    require_repr_dim(config.repr_dim, lambda x, y: energy.pairwise(x, y, energy.init_param()))

    def phi(params, state, action):
        return encoder.apply(params["phi"], state_action(state, action))

    def init(keys):
        return {
            "phi": encoder.init(next(keys), jnp.zeros(spec.state_size + decision.action_size)),
            "psi": encoder.init(next(keys), jnp.zeros(config.goal_size(spec))),
            "energy": energy.init_param(),
        }

    def goals(params, future_state, future_action):
        return encoder.apply(params["psi"], config.goal_input(spec, future_state))

    def loss(params, batch):
        sources, targets = phi(params, batch.state, batch.action), goals(params, batch.future_state, None)
        logits = energy.pairwise(sources, targets, params["energy"])
        total, metrics = contrastive_loss(loss_fn, logits, sources, targets, **config.penalties)
        return total, targets, metrics

    def value(params, state, action, targets):
        return energy(phi(params, state, action), targets, params["energy"])

    critic = Critic(init, loss, goals, value)
    return actor_critic(config, spec, critic if config.critics == 1 else several(critic, config.critics))


AGENTS.add("crl", Algorithm(CRLConfig, make))
