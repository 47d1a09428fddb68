"""What the tests of environments share: many draws of a law, and an environment whose physics stands still."""

import jax
import numpy as np
from scipy import stats

from goalax.envs import create_env

NUM_ENVS = 8  # sizes of the compiled functions that all tests share
STEPS = 50


def keys(seed, num=NUM_ENVS):
    return jax.random.split(jax.random.key(seed), num)


def draw(function, num=4000, seed=0):
    """function(key) for many keys, compiled."""
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(keys(seed, num)))


def is_uniform(values, low, high):
    """Whether values look uniform on [low, high]."""
    return stats.kstest(np.ravel(values), stats.uniform(low, high - low).cdf).pvalue > 1e-3


def angle(points):
    return np.arctan2(points[:, 1], points[:, 0])


def frozen(env_functions, name, **kwargs):
    """An environment whose physics stands still, and a state of it."""
    env = create_env(name, **kwargs)
    env.pipeline_step = lambda pipeline_state, action: pipeline_state
    return env, jax.tree.map(lambda leaf: leaf[0], env_functions(name).reset(keys(0)))
