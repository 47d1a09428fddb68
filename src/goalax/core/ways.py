"""What lies after a sample in its own episode: the next rows, a way-point, the state so many rows later."""

import jax.numpy as jnp

from goalax.core.sharding import look_up
from goalax.core.types import Array, Path, Spec, Transition, Waypoint


def after(rows: Transition, column: Array, slot: Array, steps: Array) -> Array:
    """The states [B, S] so many steps [B] after samples; rows: leaves [capacity, N, ...]."""
    capacity = rows.reward.shape[0]

    def at(states: Array, column: Array, slot: Array, steps: Array) -> Array:
        return states.at[(slot + steps) % capacity, column].get(mode="promise_in_bounds")

    return look_up(at, rows.state, column, slot, steps)


def waypoint(rows: Transition, column: Array, slot: Array, steps: Array, goal: Array, spec: Spec) -> Waypoint:
    """The states [B] steps after samples, whose goals [B, G] are in the units of the environment."""
    capacity = rows.reward.shape[0]

    def at(rows: Transition, column: Array, slot: Array, steps: Array, goal: Array) -> Waypoint:
        there = rows.state.at[(slot + steps) % capacity, column].get(mode="promise_in_bounds")
        ended = rows.terminal.at[(slot + steps - 1) % capacity, column].get(mode="promise_in_bounds")
        return Waypoint(there, steps, ended, spec.reached(there, goal))

    return look_up(at, rows, column, slot, steps, goal)


def path(rows: Transition, column: Array, slot: Array, left: Array, spec: Spec, horizon: int) -> Path:
    """The next `horizon` rows of samples; where only `left` [B] of them are stored, the last one is repeated."""
    capacity = rows.reward.shape[0]

    def at(rows: Transition, column: Array, slot: Array, left: Array) -> Path:
        def take(ring: Array, last: Array, num: int) -> Array:
            ahead = jnp.minimum(jnp.arange(num)[None], last[:, None])
            return ring.at[(slot[:, None] + ahead) % capacity, column[:, None]].get(mode="promise_in_bounds")

        actions, reward, terminal = (
            take(ring, left - 1, horizon) for ring in (rows.action, rows.reward, rows.terminal)
        )
        stored = (jnp.arange(horizon)[None] < left[:, None]).astype(reward.dtype)
        states = take(rows.state, left, horizon + 1)
        return Path(states, actions, reward, spec.discounting * (1 - terminal), stored)

    return look_up(at, rows, column, slot, left)
