"""An environment that counts: it knows where it started and how many steps it made, so that a loop can check it."""

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State

from tests.helpers.toy import Pipeline


class Counter:
    """Knows where it started and how many steps it made; ends after as many steps as its start says (0: never).

    state: start, steps made, sum of actions, steps until it ends. goal: random. reward: steps made + action.
    """

    state_dim = 4
    goal_dim = 1
    started = None  # receives the state of every reset, where set

    def __init__(self, ends_after=(0, 1)):
        self.ends_after = jnp.array(ends_after, jnp.float32)

    def reset(self, key):
        start_key, goal_key, end_key = jax.random.split(key, 3)
        end = jax.random.choice(end_key, self.ends_after)
        state = jnp.stack([jax.random.uniform(start_key), jnp.zeros(()), jnp.zeros(()), end])
        obs = jnp.concatenate([state, jax.random.uniform(goal_key, (1,))])
        if self.started is not None:
            jax.debug.callback(lambda obs: self.started.append(np.array(obs)), obs)
        return self.made(obs, jnp.zeros(()))

    def step(self, state, action):
        obs = state.obs.at[1].add(1).at[2].add(action[0])
        return self.made(obs, obs[1] + action[0])

    def made(self, obs, reward):
        done = (obs[3] > 0) & (obs[1] >= obs[3])  # as a fallen body, done in every later step too
        metrics = {"dist": obs[0] + obs[1], "success": (jnp.abs(obs[1] - 2.5) < 1).astype(jnp.float32)}
        return State(Pipeline(obs[:2], jnp.zeros(0)), obs, reward, done.astype(jnp.float32), metrics, {"goal": obs[4:]})
