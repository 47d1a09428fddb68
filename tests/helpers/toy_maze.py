"""A corner of a maze without walls that stop anything, registered as `toy_maze`, for tests of what counts cells."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core.goals import Cells
from goalax.envs.base import ENVS
from tests.helpers import toy
from tests.helpers.toy import Toy

SIZE = 1.0
CENTRES = np.array([[1.0, 1], [1, 2], [1, 3], [2, 3]])  # goals are in all but the first one


class ToyMaze(Toy):
    """A point that starts anywhere in the corridor of the first three cells, so that some goals are reached by luck; it
    dies where x > 1.5, as soon as it comes to the last one."""

    goal_reach_thresh = 0.9
    cells = Cells(CENTRES, SIZE)

    def sample_goal(self, key):
        return jax.random.choice(key, jnp.asarray(CENTRES[1:], jnp.float32))

    def reset(self, rng):
        start_key, goal_key = jax.random.split(rng)
        start = jax.random.uniform(start_key, (2,), minval=jnp.array([0.8, 0.8]), maxval=jnp.array([1.2, 3.2]))
        return self._state(start, self.sample_goal(goal_key), start=True)


def register() -> None:
    """Adds `toy_maze` to the registry, once."""
    toy.register()
    if "toy_maze" not in ENVS:
        ENVS.add("toy_maze", ToyMaze)
