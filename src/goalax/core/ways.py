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


def waypoint(rows: Transition, column: Array, slot: Array, steps: Array) -> Waypoint:
    """The states [B] steps after samples."""
    capacity = rows.reward.shape[0]

    def at(rows: Transition, column: Array, slot: Array) -> Waypoint:
        there = rows.state.at[(slot + steps) % capacity, column].get(mode="promise_in_bounds")
        ended = rows.terminal.at[(slot + steps - 1) % capacity, column].get(mode="promise_in_bounds")
        return Waypoint(there, steps, ended)

    return look_up(at, rows, column, slot)


def path(rows: Transition, column: Array, slot: Array, spec: Spec, horizon: int) -> Path:
    """The next `horizon` rows of samples."""
    capacity = rows.reward.shape[0]

    def at(rows: Transition, column: Array, slot: Array) -> Path:
        slots = (slot[:, None] + jnp.arange(horizon + 1)[None]) % capacity
        states = rows.state.at[slots, column[:, None]].get(mode="promise_in_bounds")
        actions, reward, terminal = (
            ring.at[slots[:, :-1], column[:, None]].get(mode="promise_in_bounds")
            for ring in (rows.action, rows.reward, rows.terminal)
        )
        return Path(states, actions, reward, spec.discounting * (1 - terminal))

    return look_up(at, rows, column, slot)
