"""CMD: contrastive metric distillation (arXiv 2406.17098) in one step (`cmd`) or two (`cmd2`).
Offline as published: --contrastive_loss_fn binary --distance mrn --no_potential --temperature 22.6 --critics 2
--repr_dim 512 --logsumexp_penalty 0 --relabel clipped --actor_relabel uniform --bc_weight 0.1 --h_dim 512 --n_hidden 3;
what still differs: docs/offline.md."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic, several
from goalax.agents.base import AGENTS, Algorithm, ContrastiveConfig, QuasimetricConfig, require_repr_dim
from goalax.core.types import Agent, Array, Batch, Metrics, Spec
from goalax.flags import flag
from goalax.learning.diagnostics import SELF_SAMPLES, distance_metrics, neighbours
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import Network, state_action


@dataclasses.dataclass(frozen=True)
class CMDConfig(QuasimetricConfig, ContrastiveConfig):
    temperature: float = flag(1.0, "of the distance in the logits c(g) - d / temperature", above=0)
    potential: bool = flag(True, "learn the c(g) of the logits (backward losses do not); else it is 0")
    critics: int = flag(1, "critics, the most pessimistic of which counts for the actor", low=1, high=2)


@dataclasses.dataclass(frozen=True)
class CMD2Config(QuasimetricConfig, ContrastiveConfig):
    energy_fn: str = flag("l2", "what turns two representations into a logit", valid=ENERGIES)
    distillation_weight: float = flag(1.0, "weight of the distillation", above=0)


class Goals(NamedTuple):
    """How an agent sees goals: as pairs of a state and an action like everything else, or by their coordinates."""

    config: QuasimetricConfig
    spec: Spec  # of what the actor chooses at once
    encoder: Network[Array]

    def init(self, keys: Iterator[Array]) -> dict[str, Any]:
        """Parameters of the encoder of coordinates, which pairs do without."""
        if self.config.critic_goal == "state":
            return {}
        return {"goals": self.encoder.init(next(keys), jnp.zeros(self.spec.goal_size))}

    def inputs(self, state: Array, action: Array) -> Array:
        """What is encoded of the goals that states achieve, [B, S + A] or [B, G]."""
        return self.spec.goal_of(state) if self.config.critic_goal == "goal" else state_action(state, action)

    def encode(self, params: dict, inputs: Array) -> Array:
        return self.encoder.apply(params["goals" if self.config.critic_goal == "goal" else "encoder"], inputs)


def goals_of(goals: Goals, state: Array, action: Array) -> Array:
    """Inputs of a batch's goals; the actions come from other samples: the goal is the state alone."""
    return goals.inputs(state, neighbours(action))


def metrics_of(goals: Goals, params: dict, batch: Batch, sources: Array, targets: Array) -> Metrics:
    """`distance_metrics` of encoded state-action pairs and goals, [B, D]."""
    again = goals.encode(params, goals_of(goals, batch.state[:SELF_SAMPLES], batch.action[:SELF_SAMPLES]))
    between = goals.config.metric(params["metric"]).between
    return distance_metrics(between, sources, targets, sources, (sources[:SELF_SAMPLES], again))


def critic_of(goals: Goals, init: Callable, loss: Callable) -> Critic:
    """The critic whose value is minus the distance between encoded state-action pairs and goals."""

    def targets_of(params, future_state, future_action):
        return goals.encode(params, goals.inputs(future_state, future_action))

    def value(params, state, action, targets):
        source = goals.encoder.apply(params["encoder"], state_action(state, action))
        return -goals.config.metric(params["metric"]).between(source, targets)

    return Critic(init, loss, targets_of, value)


