"""What tests of all agents share: a small one of each, a made-up batch, and which wait for longer suites."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from goalax.agents import AGENTS
from goalax.core.types import Batch, Path, Spec, Subgoals, Visit, Waypoint

# All others, and every agent that is new, are tested first.
RELATIVES = frozenset(
    {
        *("bc", "c_tec", "chronosrl", "cmd", "cmd2", "cql", "crl_infonce", "dino_rebrac", "gcivl", "hilp", "infom"),
        *("iql", "qrl", "rebrac", "srl", "tmd_visits"),
    }
)
SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
COMMON = {
    name: entry for name, entry in AGENTS.items() if entry.make and name not in ("tdmpc2", "dt")
}  # the others have a loop, or networks and a planner, and tests, of their own
SMALL = {"h_dim": 8, "n_hidden": 2, "repr_dim": 8, "window": 41}  # the quasimetric energies take multiples of 8
VISITS = {"hazard_weight": 1.0, "time_weight": 1.0, "separation_weight": 1.0}  # with which a window means something


def small_batch(needs, size=6):
    """A made-up batch with all that an agent asks for."""
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), shape)  # noqa: E731
    batch = Batch(
        state=normal(0, size, 5),
        action=jnp.tanh(normal(1, size, 3)),
        next_state=normal(2, size, 5),
        goal=normal(3, size, 2),
        future_state=normal(4, size, 5),
        future_action=jnp.tanh(normal(5, size, 3)),
        reward=jnp.arange(size) / size,
        future_reward=jnp.arange(size) % 2.0,
        discount=jnp.full(size, 0.9),
    )
    if needs.horizon > 1:
        steps = size, needs.horizon
        actions = jnp.tanh(normal(6, *steps, 3))
        path = Path(
            normal(7, size, needs.horizon + 1, 5), actions, jnp.zeros(steps), jnp.full(steps, 0.9), jnp.ones(steps)
        )
        batch = batch._replace(path=path)
    if needs.waypoint is not None:
        steps, half = jnp.arange(1, size + 1), jnp.arange(size) % 2.0
        batch = batch._replace(waypoint=Waypoint(normal(10, size, 5), steps, half, 1 - half))
    if needs.actor_goals is not None:
        batch = batch._replace(actor_state=normal(11, size, 5))
    if needs.same:
        batch = batch._replace(same=(jnp.arange(size) == 2).astype(jnp.float32))
    if needs.subgoal:
        batch = batch._replace(subgoals=Subgoals(normal(12, size, 5), normal(13, size, 5)))
    if needs.next_action:
        batch = batch._replace(next_action=jnp.tanh(normal(14, size, 3)))
    if needs.within:
        bins = size, max(0, len(needs.bins) - 1)
        steps, left = jnp.array([0, 3, 7, needs.within, 40, needs.within]), jnp.array([9, 8, 7, 6, 50, 4])
        reached, ends = (steps < needs.within).astype(jnp.float32), jnp.arange(size) % 2.0
        occupancy = jax.random.uniform(jax.random.PRNGKey(8), bins)
        visit = Visit(3 * normal(9, size, 2), steps, reached, left, ends, occupancy, jnp.ones(bins))
        batch = batch._replace(visit=visit)
    return batch


def make(name, **flags):
    config = AGENTS[name].config
    known = {field.name for field in dataclasses.fields(config)}
    if name == "tmd" and not VISITS.keys() & flags.keys():  # where a window means nothing
        known -= {"window"}
    return AGENTS[name].make(config(**{k: v for k, v in {**SMALL, **flags}.items() if k in known}), SPEC)


def relatives_wait(names):
    """Parameters of a test that costs much: those of `RELATIVES` are run by `-m table` only."""
    return [pytest.param(name, marks=[pytest.mark.table] if name in RELATIVES else []) for name in names]
