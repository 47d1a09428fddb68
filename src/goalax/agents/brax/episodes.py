"""Environments as Brax's trainers want them: many at once, that start new episodes by themselves, all of them fresh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import State, Wrapper

from goalax.core import rollout
from goalax.core.types import Array, Env


class Episodes(NamedTuple):
    """Where N environments are in their episodes, and their next starts."""

    steps: Array  # [N] int32, since the start of the episode
    keys: Array  # [N] keys
    pool: State  # fresh starts, leaves [N, ...]
    age: Array  # [] int32, steps since the pool was drawn


class FreshEpisodes(Wrapper):
    """N environments for Brax's trainer, every episode with a fresh start and a fresh goal; Brax's own wrapper gives an
    environment the same ones for ever.

    As in `rollout.unroll`, fresh starts are drawn for all environments at once, and environment e takes number e + t at
    step t; they are drawn again before an environment could take one twice.
    """

    RENEWAL = 64  # steps between two drawings at most

    def __init__(self, env: Env, episode_length: int, action_repeat: int, randomization_fn: None = None):
        super().__init__(env)
        self.episode_length, self.action_repeat = episode_length, action_repeat

    def draw(self, keys: Array) -> tuple[Array, State]:
        """Keys for the next time, and a fresh start for each."""
        keys, start_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        return keys, jax.vmap(self.env.reset)(start_keys)

    def reset(self, rng: Array) -> State:
        """Consumes rng, a key per environment."""
        num_envs, zero = len(rng), jnp.zeros((), jnp.int32)
        # Together, because a second reset would be compiled a second time.
        keys, states = self.draw(jnp.concatenate(jnp.unstack(jax.vmap(jax.random.split)(rng), axis=1)))
        start, pool = (
            jax.tree.map(lambda leaf: leaf[:num_envs], states),
            jax.tree.map(lambda leaf: leaf[num_envs:], states),
        )
        episodes = Episodes(jnp.zeros(num_envs, jnp.int32), keys[:num_envs], pool, zero)
        return self.told(start, episodes, jnp.zeros(num_envs))

    def told(self, state: State, episodes: Episodes, truncation: Array) -> State:
        """The state with what Brax's trainer and the next step ask of it."""
        brax = {"truncation": truncation, "episode_done": state.done, "episode_metrics": {}}
        return state.replace(info={**state.info, **brax, "episodes": episodes})

    def step(self, state: State, action: Array) -> State:
        """One action in every environment; where an episode ends, what follows is the first state of the next one."""
        steps, keys, pool, age = state.info["episodes"]
        bare = state.replace(info={name: state.info[name] for name in pool.info})
        after = rollout.hold(self.env, bare, action, self.action_repeat)
        steps = steps + self.action_repeat
        truncation = jnp.where(steps >= self.episode_length, 1 - after.done, 0.0)
        done = jnp.maximum(after.done, truncation)
        fresh = jax.tree.map(lambda leaf: jnp.roll(leaf, -age, axis=0), pool).replace(reward=after.reward, done=done)
        age = (age + 1) % min(len(steps), self.RENEWAL)
        keys, pool = jax.lax.cond(age == 0, self.draw, lambda keys: (keys, pool), keys)
        episodes = Episodes(jnp.where(done > 0, 0, steps), keys, pool, age)
        return self.told(rollout.where(done > 0, fresh, after.replace(done=done)), episodes, truncation)
