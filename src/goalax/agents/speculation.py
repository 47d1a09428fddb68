"""Speculative execution: plans are followed for as long as the latent states that they predicted come true, and of N
environments only those that need a new plan most get one, in one batch of a fixed size.

The rules are those of https://github.com/sunTr1aL/gym_qwen (commit 9d07908), where environments run one by one; there
are differences, of which docs/planning.md tells.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.plans import Planner, fixed_key, replanning, shifted
from goalax.core import sharding
from goalax.core.rollout import where
from goalax.core.types import AgentState, Array, Memory
from goalax.flags import FlagError, flag

# What a decision is: a new plan for want of one, the next action of a plan, an action behind its last one, a new plan
# because the world is not where the old one said, an action without a plan until there is room for one. Where the world
# is elsewhere and there is no room, the old plan goes on.
PLANNED, FOLLOWED, EXTENDED, MISSED, WAITED = range(5)
ROUNDING = 1e-6  # 0.07 of 100 environments are more than 7 in floats
ENDED = 2**30  # decisions that are left of a plan where nobody needs another one
FIRST = 1e4  # added to how long an environment has waited: more than two latent states are ever apart


@dataclasses.dataclass(frozen=True)
class SpeculationConfig:
    """By default every decision has a plan of its own."""

    plan_horizon: int = flag(0, "steps of the plans that are acted by; 0: --horizon", low=0, high=64)
    exec_horizon: int = flag(1, "decisions that one plan is good for, at most", low=1, high=1000)
    mismatch: float = flag(
        0.5, "with --exec_horizon, how far a latent state may be from its prediction before a new plan", low=0
    )
    replans: float = flag(1.0, "share of the environments that may get a new plan at one decision", above=0, high=1)

    def speculation(self, horizon: int) -> "Speculation":
        """The rules that flags stand for; horizon: that of the model. FlagError for flags that mean nothing."""
        default = self.__dataclass_fields__["mismatch"].default
        if self.exec_horizon == 1 and self.mismatch != default:
            raise FlagError(
                f"--mismatch is {self.mismatch:g}; it means nothing with --exec_horizon 1, a plan for each decision."
            )
        return Speculation(self.plan_horizon or horizon, self.exec_horizon, self.mismatch, self.replans)


class Speculation(NamedTuple):
    """The rules."""

    plan_horizon: int  # P
    exec_horizon: int
    mismatch: float
    replans: float  # share of environments

    def room(self, num: int) -> int:
        """How many of so many environments may get a new plan at one decision: their share, rounded up."""
        return max(1, math.ceil(self.replans * num - ROUNDING))


class Following(NamedTuple):
    """The plans of N environments, and where they are in them."""

    actions: Array  # [N, P, A]
    expected: Array  # [N, Z] the latent state that was predicted for now
    step: Array  # [N] int32 of the plan; P and more: behind its end
    # [N] int32 decisions that the plan is good for; 0: there is none; -n: it has been waited for so long; ENDED: the
    # episode is over, and wants none
    left: Array
    mean: Array  # [N, P, A] around which the next search begins
    decisions: Array  # [N] int32 since the start
    plans: Array  # [N] int32 made since then


def kinds(rules: Speculation, distance: Array, step: Array, left: Array) -> tuple[Array, Array]:
    """What the decision of each of N environments is.

    Those without a plan come first, by how long they have waited, then those farthest from their predictions.

    Args:
      distance: [N] of the latent states from their predictions.
      step, left: [N], see `Following`.

    Returns:
      [N] int32 the kind, and [M] int32 the environments that there is room for, some of which may need no plan.
    """
    num = distance.shape[0]
    none = left <= 0
    missed = ~none & (distance > rules.mismatch) & (left < ENDED)
    need = jnp.where(none, FIRST - left, jnp.where(missed, distance, -1.0))
    if rules.replans == 1:
        index, served = jnp.arange(num), need >= 0
    else:
        index = jax.lax.top_k(need, rules.room(num))[1]
        served = (need >= 0) & jnp.zeros(num, bool).at[index].set(True)
    going_on = jnp.where(step < rules.plan_horizon, FOLLOWED, EXTENDED)
    return jnp.where(served, jnp.where(none, PLANNED, MISSED), jnp.where(none, WAITED, going_on)), index


def counted(rules: Speculation, kind: Array, step: Array, left: Array) -> tuple[Array, Array, Array]:
    """Step of the plan at this decision [N], step at the next one, and decisions that are left then."""
    fresh = is_new(kind)
    step = jnp.where(fresh, 0, step)
    waited = jnp.minimum(left, 0) - 1
    left = jnp.where(fresh, rules.exec_horizon - 1, jnp.where(kind == WAITED, waited, left - 1))
    return step, step + 1, left


def ended(held: Following, over: Array) -> Following:
    """What is remembered where episodes are over, [N] bool, while others go on: no plan is wanted there any more."""
    return held._replace(left=jnp.where(over, ENDED, held.left))


def is_new(kind: Array) -> Array:
    """Whether there is a new plan at this decision, [N] bool."""
    return (kind == PLANNED) | (kind == MISSED)


def is_old(kind: Array) -> Array:
    """Whether a plan that was made before goes on, [N] bool: what a corrector corrects."""
    return (kind == FOLLOWED) | (kind == EXTENDED)


def distance_between(z: Array, expected: Array) -> Array:
    """How far latent states [N, Z] are from their predictions, [N]: what `Speculation.mismatch` is about."""
    return jnp.sqrt(jnp.sum((z - expected) ** 2, axis=-1))


class Step(NamedTuple):
    """What a decision of N environments came from."""

    kind: Array  # [N] int32
    z: Array  # [N, Z] latent state
    expected: Array  # [N, Z] as an old plan predicted it; z itself where no old plan is followed
    planned: Array  # [N, A] what is executed where nothing corrects it
    fresh: Array  # [M, A] first actions of the plans that were made now
    means: Array  # [M, A] of what the search for these ended with, without the draw of one of its best


def beginning(planner: Planner, rules: Speculation, num: int) -> Following:
    """The plans of `num` fresh episodes: none."""
    plans, zeros = jnp.zeros((num, rules.plan_horizon, planner.action_size)), jnp.zeros(num, jnp.int32)
    return Following(plans, jnp.zeros((num, planner.latent_size)), zeros, zeros, plans, zeros, zeros)


def among_devices(rows: Array) -> Array:
    """Rows [M, ...] that all devices hold, of which each one searches for its part, if M can be divided."""
    return sharding.divide(rows) if len(rows) % sharding.num_shards() == 0 else rows


def decision(
    planner: Planner,
    rules: Speculation,
    agent: AgentState,
    held: Following,
    state: Array,
    goal: Array,
    key: Array,
    explore: bool,
) -> tuple[Following, Step]:
    """What is remembered from now on, and what the actions `Step.planned` come from; consumes key.

    Predictions are those for these actions, whatever is executed.
    """
    z = planner.encode(agent, state, goal)
    kind, index = kinds(rules, distance_between(z, held.expected), held.step, held.left)
    fresh = is_new(kind)
    all_search = rules.replans == 1  # then no row moves, or devices would search for the rows of the others, too
    begin = (z, held.mean) if all_search else (among_devices(z[index]), among_devices(held.mean[index]))
    found = planner.plan(agent, *begin, key, explore)

    def put(old: Array, new: Array) -> Array:
        return where(fresh, new if all_search else old.at[index].set(new), old)

    actions, mean = put(held.actions, found.actions), put(held.mean, found.mean)
    step, next_step, left = counted(rules, kind, held.step, held.left)
    origin = where(fresh | (kind == WAITED), z, held.expected)
    place = jnp.minimum(step, rules.plan_horizon - 1)
    planned = jnp.take_along_axis(actions, place[:, None, None], axis=1)[:, 0]
    planned = where(fresh | (kind == FOLLOWED), planned, planner.prior(agent, origin))
    expected = planner.predict(agent, origin, planned)
    after = Following(
        actions, expected, next_step, left, shifted(mean), held.decisions + 1, held.plans + fresh.astype(jnp.int32)
    )
    return after, Step(kind, z, origin, planned, found.actions[:, 0], found.mean[:, 0])


def speculative(planner: Planner, rules: Speculation) -> Memory:
    """Acts by plans of `rules.plan_horizon` steps, which are followed as `kinds` says.

    Behind the end of a plan the policy prior acts on predicted states; who waits for one acts by it on the real one.

    Args:
      planner: of horizon `rules.plan_horizon`.
    """
    if rules.exec_horizon == 1 and rules.replans == 1:
        return replanning(planner)

    def act(agent, held, state, goal, key):
        held, step = decision(planner, rules, agent, held, state, goal, key, True)
        return step.planned, held

    def mode(agent, held, state, goal):
        held, step = decision(planner, rules, agent, held, state, goal, fixed_key(held.decisions), False)
        return step.planned, held

    def measures(held: Following) -> dict[str, Array]:
        return {"plans_per_decision": held.plans / jnp.maximum(held.decisions, 1)}

    return Memory(lambda agent, num: beginning(planner, rules, num), act, mode, measures, ended=ended)
