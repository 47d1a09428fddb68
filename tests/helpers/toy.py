"""A small environment without physics, registered as `toy`, for tests of what surrounds an environment."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State

from goalax.core.train import RUN_ONCE
from goalax.envs.base import ENVS


class Pipeline(NamedTuple):
    q: jax.Array
    act: jax.Array  # without entries, as MJX has it for most models


class Toy(Env):
    """A point in the plane moves by its action; goals lie in a square; it dies outside |x| < 1.5."""

    state_dim, goal_dim, goal_indices, goal_reach_thresh = 2, 2, (0, 1), 0.2
    observation_size, action_size = 4, 2
    episode_length, num_timesteps, utd_ratio, normalize_observations = 10, 4000, None, True
    pairs_of_ends = False
    dt = 0.1
    compiler_options: ClassVar = RUN_ONCE

    def __init__(self, backend=None, dense_reward=False, speed=0.3):
        if backend not in (None, "spring", "mjx"):
            raise ValueError(f"Unsupported backend: {backend}. Choose from: spring, mjx.")
        self._backend, self.dense_reward = backend or "spring", dense_reward
        self.speed = speed * (2 if backend == "mjx" else 1)

    @property
    def backend(self):
        return self._backend

    def _state(self, position, goal, start):
        dist = jnp.linalg.norm(position - goal)
        success = (dist < self.goal_reach_thresh).astype(jnp.float32)
        reward = -dist if self.dense_reward else success
        done = (jnp.abs(position[0]) > 1.5).astype(jnp.float32)
        zero = jnp.zeros(())
        return State(
            Pipeline(position, jnp.zeros(0)),
            jnp.concatenate([position, goal]),
            zero if start else reward,
            zero if start else done,
            {"success": success, "dist": dist},
            {"goal": goal},
        )

    def sample_goal(self, key):
        return jax.random.uniform(key, (2,), minval=-1, maxval=1)

    def command(self, state, goal):
        return self._state(state.pipeline_state.q, goal, start=True)

    def reset(self, rng):
        start_key, goal_key = jax.random.split(rng)
        start = jax.random.uniform(start_key, (2,), minval=-0.2, maxval=0.2)
        return self._state(start, self.sample_goal(goal_key), start=True)

    def step(self, state, action):
        position = state.pipeline_state.q + self.speed * jnp.clip(action, -1, 1)
        return self._state(position, state.info["goal"], start=False)


def register() -> None:
    """Adds `toy` and the faster `toy_eval` to the registry, once."""
    if "toy" not in ENVS:
        ENVS.add("toy", Toy)
        ENVS.add("toy_eval", lambda **kwargs: Toy(speed=0.6, **kwargs))


# What a program of its own says first, to train on `toy`: python -c f"{START} train.main([...])".
START = "import sys; from tests.helpers import toy; toy.register(); from goalax.commands import train;"

# Flags of a run that is over in a second or two.
TINY = [
    *("--env_name", "toy", "--num_envs", "4", "--num_eval_envs", "4", "--unroll_length", "5", "--utd_ratio", "0.1"),
    *("--min_replay_size", "10", "--max_replay_size", "40", "--batch_size", "8", "--vis_length", "0"),
    *("--num_timesteps", "120", "--num_evals", "3", "--h_dim", "8", "--n_hidden", "1", "--repr_dim", "4"),
]
BASELINE = TINY[: TINY.index("--repr_dim")]  # for agents without representations
