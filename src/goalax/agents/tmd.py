"""TMD: temporal metric distillation (arXiv 2509.20478), brought online: a contrastive critic whose logits are a learned
quasimetric d, made consistent with the dynamics by action invariance and a temporal backup."""

import dataclasses
import math
from collections.abc import Iterator
from functools import reduce

import jax
import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic
from goalax.agents.base import AGENTS, Algorithm, ContrastiveConfig, QuasimetricConfig, require_repr_dim
from goalax.core.types import Agent, Array, Batch, Metrics, Spec
from goalax.flags import flag
from goalax.learning.diagnostics import SELF_SAMPLES, distance_metrics
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import state_action
from goalax.learning.quasimetrics import Quasimetric


@dataclasses.dataclass(frozen=True)
class TMDConfig(QuasimetricConfig, ContrastiveConfig):
    # What each of these does, measured: docs/tmd_online.md.
    zeta: float = flag(0.05, "weight of the temporal backup", low=0)
    invariance_weight: float = flag(0.1, "weight of action invariance", low=0)
    step_weight: float = flag(0.1, "weight of d(s, a -> s') = log(1 / gamma), the backup where g = s'", low=0)
    invariance_pairs: str = flag("matched", "action invariance of every state with", valid=("matched", "all"))
    linex_clip: float = flag(3.0, "where the backup's divergence turns from exponential to linear", above=0)
    diag_backup: float = flag(0.5, "share of the backup's weight that is for positives alone", low=0, high=1)
    stop_invariance: str = flag("none", "side of invariance without gradient", valid=("none", "state", "action"))
    stop_backup: bool = flag(True, "no gradient through the backup's target")
    temperature: float = flag(1.0, "of the logits -d / temperature; the initial one if it is learned", above=0)
    learn_temperature: bool = flag(False, "learn the temperature")
    potential: bool = flag(True, "add a learned c(g) to the logits, so that d(g, g) = 0 costs nothing")
    tmd_goal: str = flag("goal", "what the critic gets: goal coordinates or full states", valid=("goal", "state"))
    critics: int = flag(1, "critics, the most pessimistic of which counts for the actor", low=1, high=2)


def linex(distance: Array, target: Array | float, discounting: float, clip: float) -> Array:
    """How far d(s, a -> g) is from 1 step of log(1 / discounting) plus the target d(s' -> g), elementwise.

    discounting * exp(distance - target) - distance, least where distance = target - log(discounting); past `clip` the
    difference itself stands in for the exponential (as published; the value jumps there, the gradient stays bounded).
    """
    delta = distance - target
    # The exponent is clamped too: where the linear branch is taken, an overflow would turn the gradient into nan.
    curved = discounting * jnp.exp(jnp.minimum(delta, clip)) - distance
    return jnp.where(delta <= clip, curved, delta)


def weighted_mean(matrix: Array, diagonal: float) -> Array:
    """`diagonal` times the mean of the diagonal of [B, B] plus 1 - `diagonal` times the mean of all entries."""
    return diagonal * jnp.mean(jnp.diagonal(matrix)) + (1 - diagonal) * jnp.mean(matrix)


def consistency(
    config: TMDConfig, discounting: float, metric: Quasimetric, d: Array, x: Array, s: Array, s_next: Array, y: Array
) -> tuple[Array, Metrics]:
    """What ties the distances to the dynamics: action invariance, temporal backup and one step, weighted; and metrics.

    Args:
      d: [B, B] distances from x to y.
      x, s, s_next, y: [B, D] representations of (s, a), of s and s' as sources, and of goals.
    """
    stop = jax.lax.stop_gradient
    source = stop(s) if config.stop_invariance == "state" else s
    target = stop(x) if config.stop_invariance == "action" else x
    invariance = jnp.mean((metric.between if config.invariance_pairs == "matched" else metric.pairwise)(source, target))

    d_next = metric.pairwise(s_next, y)
    d_next = stop(d_next) if config.stop_backup else d_next
    backup = weighted_mean(linex(d, d_next, discounting, config.linex_clip), config.diag_backup)

    step = jnp.mean(linex(metric.between(x, s_next), 0.0, discounting, config.linex_clip))

    loss = config.invariance_weight * invariance + config.step_weight * step + config.zeta * backup
    return loss, {
        "invariance_loss": invariance,
        "step_loss": step,
        "backup_loss": backup,
        "linex_clip_share": jnp.mean(d - d_next > config.linex_clip),
    }


