"""TMD: temporal metric distillation (arXiv 2509.20478), brought online: a contrastive critic whose logits are a learned
quasimetric d, made consistent with the dynamics by action invariance and a temporal backup; and, if flags ask, with
first visits: the distribution of the time until a goal is first reached, as in SRL (arXiv 2605.31273). `tmd_visits` is
the same with first visits, also of the goals that episodes were asked for, and an actor that shortens that time
(docs/tmd_online.md).
Offline as published: --contrastive_loss_fn infonce_backward --distance mrn --no_potential --temperature 22.6
--critics 2 --critic_goal state --repr_dim 512 --logsumexp_penalty 0 --step_weight 0 --invariance_weight 1
--relabel clipped --actor_relabel uniform --bc_weight 0.1 --h_dim 512 --n_hidden 3; what still differs:
docs/offline.md."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic, several
from goalax.agents.base import (
    AGENTS,
    Algorithm,
    ContrastiveConfig,
    QuasimetricConfig,
    critic_goal_flag,
    require_repr_dim,
)
from goalax.agents.consistency import ConsistencyConfig, backup_of, consistency, out_of_reach, weighted_sum
from goalax.agents.extraction import AWR, AdvantageConfig
from goalax.agents.first_visits import ORIGINAL_GOALS, Times, VisitConfig, VisitHead, goals_apart
from goalax.core.relabel.waypoint import mixed_steps
from goalax.core.sizes import samples_of
from goalax.core.types import Agent, Array, Batch, Law, Metrics, Needs, Spec
from goalax.flags import FlagError, flag
from goalax.learning import survival
from goalax.learning.diagnostics import SELF_SAMPLES, distance_metrics
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import Network, state_action

NEAREST = 0.05  # rows that even the distance 0 takes, for a time must be above 0
FIRST_SHAPE = 2.0  # of times around the distance: half of them within a factor of sqrt(3)


@dataclasses.dataclass(frozen=True)
class TMDConfig(ConsistencyConfig, QuasimetricConfig, VisitConfig, AdvantageConfig, ContrastiveConfig):
    temperature: float = flag(1.0, "of the logits -d / temperature; the initial one if it is learned", above=0)
    learn_temperature: bool = flag(False, "learn the temperature")
    potential: bool = flag(True, "add a learned c(g) to the logits (backward losses do not teach it)")
    critic_goal: str = critic_goal_flag("goal", "tmd_goal")
    critics: int = flag(1, "critics, the most pessimistic of which counts for the actor", low=1, high=2)
    contrastive_weight: float = flag(1.0, "weight of the contrastive loss", low=0)
    hazard_weight: float = flag(0.0, "weight of the likelihood of first visits", low=0)
    hazards: str = flag(
        "head",
        "what tells first visits: a head, the distance, or both, of which the actor goes by the sooner",
        valid=("head", "distance", "both"),
    )
    time_weight: float = flag(0.0, "weight of the distance being the time that the way took", low=0)
    separation_weight: float = flag(0.0, "weight of goals being as far as the window, unless reached", low=0)
    actor_value: str = flag("distance", "what the actor improves", valid=("distance", "hazard", "both"))
    time_bins: int = flag(
        48, "bins of the time to the first visit, growing geometrically; 0: one a row", low=0, high=100_000
    )
    value_discounting: float = flag(0.99, "gamma of the time that the actor minimises", above=0, below=1)

    @property
    def learns_visits(self) -> bool:
        return max(self.hazard_weight, self.time_weight, self.separation_weight) > 0

    @property
    def teaches_distance(self) -> bool:
        """Whether any loss does."""
        weights = [self.contrastive_weight, self.zeta, self.invariance_weight, self.step_weight]
        of_time = [self.time_weight, self.separation_weight, self.hazard_weight * (self.hazards != "head")]
        return max(*weights, *of_time) > 0

    def needs(self, spec: Spec) -> Needs:
        """FlagError where the actor should improve what nothing teaches, or a flag means nothing."""
        if self.actor_value != "distance" and self.hazard_weight == 0:
            raise FlagError(f"--actor_value is {self.actor_value!r}; it must come with --hazard_weight above 0.")
        if self.actor_value == "distance" and not self.teaches_distance:
            raise FlagError(
                "--contrastive_weight is 0, as are the other weights of losses that the distance learns from; with"
                " --actor_value distance one of them must be above 0."
            )
        if not self.learns_visits:
            why = "with --hazard_weight, --time_weight and --separation_weight 0"
            self.require_unset(["window", "censor", "original_goals"], why)
        elif self.original_goals and self.critic_goal == "state":
            self.refuse_originals("--critic_goal state, whose goals are full states")
        elif self.original_goals and max(self.hazard_weight, self.separation_weight) == 0:
            self.refuse_originals(
                "--hazard_weight and --separation_weight 0, which leave out goals that were not reached"
            )
        elif self.original_goals and self.backup == "waypoint":
            self.refuse_originals("--backup waypoint, whose way-points lie on ways to goals that were reached")
        elif self.hazard_weight == 0 and self.separation_weight == 0:
            self.require_unset(["censor"], "with --hazard_weight and --separation_weight 0")
        if self.hazard_weight == 0:
            self.require_unset(["time_bins", "head_dim", "hazards", "visit_backup"], "with --hazard_weight 0")
        if self.contrastive_weight == 0:
            names = ["contrastive_loss_fn", "logsumexp_penalty", "l2_penalty", "resubs", "temperature"]
            self.require_unset([*names, "learn_temperature", "potential"], "with --contrastive_weight 0")
        self.require_meaning()
        if self.hazards == "distance":
            self.require_unset(["head_dim"], "with --hazards distance, which has no head")
        if self.actor_value == "distance":
            self.require_unset(["value_discounting"], "with --actor_value distance")
        if self.extraction == AWR and self.actor_value != "distance":
            self.refuse("actor_value", f"with --extraction {AWR}, whose advantages are of distances")
        needs = super().needs(spec)
        if self.learns_visits:
            needs = self.with_visits(needs, spec)
        return needs._replace(waypoint=self.law_of_way_points) if self.backup == "waypoint" else needs

    def refuse_originals(self, other: str) -> NoReturn:
        raise FlagError(f"--original_goals is {self.original_goals:g}; with {other}, it must be 0.")

    @property
    def law_of_way_points(self) -> Law:
        """At least a chunk ahead, whose actions all lead there, or at the goal if that is nearer."""
        if self.action_chunk == 1:
            return mixed_steps
        return lambda uniform, ahead: jnp.maximum(mixed_steps(uniform, ahead), jnp.minimum(self.action_chunk, ahead))


@dataclasses.dataclass(frozen=True)
class TMDVisitsConfig(TMDConfig):
    """Shares of achieved goals, bins, chunks and the discount of the value are those of ChronoSRL, arXiv 2609.36238."""

    hazard_weight: float = flag(1.0, "weight of the likelihood of first visits", low=0)
    actor_value: str = flag("hazard", "what the actor improves", valid=("distance", "hazard", "both"))
    value_discounting: float = flag(0.999, "gamma of the time that the actor minimises", above=0, below=1)
    time_bins: int = flag(
        0, "bins of the time to the first visit, growing geometrically; 0: one a row", low=0, high=100_000
    )
    head_dim: int = flag(128, "width of the head that reads representations; 0: h_dim", low=0, most=1_000_000, before=0)
    current_goals: float = flag(0.05, "share of relabelled goals that are the state itself", low=0, high=1)
    any_goals: float = flag(0.10, "share of relabelled goals that are any stored state", low=0, high=1)
    original_goals: float = flag(0.25, ORIGINAL_GOALS, low=0, high=1, before=0.0)
    action_chunk: int = flag(
        2, "actions chosen at once, and taken one after the other (arXiv 2608.30640)", low=1, high=64
    )


class TMDCritic(NamedTuple):
    """The networks and losses of one critic."""

    config: TMDConfig
    spec: Spec
    decision: Spec  # of what the actor chooses at once
    head: VisitHead

    @property
    def encoder(self) -> Network[Array]:
        return self.config.mlp(self.config.repr_dim)

    @property
    def potential(self) -> Network[Array]:
        """Of goals alone: it learns as much at a quarter of the width."""
        return self.config.mlp(1, h_dim=math.ceil(self.config.h_dim / 4))

    @property
    def step(self) -> float:
        """The distance of a row."""
        return -math.log(self.spec.discounting)

    def init(self, keys: Iterator[Array]) -> dict[str, Any]:
        config, spec, encoder = self.config, self.spec, self.encoder
        goal = jnp.zeros(config.goal_size(spec))
        params = {
            "phi": encoder.init(next(keys), jnp.zeros(spec.state_size + self.decision.action_size)),
            "psi_s": encoder.init(next(keys), jnp.zeros(spec.state_size)),
            "metric": config.init_metric(),
        }
        if config.critic_goal == "goal":
            params["psi"] = encoder.init(next(keys), goal)
        if config.potential:
            params["potential"] = self.potential.init(next(keys), goal)
        if config.learn_temperature:
            params["log_temperature"] = jnp.log(jnp.float32(config.temperature))
        if config.hazard_weight and config.hazards != "distance":
            params["head"] = self.head.init(next(keys))
        if config.hazard_weight and config.hazards != "head":
            params["log_shape"] = jnp.log(jnp.float32(FIRST_SHAPE))
        return params

    def phi(self, params: dict, state: Array, action: Array) -> Array:
        return self.encoder.apply(params["phi"], state_action(state, action))

    def psi(self, params: dict, future_state: Array) -> Array:
        name = "psi" if self.config.critic_goal == "goal" else "psi_s"
        return self.encoder.apply(params[name], self.config.goal_input(self.spec, future_state))

    def logits(self, params: dict, d: Array, future_state: Array) -> tuple[Array, Array]:
        """Those of distances [B, B], and their temperature []."""
        config = self.config
        temperature = jnp.exp(params["log_temperature"]) if config.learn_temperature else config.temperature
        logits = -d / temperature
        if config.potential:
            logits += self.potential.apply(params["potential"], config.goal_input(self.spec, future_state)).T
        return logits, jnp.asarray(temperature)

    def loss(self, params: dict, batch: Batch) -> tuple[Array, Array, Metrics]:
        """Loss [], representations [B, D] of the goals, and metrics."""
        config, spec, metric = self.config, self.spec, self.config.metric(params["metric"])
        x, s = self.phi(params, batch.state, batch.action), self.encoder.apply(params["psi_s"], batch.state)
        s_next, y = self.encoder.apply(params["psi_s"], batch.next_state), self.psi(params, batch.future_state)
        later = backup_of(self.decision, spec.discounting, batch)
        s_later = s_next if batch.waypoint is None else self.encoder.apply(params["psi_s"], later.state)

        d = metric.pairwise(x, y)
        far = self.step * spec.max_decisions  # as far as an episode is long, for infinity, which no loss could bear
        d_later = out_of_reach(metric.pairwise(s_later, y), later.terminal, later.reached, far)
        logits, temperature = self.logits(params, d, batch.future_state)
        loss_fn = CONTRASTIVE_LOSSES[config.contrastive_loss_fn]
        asked = 0 if batch.visit is None else samples_of(config.original_goals, len(x))
        came = slice(len(x) - asked)  # without goals that nobody may have come to: --any_goals are few, and stay in
        contrastive, metrics = contrastive_loss(loss_fn, logits[came, came], x[came], y[came], **config.penalties)
        tied, tied_metrics = consistency(config, self.decision, metric, d, d_later, later.discounting, x, s, s_next)
        metrics |= {"contrastive_loss": contrastive, "temperature": temperature, **tied_metrics}
        itself = s[:SELF_SAMPLES], self.psi(params, batch.state[:SELF_SAMPLES])
        metrics |= distance_metrics(metric.between, x[came], y[came], s[came], itself)
        loss = weighted_sum((config.contrastive_weight, contrastive), (1, tied))
        if batch.visit is not None:
            more, others = self.visit_terms(params, metric.between(x, y), d, x, y, batch)
            loss, metrics = loss + more, metrics | others
        return loss, y, metrics

    def visit_terms(
        self, params: dict, own: Array, d: Array, x: Array, y: Array, batch: Batch
    ) -> tuple[Array, Metrics]:
        """What first visits say of representations [B, D] of samples and goals, weighted []; and metrics.

        Args:
          own, d: [B] distances of samples to their goals, [B, B] to all.
        """
        config, head, visit = self.config, self.head, batch.visit
        assert visit is not None  # as `needs` asks for it
        apart = goals_apart(self.spec, visit.goal).astype(d.dtype)
        time = survival.time_loss(own, visit.steps, visit.reached, self.step)
        separation = survival.separation_loss(d, apart, head.out_of_window(visit), self.step * head.window)
        loss = weighted_sum((config.time_weight, time), (config.separation_weight, separation))
        metrics = {"time_loss": time, "separation_loss": separation, "reached": jnp.mean(visit.reached)}
        if config.hazard_weight:
            then: Sequence[Times | None] = [None, None]
            if batch.next_action is not None:
                then = self.times(params, self.phi(params, batch.next_state, batch.next_action), y)
            pairs = zip(self.times(params, x, y), then, strict=False)
            hazard = sum((head.loss(now, visit, later, batch.discount) for now, later in pairs), start=jnp.zeros(()))
            loss, metrics = loss + config.hazard_weight * hazard, {**metrics, "hazard_loss": hazard}
        return loss, metrics

    def times(self, params: dict, x: Array, y: Array) -> list[Times]:
        """When goals [B, D] are first reached from samples [B, D]: what a head says, times around the distance."""
        found = []
        if self.config.hazards != "distance":
            found.append(self.head.apply(params["head"], x, y))
        if self.config.hazards != "head":
            median = self.config.metric(params["metric"]).between(x, y) / self.step + NEAREST
            now, hazards = survival.of_median(median, jnp.exp(params["log_shape"]), self.head.edges)
            found.append(Times(now, hazards, hazards[:, :0]))
        return found

    def visit_value(self, params: dict, x: Array, y: Array) -> Array:
        """Minus the expected discounted time, [B]; of two that tell it, the sooner: a first visit that nobody has seen
        from here may still follow from two that somebody has, by the triangle inequality."""
        return functools.reduce(jnp.maximum, map(self.head.value, self.times(params, x, y)))

    def value(self, params: dict, state: Array, action: Array, y: Array) -> Array:
        """What the actor improves, [B]; y: representations of goals."""
        config, x = self.config, self.phi(params, state, action)
        if config.actor_value == "hazard":
            return self.visit_value(params, x, y)
        nearness = -config.metric(params["metric"]).between(x, y)
        if config.actor_value == "distance":
            return nearness
        return self.visit_value(params, x, y) + nearness / self.step  # both in rows

    def advantage(self, params: dict, batch: Batch, y: Array) -> Array:
        """How much farther the goal is from states than it is after their actions, [B]; the best action has 0."""
        metric = self.config.metric(params["metric"])
        s, x = self.encoder.apply(params["psi_s"], batch.state), self.phi(params, batch.state, batch.action)
        return metric.between(s, y) - metric.between(x, y)


def make(config: TMDConfig, spec: Spec) -> Agent:
    critic = TMDCritic(config, spec, config.decision(spec), VisitHead.of(config, spec))
    require_repr_dim(config.repr_dim, config.metric(config.init_metric()).pairwise)

    def goals(params, future_state, future_action):
        return critic.psi(params, future_state)

    one = Critic(critic.init, critic.loss, goals, critic.value, critic.advantage, config.visit_backup)
    return actor_critic(config, spec, several(one, config.critics))


AGENTS.add("tmd", Algorithm(TMDConfig, make))
AGENTS.add("tmd_visits", Algorithm(TMDVisitsConfig, make))
