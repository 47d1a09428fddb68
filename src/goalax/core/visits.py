"""First visits: when the way that was taken first came to a goal, and how much of the time after it was there."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

from goalax.core import goals
from goalax.core.types import Spec, Transition, Visit

REGIONS = 3  # nested regions of a goal: of 1, 1/2 and 1/4 of its radius


def find(
    rows: Transition, column: Array, slot: Array, left: Array, goal: Array, spec: Spec, within: int, bins: tuple
) -> Visit:
    """The first visits of samples in a ring; states in the units of the environment.

    The smallest index is a minimum over all of them, not an argmax, which is four times slower on CPUs.

    Args:
      rows: leaves [capacity, N, ...].
      column, slot: [B] where samples lie.
      left: [B] rows to the last stored one of the episode.
      goal: [B, G].
      within: rows to look at.
      bins: edges of the steps ahead for `Visit.occupancy`; none: it has no bins.

    Source: labels of SRL, arXiv 2605.31273, and ChronoSRL, arXiv 2609.36238.
    """
    capacity = rows.reward.shape[0]
    ahead = jnp.arange(within + 1)
    slots = (slot[:, None] + ahead[None]) % capacity
    indices = jnp.array(spec.goal_indices)
    way = rows.state.at[slots[:, :, None], column[:, None, None], indices[None, None]].get(mode="promise_in_bounds")
    dist = spec.distance(way, goal[:, None])  # [B, within + 1]
    alive = ahead[None] <= left[:, None]
    steps = jnp.min(jnp.where((dist < spec.goal_reach_thresh) & alive, ahead[None], within + 1), axis=1)
    last = (slot + left - 1) % capacity  # the action that led into the last state
    terminates = rows.terminal.at[last, column].get(mode="promise_in_bounds") * (left <= within)
    occupancy, observed = occupied(dist, alive, terminates, spec.goal_reach_thresh, bins)
    return Visit(
        goal=goal,
        steps=jnp.minimum(steps, within),
        reached=(steps <= within).astype(jnp.float32),
        left=left,
        terminates=terminates,
        occupancy=occupancy,
        observed=observed,
    )


def occupied(dist: Array, alive: Array, terminates: Array, radius: float, bins: tuple[int, ...]) -> tuple[Array, Array]:
    """`Visit.occupancy` and `Visit.observed`, [B, K] each.

    Args:
      dist: [B, W + 1] to the goal, from the sample's own row on.
      alive: [B, W + 1] whether the episode still lasts.
      terminates: [B].
    """
    radii = radius / 2.0 ** np.arange(REGIONS)
    inside = functools.reduce(jnp.add, [goals.reached(dist, float(r)) for r in radii]) / REGIONS
    share = jnp.where(alive, inside, 0.0)[:, 1:]
    seen = (alive | (terminates[:, None] > 0)).astype(jnp.float32)[:, 1:]
    edges, ahead = np.array(bins), np.arange(1, dist.shape[1])
    member = (ahead[:, None] >= edges[:-1]) & (ahead[:, None] < edges[1:]) if bins else np.zeros((len(ahead), 0))
    of_bin = jnp.asarray(member, jnp.float32)
    count = seen @ of_bin
    return (share @ of_bin) / jnp.maximum(count, 1.0), (count > 0).astype(jnp.float32)
