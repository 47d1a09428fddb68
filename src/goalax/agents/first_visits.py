"""What agents share that learn when goals are first reached: flags, and a head for the distribution of that time."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from goalax.core.types import Array, Spec, Visit
from goalax.flags import flag
from goalax.learning import survival
from goalax.learning.networks import Network, time_head


@dataclasses.dataclass(frozen=True)
class VisitConfig:
    """Window, bins and the discount of the value as published (arXiv 2605.31273)."""

    value_discounting: float = flag(0.999, "gamma of the time that the actor minimises", above=0, below=1)
    window: int = flag(1000, "rows in which a first visit is looked for (at most an episode)", low=2, high=100_000)
    time_bins: int = flag(
        0, "bins of the time to the first visit, growing geometrically; 0: one a row", low=0, high=100_000
    )
    # The published code calls every unreached goal censored after the whole window, wherever its episode ends.
    censor: str = flag("window", "when a goal counts as not reached so far", valid=("window", "episode"))

    head_dim: int = flag(0, "width of the head that reads representations; 0: h_dim", low=0, most=1_000_000)

    def rows(self, spec: Spec) -> int:
        """Those of the window."""
        return min(self.window, spec.max_decisions)


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

    @classmethod
    def of(cls, config: Any, spec: Spec, occupancy_bins: int = 0) -> "VisitHead":
        """The head of an agent whose flags are those of `VisitConfig` and of its networks."""
        window = config.rows(spec)
        edges = survival.time_edges(window, config.time_bins)
        occupancy_edges = survival.time_edges(window, occupancy_bins) if occupancy_bins else ()
        mlp = partial(config.mlp, h_dim=config.head_dim) if config.head_dim else config.mlp
        network = time_head(mlp, len(edges) - 1, max(0, len(occupancy_edges) - 1))
        discounting, censor = config.value_discounting, config.censor
        return cls(network, config.repr_dim, discounting, window, censor, edges, occupancy_edges)

    def init(self, key: Array) -> Any:
        x = jnp.zeros((1, self.repr_dim))
        return self.network.init(key, x, x)

    def apply(self, params: Any, x: Array, y: Array) -> Times:
        """Of representations [B, D] of samples and of goals."""
        return Times(*self.network.apply(params, x, y))

    def loss(self, times: Times, visit: Visit) -> Array:
        """Minus the mean log-likelihood of the first visits, []."""
        censored_at = jnp.full_like(visit.left, self.window)
        if self.censor == "episode":  # after a true termination nothing is reached any more, which is known for good
            censored_at = jnp.where(visit.terminates > 0, self.window, jnp.minimum(visit.left, self.window))
        seen = visit.steps, visit.reached, censored_at
        return jnp.mean(survival.negative_log_likelihood(times.now, times.hazards, self.edges, *seen))

    def value(self, times: Times) -> Array:
        """Minus the expected discounted time to the goal, [B]."""
        return survival.value(times.now, times.hazards, self.edges, self.discounting)

    def occupancy_value(self, times: Times) -> Array:
        """The discounted time that is spent at the goal, [B]."""
        return survival.occupancy_value(times.occupancy, self.occupancy_edges, self.discounting)
