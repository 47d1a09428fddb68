"""Agents that act by plans: a planner as functions of the agent's state, and a fresh plan at every decision."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.mppi import Plan
from goalax.core.types import AgentState, Array, Memory


class Planner(NamedTuple):
    """Planning in a latent state z [N, Z], of N environments at once."""

    horizon: int  # H
    action_size: int
    latent_size: int
    encode: Callable[[AgentState, Array, Array], Array]  # (agent, state [N, S], goal [N, G]) -> z
    plan: Callable[[AgentState, Array, Array, Array, bool], Plan]  # (agent, z, mean [N, H, A], key, explore)
    predict: Callable[[AgentState, Array, Array], Array]  # (agent, z, action [N, A]) -> next z
    prior: Callable[[AgentState, Array], Array]  # (agent, z) -> the policy's action [N, A] without noise


class Warm(NamedTuple):
    """What is kept of the last plans."""

    mean: Array  # [N, H, A]; zeros where there was none
    decisions: Array  # [N] int32 since the start


def shifted(mean: Array) -> Array:
    """Where the next search begins, [N, H, A]: a step later, and zeros at its end."""
    return jnp.concatenate([mean[:, 1:], jnp.zeros_like(mean[:, :1])], axis=1)


def fixed_key(decisions: Array) -> Array:
    """The randomness of a search without exploration: that of how many decisions [N] were made, in every run."""
    return jax.random.fold_in(jax.random.PRNGKey(0), jnp.max(decisions))


def replanning(planner: Planner) -> Memory:
    """Acts by the first action of a fresh plan, and keeps its mean for the next one."""

    def start(agent: AgentState, num_envs: int) -> Warm:
        mean = jnp.zeros((num_envs, planner.horizon, planner.action_size))
        return Warm(mean, jnp.zeros(num_envs, jnp.int32))

    def decide(agent: AgentState, warm: Warm, state: Array, goal: Array, key: Array, explore: bool) -> Any:
        z = planner.encode(agent, state, goal)
        found = planner.plan(agent, z, shifted(warm.mean), key, explore)
        return found.actions[:, 0], Warm(found.mean, warm.decisions + 1)

    def act(agent, warm, state, goal, key):
        return decide(agent, warm, state, goal, key, True)

    def mode(agent, warm, state, goal):
        return decide(agent, warm, state, goal, fixed_key(warm.decisions), False)

    return Memory(start, act, mode)


def without_memory(planner: Planner) -> tuple[Callable, Callable]:
    """`act` and `mode` of an Agent for callers who remember nothing: the first action of a plan from nothing."""

    def first(agent: AgentState, state: Array, goal: Array, key: Array, explore: bool) -> Array:
        lead = state.shape[:-1]
        num = math.prod(lead)  # in words, because a goal may have no entries
        z = planner.encode(agent, state.reshape(num, state.shape[-1]), goal.reshape(num, goal.shape[-1]))
        mean = jnp.zeros((num, planner.horizon, planner.action_size))
        return planner.plan(agent, z, mean, key, explore).actions[:, 0].reshape(*lead, planner.action_size)

    def act(agent, state, goal, key):
        return first(agent, state, goal, key, True)

    def mode(agent, state, goal):
        return first(agent, state, goal, jax.random.PRNGKey(0), False)

    return act, mode
