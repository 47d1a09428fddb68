"""N environments as a library with a step function sees them: reset, step with autoreset, observations by name."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.core import rollout
from goalax.envs import GoalEnv
from goalax.host import given

Array = jax.Array
PARTS = ("observation", "achieved_goal", "desired_goal")
NO_LIMIT = -1  # of steps, as in gymnasium.make


class Held(NamedTuple):
    """N environments between two calls; every leaf has leading axis N."""

    key: Array  # [N, 2] of the next starts
    env: Any  # brax.envs.State
    steps: Array  # [N] int32 since the start of the episode
    over: Array  # [N] bool, the next step starts a new episode


class Seen(NamedTuple):
    """What a caller gets of a reset or a step; every leaf has leading axis N."""

    observation: dict[str, Array]
    reward: Array  # float32
    terminated: Array  # bool
    truncated: Array  # bool
    info: dict[str, Array]


def observe(env: GoalEnv, held: Held, reward: Array, terminated: Array, truncated: Array) -> Seen:
    state, goal = rollout.split_observation(env, held.env)
    observation = dict(zip(PARTS, (state, env.goal_of(state), goal), strict=True))
    told = held.env.metrics
    info = {**told, "is_success": told["success"] > 0, "terminated": terminated}  # is_success: what others look for
    return Seen(observation, reward, terminated, truncated, info)


def reset_all(env: GoalEnv, key: Array, goal: Array | None, start: Array | None) -> tuple[Held, Seen]:
    """N fresh episodes, with goals [N, G] and starts [N, 2 or Q] by hand where they are given; consumes key [N, 2]."""
    pairs = jax.vmap(jax.random.split)(key)
    fresh = jax.vmap(lambda rng, *by_hand: given.begin(env, rng, *by_hand))(pairs[:, 1], goal, start)
    no = jnp.zeros(len(key), bool)
    held = Held(pairs[:, 0], fresh, jnp.zeros(len(key), jnp.int32), no)
    return held, observe(env, held, jnp.zeros(len(key)), no, no)


def step_all(env: GoalEnv, limit: int, held: Held, action: Array) -> tuple[Held, Seen]:
    """One step with actions [N, A]; where an episode was over it is a fresh start instead, whose reward is 0."""

    def renewed(stepped):
        pairs = jax.vmap(jax.random.split)(held.key)
        fresh = rollout.reset_all(env, pairs[:, 1])
        return rollout.where(held.over, (pairs[:, 0], fresh), (held.key, stepped))

    stepped = rollout.step_all(env, held.env, action)
    # A branch: most steps start no episode, and then draw no start.
    key, after = jax.lax.cond(jnp.any(held.over), renewed, lambda stepped: (held.key, stepped), stepped)
    steps = jnp.where(held.over, 0, held.steps + 1)
    terminated = ~held.over & (stepped.done > 0)
    truncated = jnp.zeros_like(held.over) if limit == NO_LIMIT else ~held.over & (steps >= limit)
    reward = jnp.where(held.over, 0.0, stepped.reward)
    held = Held(key, after, steps, terminated | truncated)
    return held, observe(env, held, reward, terminated, truncated)
