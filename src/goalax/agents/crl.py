"""CRL: contrastive RL (arXiv 2206.07568; online in JAX: arXiv 2408.11052).
Offline as in OGBench: --contrastive_loss_fn binary --energy_fn scaled_dot --critics 2 --critic_goal state
--repr_dim 512 --logsumexp_penalty 0 --relabel clipped --actor_relabel uniform --bc_weight 0.1 --h_dim 512 --n_hidden 3;
what still differs: docs/offline.md."""

import dataclasses
from typing import NamedTuple

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
from goalax.agents.extraction import AWR, AdvantageConfig
from goalax.core.types import Agent, Array, Spec
from goalax.flags import flag
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import state_action


@dataclasses.dataclass(frozen=True)
class CRLConfig(CriticGoalConfig, AdvantageConfig, ContrastiveConfig):
    energy_fn: str = flag("l2", "what turns two representations into a logit", valid=ENERGIES)
    critics: int = flag(1, "critics, the most pessimistic of which counts for the actor", low=1, high=2)
    critic_goal: str = critic_goal_flag("goal")


class Goals(NamedTuple):
    """Representations [B, D] of goals."""

    of_pairs: Array  # for the critic of states and actions
    of_states: Array | None  # for that of states alone, with --extraction awr


def make(config: CRLConfig, spec: Spec) -> Agent:
    decision, encoder = config.decision(spec), config.mlp(config.repr_dim)
    energy, loss_fn = ENERGIES[config.energy_fn], CONTRASTIVE_LOSSES[config.contrastive_loss_fn]

    require_repr_dim(config.repr_dim, lambda x, y: energy.pairwise(x, y, energy.init_param()))

    def start(keys, size):
        return {
            "phi": encoder.init(next(keys), jnp.zeros(size)),
            "psi": encoder.init(next(keys), jnp.zeros(config.goal_size(spec))),
            "energy": energy.init_param(),
        }

    def init(keys):
        params = start(keys, spec.state_size + decision.action_size)
        return params if config.extraction != AWR else {**params, "of_states": start(keys, spec.state_size)}

    def encoded(params, future_state):
        return encoder.apply(params["psi"], config.goal_input(spec, future_state))

    def goals(params, future_state, future_action):
        of_states = encoded(params["of_states"], future_state) if "of_states" in params else None
        return Goals(encoded(params, future_state), of_states)

    def contrast(params, inputs, targets):
        sources = encoder.apply(params["phi"], inputs)
        logits = energy.pairwise(sources, targets, params["energy"])
        return contrastive_loss(loss_fn, logits, sources, targets, **config.penalties)

    def loss(params, batch):
        targets = goals(params, batch.future_state, None)
        total, metrics = contrast(params, state_action(batch.state, batch.action), targets.of_pairs)
        if targets.of_states is not None:
            of_states, _ = contrast(params["of_states"], batch.state, targets.of_states)
            total, metrics = total + of_states, {**metrics, "value_loss": of_states}
        return total, targets, metrics

    def nearness(params, inputs, targets):
        return energy(encoder.apply(params["phi"], inputs), targets, params["energy"])

    def value(params, state, action, targets):
        return nearness(params, state_action(state, action), targets.of_pairs)

    def advantage(params, batch, targets):
        usual = nearness(params["of_states"], batch.state, targets.of_states)
        return value(params, batch.state, batch.action, targets) - usual

    critic = Critic(init, loss, goals, value, advantage)
    return actor_critic(config, spec, critic if config.critics == 1 else several(critic, config.critics))


AGENTS.add("crl", Algorithm(CRLConfig, make))