def make(config: CMDConfig, spec: Spec) -> Agent:
    """Logits c(g) - d(x(s, a), x(g)): with the free potential c, d is the distance of arXiv 2406.17098, Eq. 11."""
    decision, encoder, potential = config.decision(spec), config.mlp(config.repr_dim), config.mlp(1)
    loss_fn, as_goals = CONTRASTIVE_LOSSES[config.contrastive_loss_fn], Goals(config, decision, encoder)
    require_repr_dim(config.repr_dim, config.metric(config.init_metric()).pairwise)

    def init(keys):
        pair = jnp.zeros((1, spec.state_size + decision.action_size))
        one_goal = as_goals.inputs(pair[:, : spec.state_size], pair[:, spec.state_size :])
        return {
            "encoder": encoder.init(next(keys), pair),
            **({"potential": potential.init(next(keys), one_goal)} if config.potential else {}),
            "metric": config.init_metric(),
            **as_goals.init(keys),
        }

    def loss(params, batch):
        goals = goals_of(as_goals, batch.future_state, batch.future_action)
        sources = encoder.apply(params["encoder"], state_action(batch.state, batch.action))
        targets = as_goals.encode(params, goals)
        d = config.metric(params["metric"]).pairwise(sources, targets)
        if config.potential:
            logits = potential.apply(params["potential"], goals).T - d / config.temperature
        else:
            logits = -d / config.temperature
        total, metrics = contrastive_loss(loss_fn, logits, sources, targets, **config.penalties)
        return total, targets, metrics | metrics_of(as_goals, params, batch, sources, targets)

    critic = critic_of(as_goals, init, loss)
    return actor_critic(config, spec, critic if config.critics == 1 else several(critic, config.critics))


def make_two_step(config: CMD2Config, spec: Spec) -> Agent:
    """A contrastive critic f, and a quasimetric that learns the distance f(g, a_g, g) - f(s, a, g) from it."""
    decision, encoder = config.decision(spec), config.mlp(config.repr_dim)
    as_goals = Goals(config, decision, encoder)
    energy, loss_fn = ENERGIES[config.energy_fn], CONTRASTIVE_LOSSES[config.contrastive_loss_fn]
    require_repr_dim(config.repr_dim, lambda x, y: energy.pairwise(x, y, energy.init_param()))
    require_repr_dim(config.repr_dim, config.metric(config.init_metric()).pairwise)

    def init(keys):
        pair = jnp.zeros(spec.state_size + decision.action_size)
        return {
            "phi": encoder.init(next(keys), pair),
            "psi": encoder.init(next(keys), jnp.zeros(spec.goal_size)),
            "energy": energy.init_param(),
            "encoder": encoder.init(next(keys), pair),
            "metric": config.init_metric(),
            **as_goals.init(keys),
        }

    def loss(params, batch):
        here = state_action(batch.state, batch.action)
        there = state_action(batch.future_state, neighbours(batch.future_action))
        phi, psi = encoder.apply(params["phi"], here), encoder.apply(params["psi"], spec.goal_of(batch.future_state))
        logits = energy.pairwise(phi, psi, params["energy"])
        contrastive, metrics = contrastive_loss(loss_fn, logits, phi, psi, **config.penalties)

        at_goal = energy(encoder.apply(params["phi"], there), psi, params["energy"])
        taught = jax.lax.stop_gradient(jax.nn.relu(at_goal[None, :] - logits))
        sources = encoder.apply(params["encoder"], here)
        targets = as_goals.encode(params, goals_of(as_goals, batch.future_state, batch.future_action))
        d = config.metric(params["metric"]).pairwise(sources, targets)
        distillation = jnp.mean((d - taught) ** 2)
        metrics |= {"contrastive_loss": contrastive, "distillation_loss": distillation}
        metrics |= metrics_of(as_goals, params, batch, sources, targets)
        return contrastive + config.distillation_weight * distillation, targets, metrics

    return actor_critic(config, spec, critic_of(as_goals, init, loss))


AGENTS.add("cmd", Algorithm(CMDConfig, make))
AGENTS.add("cmd2", Algorithm(CMD2Config, make_two_step))
