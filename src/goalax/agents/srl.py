"""SRL: survival reinforcement learning (arXiv 2605.31273), `srl`, published with --discounting 0.999: a critic that
learns the distribution of the time until a goal is first reached; and ChronoSRL (arXiv 2609.36238), `chronosrl`: with
chunks of actions, representations whose distance is that time, and the share of later times spent at the goal."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic
from goalax.agents.base import AGENTS, ActorConfig, Algorithm
from goalax.agents.first_visits import Times, VisitConfig, VisitHead, goals_apart
from goalax.core.types import Agent, Array, Batch, Metrics, Spec, Visit
from goalax.flags import FlagError, flag
from goalax.learning import survival
from goalax.learning.networks import BLOCK, Network, normed, state_action
from goalax.learning.pairwise import pairwise_squared_distance

PAIR_EPS = 1e-6  # under the root of distances between all pairs, whose squares are rounded to about as much


@dataclasses.dataclass(frozen=True)
class SRLConfig(VisitConfig, ActorConfig):
    """Shares of goals, window, bins and the discount of the value as published. There "any" goals are of the same 1,000
    rows of the same environment, here of the whole buffer."""

    current_goals: float = flag(0.05, "share of relabelled goals that are the state itself", low=0, high=1)
    any_goals: float = flag(0.10, "share of relabelled goals that are any stored state", low=0, high=1)
    repr_dim: int = flag(128, "size of the representations", low=1, most=1_000_000)


@dataclasses.dataclass(frozen=True)
class ChronoConfig(SRLConfig):
    action_chunk: int = flag(
        2, "actions chosen at once, and taken one after the other (arXiv 2608.30640)", low=1, high=64
    )
    repr_dim: int = flag(64, "size of the representations", low=1, most=1_000_000)
    time_weight: float = flag(1.0, "weight of the distance being the time that the way took", low=0)
    separation_weight: float = flag(1.0, "weight of goals being as far as the window, unless reached", low=0)
    occupancy_weight: float = flag(1.0, "weight of the share of later times at the goal; 0: none", low=0)
    occupancy_bins: int = flag(32, "bins of the time for that share, growing geometrically", low=1, high=100_000)


class Goals(NamedTuple):
    """What the actor keeps of the goals of a batch."""

    psi: Array  # [B, D] representations
    terminates: Array  # [B] share of samples whose episode ends for good, the same for all


class SurvivalCritic(NamedTuple):
    """The networks and the losses of a critic of first visits."""

    config: SRLConfig
    spec: Spec  # of whole chunks
    head: VisitHead

    @classmethod
    def of(cls, config: SRLConfig, spec: Spec) -> "SurvivalCritic":
        bins = config.occupancy_bins if isinstance(config, ChronoConfig) and config.occupancy_weight else 0
        return cls(config, config.decision(spec), VisitHead.of(config, spec, bins))

    @property
    def encoder(self) -> Network[Array]:
        """SRL's encoders have half as many layers as its head, and LayerNorm at the end; ChronoSRL's have as many and
        no such end, for it needs lengths. Half a --depth that is no whole block is that many plain layers; of one with
        half a block left over, only the whole blocks count."""
        config, half = self.config, self.config.depth // 2
        if isinstance(config, ChronoConfig):
            return config.mlp(config.repr_dim)
        if not config.depth:
            layers = {"n_hidden": max(1, math.ceil(config.n_hidden / 2))}
        elif half < BLOCK:
            layers = {"depth": 0, "n_hidden": half, "skip_connections": 0}
        else:
            layers = {"depth": half // BLOCK * BLOCK}
        return normed(config.mlp(config.repr_dim, **layers))

    def init(self, keys: Any) -> dict[str, Any]:
        spec = self.spec
        return {
            "phi": self.encoder.init(next(keys), jnp.zeros(spec.state_size + spec.action_size)),
            "psi": self.encoder.init(next(keys), jnp.zeros(spec.goal_size)),
            "head": self.head.init(next(keys)),
        }

    def phi(self, params: dict, state: Array, action: Array) -> Array:
        return self.encoder.apply(params["phi"], state_action(state, action))

    def psi(self, params: dict, future_state: Array) -> Array:
        return self.encoder.apply(params["psi"], self.spec.goal_of(future_state))

    def goals(self, params: dict, future_state: Array, future_action: Array) -> Goals:
        return Goals(self.psi(params, future_state), jnp.zeros(len(future_state)))

    def value(self, params: dict, state: Array, action: Array, goals: Goals) -> Array:
        """Minus the discounted time to the goal, and as far as episodes end for good the time that is spent there."""
        times = self.head.apply(params["head"], self.phi(params, state, action), goals.psi)
        value = self.head.value(times)
        if not self.head.occupancy_edges:
            return value
        return value + goals.terminates * self.head.occupancy_value(times)

    def loss(self, params: dict, batch: Batch) -> tuple[Array, Goals, Metrics]:
        visit = batch.visit
        assert visit is not None  # `make` asks for it
        x, y = self.phi(params, batch.state, batch.action), self.psi(params, batch.future_state)
        times = self.head.apply(params["head"], x, y)
        later = None
        if batch.next_action is not None:
            later = self.head.apply(params["head"], self.phi(params, batch.next_state, batch.next_action), y)
        loss = self.head.loss(times, visit, later, batch.discount)
        metrics = {"hazard_loss": loss, "reached": jnp.mean(visit.reached)}
        if isinstance(self.config, ChronoConfig):
            more, others = self.chrono_loss(self.config, x, y, times, visit)
            loss, metrics = loss + more, metrics | others
        terminates = jnp.full(len(y), jnp.mean(visit.terminates))
        return loss, Goals(y, terminates), metrics

    def chrono_loss(
        self, config: ChronoConfig, x: Array, y: Array, times: Times, visit: Visit
    ) -> tuple[Array, Metrics]:
        """What ChronoSRL adds: distances in time, and the occupancy."""
        step = -math.log(config.value_discounting)
        own = jnp.sqrt(jnp.sum((x - y) ** 2, axis=-1) + 1e-12)
        apart = goals_apart(self.spec, visit.goal)
        distances = jnp.sqrt(pairwise_squared_distance(x, y) + PAIR_EPS)
        distances = jnp.where(jnp.eye(len(x), dtype=bool), own[:, None], distances)
        time = survival.time_loss(own, visit.steps, visit.reached, step)
        separation = survival.separation_loss(
            distances, apart.astype(x.dtype), self.head.out_of_window(visit), step * self.head.window
        )
        loss = config.time_weight * time + config.separation_weight * separation
        metrics = {"time_loss": time, "separation_loss": separation, "distance_pos": jnp.mean(own)}
        if self.head.occupancy_edges:
            share = survival.occupancy_loss(times.occupancy, visit.occupancy, visit.observed)
            loss, metrics = loss + config.occupancy_weight * share, {**metrics, "occupancy_loss": share}
        return loss, metrics


def make(config: SRLConfig, spec: Spec) -> Agent:
    if isinstance(config, ChronoConfig) and not config.occupancy_weight:
        config.require_unset(["occupancy_bins"], "with --occupancy_weight 0")
    critic, needs = SurvivalCritic.of(config, spec), config.needs(spec)
    if critic.head.occupancy_edges and needs.actor_goals is not None:
        raise FlagError(
            f"--actor_relabel is {config.actor_relabel!r}; with --occupancy_weight the actor must have the goals of the"
            " critic: leave one of them out."
        )
    needs = config.with_visits(needs, spec)._replace(bins=critic.head.occupancy_edges)
    functions = Critic(critic.init, critic.loss, critic.goals, critic.value, next_action=config.visit_backup)
    return actor_critic(config, spec, functions, needs)


AGENTS.add("srl", Algorithm(SRLConfig, make))
AGENTS.add("chronosrl", Algorithm(ChronoConfig, make))
