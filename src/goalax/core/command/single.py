"""One commanded goal for the whole run."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.core.command.base import Scene, law


@law("single", stored=False)
def single(scene: Scene, key: Array, num: int) -> Array:
    """The same goal of the environment that is evaluated for all episodes and seeds, [num, G] (SGCRL, arXiv
    2408.05804); with an `_eval` environment that has one goal, that one."""
    return jnp.broadcast_to(scene.evaluated(jax.random.PRNGKey(0)), (num, scene.goal_size))
