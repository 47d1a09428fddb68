"""What ties TMD's quasimetric to the dynamics (arXiv 2509.20478): action invariance, temporal backup and one step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.base import AgentConfig
from goalax.core.types import Array, Batch, Metrics, Spec
from goalax.flags import flag
from goalax.learning.quasimetrics import Quasimetric

TINY = float(jnp.finfo(jnp.float32).tiny)  # gamma to the power of many rows is no less, or the divergence has no least


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig(AgentConfig):
    # What each of these does, measured: docs/tmd_online.md.
    zeta: float = flag(0.05, "weight of the temporal backup", low=0)
    invariance_weight: float = flag(0.1, "weight of action invariance", low=0)
    step_weight: float = flag(0.1, "weight of d(s, a -> s') = log(1 / gamma), the backup where g = s'", low=0)
    invariance_pairs: str = flag("matched", "action invariance of every state with", valid=("matched", "all"))
    linex_clip: float = flag(3.0, "where the backup's divergence turns from exponential to linear", above=0)
    diag_backup: float = flag(0.5, "share of the backup's weight for every sample's own goal alone", low=0, high=1)
    stop_invariance: str = flag("none", "side of invariance without gradient", valid=("none", "state", "action"))
    stop_backup: bool = flag(True, "no gradient through the backup's target")
    # A row further on the way to the goal in the place of the next one: MQE, arXiv 2511.07730.
    backup: str = flag("next", "the backup's target: the next state, or one on the way", valid=("next", "waypoint"))

    def require_meaning(self) -> None:
        """FlagError if flags of a term are set that weighs nothing."""
        if self.zeta == 0:
            self.require_unset(["backup", "diag_backup", "stop_backup"], "with --zeta 0")
        if max(self.zeta, self.step_weight) == 0:
            self.require_unset(["linex_clip"], "with --zeta 0 and --step_weight 0")
        if self.invariance_weight == 0:
            self.require_unset(["invariance_pairs", "stop_invariance"], "with --invariance_weight 0")


def linex(distance: Array, target: Array | float, discounting: Array | float, clip: float) -> Array:
    """How far d(s, a -> g) is from 1 step of log(1 / discounting) plus the target d(s' -> g), elementwise.

    discounting * exp(distance - target) - distance, least where distance = target - log(discounting); past `clip` the
    difference itself stands in for the exponential (as published; the value jumps there, the gradient stays bounded).
    Where the minimum lies past `clip`, it does so from the minimum on, or all of that would be learned as `clip`.
    """
    discounting = jnp.maximum(discounting, TINY)
    delta, edge = distance - target, linear_from(discounting, clip)
    # The exponent is clamped too: where the linear branch is taken, an overflow would turn the gradient into nan.
    curved = discounting * jnp.exp(jnp.minimum(delta, edge)) - distance
    return jnp.where(delta <= edge, curved, delta)


def linear_from(discounting: Array | float, clip: float) -> Array:
    """Where the divergence turns linear."""
    return jnp.maximum(clip, -jnp.log(jnp.maximum(discounting, TINY)))


def weighted_mean(matrix: Array, diagonal: float) -> Array:
    """`diagonal` times the mean of the diagonal of [B, B] plus 1 - `diagonal` times the mean of all entries."""
    return diagonal * jnp.mean(jnp.diagonal(matrix)) + (1 - diagonal) * jnp.mean(matrix)


def weighted_sum(*terms: tuple[float, Array]) -> Array:
    """Sum [] of weights times losses []; one that weighs nothing costs no gradient, and may still be a metric."""
    return sum((weight * loss for weight, loss in terms if weight), start=jnp.zeros(()))


class Backup(NamedTuple):
    """What the distances from samples are made consistent with."""

    state: Array  # [B, S] later on the way
    discounting: Array  # [B, 1] gamma to the power of the rows until there
    terminal: Array  # [B] bool, the episode has ended there for good
    reached: Array  # [B] 1 at the goal of the sample, else 0


def backup_of(decision: Spec, gamma: float, batch: Batch) -> Backup:
    """The next state, or with --backup waypoint another one before the goal; gamma: per row."""
    if batch.waypoint is None:
        discounting = jnp.full((len(batch.state), 1), decision.discounting)
        return Backup(batch.next_state, discounting, batch.discount == 0, batch.future_reward)
    way = batch.waypoint
    return Backup(way.state, (gamma**way.steps)[:, None], way.terminal > 0, way.reached)


def consistency(
    config: ConsistencyConfig,
    spec: Spec,
    metric: Quasimetric,
    d: Array,
    d_later: Array,
    discounting: Array,
    x: Array,
    s: Array,
    s_next: Array,
) -> tuple[Array, Metrics]:
    """What ties the distances to the dynamics: action invariance, temporal backup and one step, weighted; and metrics.

    Args:
      spec: of what the actor chooses at once.
      d, d_later: [B, B] distances from x, and from what comes later, to goals.
      discounting: [B, 1] gamma to the power of the rows between these two.
      x, s, s_next: [B, D] representations of (s, a), and of s and s' as states; s' is a source in the
        back-up and the goal of the one step.
    """
    stop = jax.lax.stop_gradient
    source = stop(s) if config.stop_invariance == "state" else s
    target = stop(x) if config.stop_invariance == "action" else x
    invariance = jnp.mean((metric.between if config.invariance_pairs == "matched" else metric.pairwise)(source, target))

    d_later = stop(d_later) if config.stop_backup else d_later
    backup = weighted_mean(linex(d, d_later, discounting, config.linex_clip), config.diag_backup)

    step = jnp.mean(linex(metric.between(x, s_next), 0.0, spec.discounting, config.linex_clip))

    loss = weighted_sum((config.invariance_weight, invariance), (config.step_weight, step), (config.zeta, backup))
    return loss, {
        "invariance_loss": invariance,
        "step_loss": step,
        "backup_loss": backup,
        "linex_clip_share": jnp.mean(d - d_later > linear_from(discounting, config.linex_clip)),
    }


def out_of_reach(d: Array, terminal: Array, there: Array, far: float) -> Array:
    """Distances [B, B] from states, where terminal ones are `far` from every goal: nothing is reached after the end.

    Args:
      terminal: [B] bool.
      there: [B] whether a state is at the goal of its own sample, from which it keeps its distance.
    """
    own = jnp.eye(len(d), dtype=bool) & (there > 0)[:, None]
    return jnp.where(terminal[:, None] & ~own, far, d)
