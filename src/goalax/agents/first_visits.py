"""What agents share that learn when goals are first reached: flags, and a head for the distribution of that time."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.base import AgentConfig
from goalax.core.types import Array, Needs, Spec, Visit
from goalax.flags import FlagError, flag
from goalax.learning import survival
from goalax.learning.networks import Network, time_head
from goalax.learning.pairwise import pairwise_squared_distance

# Of two agents, by default 0 and more.
ORIGINAL_GOALS = "share of goals, with --actor_relabel the critic's, that were commanded, reached or not"


@dataclasses.dataclass(frozen=True)
class VisitConfig(AgentConfig):
    """Window, bins and the discount of the value as published (arXiv 2605.31273)."""

    value_discounting: float = flag(0.999, "gamma of the time that the actor minimises", above=0, below=1)
    window: int = flag(1000, "rows in which a first visit is looked for (at most an episode)", low=2, high=100_000)
    time_bins: int = flag(
        0, "bins of the time to the first visit, growing geometrically; 0: one a row", low=0, high=100_000
    )
    # The published code calls every unreached goal censored after the whole window, wherever its episode ends.
    censor: str = flag("window", "when a goal counts as not reached so far", valid=("window", "episode"))

    # So two ways that nobody took one after the other become one: TMD's back-up, of a whole distribution.
    visit_backup: bool = flag(
        False, "a goal that was not reached is expected as from the next state on, in place of never (temporal back-up)"
    )

    # The "original" goals of HER, arXiv 1707.01495, beside those that were achieved: who collected was asked for them.
    original_goals: float = flag(0.0, ORIGINAL_GOALS, low=0, high=1)
    head_dim: int = flag(0, "width of the head that reads representations; 0: h_dim", low=0, most=1_000_000)

    def rows(self, spec: Spec) -> int:
        """Those of the window."""
        return min(self.window, spec.max_decisions)

    def with_visits(self, needs: Needs, spec: Spec) -> Needs:
        """What such an agent asks of the buffer beside what it asks for anyway; FlagError if --censor means nothing, or
        if commanded goals may have been reached at states that are not stored."""
        if self.visit_backup and not self.time_bins and not getattr(self, "separation_weight", 0):  # if it has that
            self.require_unset(["censor"], "with --visit_backup, --time_bins 0 and no --separation_weight")
        if self.original_goals and spec.action_repeat > 1:
            raise FlagError(
                f"--original_goals is {self.original_goals:g}; with --action_repeat {spec.action_repeat}, which hides"
                " visits between two decisions, it must be 0."
            )
        return needs._replace(within=self.rows(spec), original=self.original_goals)


def goals_apart(spec: Spec, goal: Array) -> Array:
    """Whether two goals [B, G] are not each other's, by the radius of a goal, [B, B] bool."""
    if spec.goal_parts == 1:
        return pairwise_squared_distance(goal, goal) > spec.goal_reach_thresh**2
    parts = jnp.moveaxis(goal.reshape(len(goal), spec.goal_parts, -1), 1, 0)
    return jnp.any(pairwise_squared_distance(parts, parts) > spec.goal_reach_thresh**2, axis=0)


class Times(NamedTuple):
    """What the head says of pairs of samples and goals, as logits."""

    now: Array  # [B] of being there
    hazards: Array  # [B, K] of the bins of the first visit
    occupancy: Array  # [B, O] of the share of later times spent there


class VisitHead(NamedTuple):
    """The network that reads representations, and what is made of what it says."""

    network: Network[tuple[Array, Array, Array]]
    repr_dim: int
    discounting: float  # of the value
    window: int
    censor: str
    edges: tuple[int, ...]  # of the hazards
    occupancy_edges: tuple[int, ...]  # none: without that
    chunk: int  # rows of a decision

    @classmethod
    def of(cls, config: Any, spec: Spec, occupancy_bins: int = 0) -> "VisitHead":
        """The head of an agent whose flags are those of `VisitConfig` and of its networks."""
        window = config.rows(spec)
        edges = survival.time_edges(window, config.time_bins)
        occupancy_edges = survival.time_edges(window, occupancy_bins) if occupancy_bins else ()
        mlp = partial(config.mlp, h_dim=config.head_dim) if config.head_dim else config.mlp
        network = time_head(mlp, len(edges) - 1, max(0, len(occupancy_edges) - 1))
        settings = config.value_discounting, window, config.censor
        return cls(network, config.repr_dim, *settings, edges, occupancy_edges, config.action_chunk)

    def init(self, key: Array) -> Any:
        x = jnp.zeros((1, self.repr_dim))
        return self.network.init(key, x, x)

    def apply(self, params: Any, x: Array, y: Array) -> Times:
        """Of representations [B, D] of samples and of goals."""
        return Times(*self.network.apply(params, x, y))

    def loss(self, times: Times, visit: Visit, later: Times | None = None, discount: Array | float = 1.0) -> Array:
        """Minus the mean log-likelihood of the first visits, [].

        Args:
          times: of the samples.
          later: of what the actor would do next, with --visit_backup. A goal that was not reached then comes as much
            later than from there as a decision takes.
          discount: [B] 0 where the episode ends for good with the decision, after which nothing comes.
        """
        cut = self.censored_at(visit)
        # A visit in a bin that the end of its episode cuts tells no more than a miss there: hazards would be too high.
        told = (visit.steps < cut) | (cut >= self.window) | (visit.steps == 0)
        seen = visit.steps, visit.reached * told, cut
        loss = survival.negative_log_likelihood(times.now, times.hazards, self.edges, *seen)
        if later is not None:
            wanted = jax.lax.stop_gradient(survival.later_by(later.now, later.hazards, self.edges, self.chunk))
            expected = survival.cross_entropy(times.now, times.hazards, wanted)
            loss = jnp.where((visit.reached == 0) & (discount > 0), expected, loss)
        return jnp.mean(loss)

    def censored_at(self, visit: Visit) -> Array:
        """Steps [B] that a goal is known to take where it was not reached."""
        window = jnp.full_like(visit.left, self.window)
        if self.censor == "window":
            return window
        # What was not met in the rows that are left takes a step more, at least. Whole bins only: of one that the end
        # of an episode cuts, it is not known.
        edges, known = jnp.asarray(self.edges), jnp.minimum(visit.left + 1, self.window)
        seen = edges[jnp.searchsorted(edges, known, side="right") - 1]
        return jnp.where(visit.terminates > 0, window, seen)  # after a true termination nothing is reached any more

    def out_of_window(self, visit: Visit) -> Array:
        """1 where a goal is known to be farther than the window is long, else 0, [B]."""
        return (1 - visit.reached) * (self.censored_at(visit) >= self.window)

    def value(self, times: Times) -> Array:
        """Minus the expected discounted time to the goal, [B]."""
        return survival.value(times.now, times.hazards, self.edges, self.discounting)

    def occupancy_value(self, times: Times) -> Array:
        """The discounted time that is spent at the goal, [B]."""
        return survival.occupancy_value(times.occupancy, self.occupancy_edges, self.discounting)