def make(config: TMDConfig, spec: Spec) -> Agent:
    decision, encoder = config.decision(spec), config.mlp(config.repr_dim)
    potential = config.mlp(1, h_dim=math.ceil(config.h_dim / 4))  # of goals alone: it learns as much at 1/4 the width
    loss_fn = CONTRASTIVE_LOSSES[config.contrastive_loss_fn]
    require_repr_dim(config.repr_dim, config.metric(config.init_metric()).pairwise)

    def phi(params: dict, state: Array, action: Array) -> Array:
        return encoder.apply(params["phi"], state_action(state, action))

    def init_one(keys: Iterator[Array]) -> dict:
        params = {
            "phi": encoder.init(next(keys), jnp.zeros(spec.state_size + decision.action_size)),
            "psi_s": encoder.init(next(keys), jnp.zeros(spec.state_size)),
            "metric": config.init_metric(),
        }
        goal = jnp.zeros(spec.goal_size if config.tmd_goal == "goal" else spec.state_size)
        if config.tmd_goal == "goal":
            params["psi"] = encoder.init(next(keys), goal)
        if config.potential:
            params["potential"] = potential.init(next(keys), goal)
        if config.learn_temperature:
            params["log_temperature"] = jnp.log(jnp.float32(config.temperature))
        return params

    def goal_of(future_state: Array) -> Array:
        return spec.goal_of(future_state) if config.tmd_goal == "goal" else future_state

    def goals_one(params: dict, future_state: Array) -> Array:
        return encoder.apply(params["psi" if config.tmd_goal == "goal" else "psi_s"], goal_of(future_state))

    def loss_one(params: dict, batch: Batch) -> tuple[Array, Array, Metrics]:
        """Loss of one critic, representations [B, D] of the goals, and metrics."""
        metric = config.metric(params["metric"])
        x, s = phi(params, batch.state, batch.action), encoder.apply(params["psi_s"], batch.state)
        s_next, y = encoder.apply(params["psi_s"], batch.next_state), goals_one(params, batch.future_state)

        d = metric.pairwise(x, y)
        temperature = jnp.exp(params["log_temperature"]) if config.learn_temperature else config.temperature
        logits = -d / temperature
        if config.potential:
            logits += potential.apply(params["potential"], goal_of(batch.future_state)).T
        contrastive, metrics = contrastive_loss(loss_fn, logits, x, y, **config.penalties)
        tied, tied_metrics = consistency(config, decision.discounting, metric, d, x, s, s_next, y)
        metrics |= {"contrastive_loss": contrastive, "temperature": jnp.asarray(temperature), **tied_metrics}
        itself = s[:SELF_SAMPLES], goals_one(params, batch.state[:SELF_SAMPLES])
        metrics |= distance_metrics(metric.between, x, y, s, itself)
        return contrastive + tied, y, metrics

    def init(keys):
        return [init_one(keys) for _ in range(config.critics)]

    # Critics one after the other, not vmapped: XLA's batched products are several times slower on CPUs.

    def goals(params, future_state, future_action):
        return [goals_one(critic, future_state) for critic in params]

    def loss(params, batch):
        losses, targets, metrics = zip(*(loss_one(critic, batch) for critic in params), strict=True)
        return sum(losses), list(targets), jax.tree.map(lambda *values: sum(values) / len(values), *metrics)

    def value(params, state, action, targets):
        distances = [
            config.metric(critic["metric"]).between(phi(critic, state, action), target)
            for critic, target in zip(params, targets, strict=True)
        ]
        return -reduce(jnp.maximum, distances)

    return actor_critic(config, spec, Critic(init, loss, goals, value))


AGENTS.add("tmd", Algorithm(TMDConfig, make))
