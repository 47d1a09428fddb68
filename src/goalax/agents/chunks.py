"""Chunks of actions, chosen at once and taken one after the other (AC-CRL, arXiv 2608.30640).

A chunk is one long action: any agent that chooses actions of H * A entries takes them A at a time, and learns from what
`of_decisions` makes of a batch.
"""

from typing import NamedTuple

import jax.numpy as jnp

from goalax.core.rollout import where
from goalax.core.types import Agent, Array, Batch, Memory


class Plan(NamedTuple):
    """What is left of the chunks of N environments."""

    actions: Array  # [N, H, A]
    taken: Array  # [N] int32, how many of them have been taken; 0: the next action begins a new chunk


def of_decisions(batch: Batch) -> Batch:
    """The batch with chunks as actions [B, H * A], the states after them, and their discounts.

    Chunks are whole but where an episode ended for good in fewer than H rows: there `Path` repeats its last one.
    """
    if batch.path is None:
        return batch
    actions, reached = batch.path.action.reshape(len(batch.action), -1), batch.future_reward
    if batch.path.future_reward is not None:
        reached = jnp.max(batch.path.future_reward, axis=1)  # at its goal after any of its actions
    return batch._replace(
        action=actions,
        next_state=batch.path.state[:, -1],
        future_action=actions,  # some chunk: what is taken in the future is not stored with the sample
        discount=jnp.prod(batch.path.discount, axis=1),
        future_reward=reached,
    )


def chunked(agent: Agent, horizon: int, action_size: int) -> Agent:
    """The agent, which chooses actions [..., H * A], as one that takes them one after the other.

    Args:
      agent: has no memory of its own.
      horizon: H.
      action_size: A.

    Its `mode` gives the first action of a new chunk: what a caller gets who remembers nothing.
    """

    def split(chunk: Array) -> Array:
        return chunk.reshape(*chunk.shape[:-1], horizon, -1)

    def start(state, num_envs):
        return Plan(jnp.zeros((num_envs, horizon, action_size)), jnp.zeros(num_envs, jnp.int32))

    def go_on(plan: Plan, chunk: Array) -> tuple[Array, Plan]:
        """The next action of every environment; a new chunk [N, H * A] where the old one is used up."""
        actions = where(plan.taken == 0, split(chunk), plan.actions)
        action = jnp.take_along_axis(actions, plan.taken[:, None, None], axis=1)[:, 0]
        return action, Plan(actions, (plan.taken + 1) % horizon)

    def act(state, plan, observed, goal, key):
        return go_on(plan, agent.act(state, observed, goal, key))

    def mode(state, plan, observed, goal):
        return go_on(plan, agent.mode(state, observed, goal))

    return agent._replace(
        act=lambda state, observed, goal, key: split(agent.act(state, observed, goal, key))[..., 0, :],
        mode=lambda state, observed, goal: split(agent.mode(state, observed, goal))[..., 0, :],
        memory=Memory(start, act, mode),
    )
