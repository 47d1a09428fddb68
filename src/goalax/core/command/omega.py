"""Commanded goals where few have been achieved, and those of the environment the more the nearer they are to these."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.core.command.base import Scene, law
from goalax.core.command.rare import BANDWIDTH, SEEN, log_density, log_kernels, rare, scale_of

WANTED = 200  # goals of the environment that their density is estimated from
EARLY = -3.0  # from a divergence of 4 on some goals are achieved ones


def share_of_wanted(wanted: Array, seen: Array) -> Array:
    """1 / max(EARLY + KL(wanted || achieved), 1), []: which share of goals should be the environment's.

    Args:
      wanted: [W, G] goals of the environment, W at least 2.
      seen: [K, G] achieved goals.
    """
    scale = scale_of(seen)
    kernels = log_kernels(wanted / scale, wanted / scale, BANDWIDTH)
    others = jnp.where(jnp.eye(len(wanted), dtype=bool), -jnp.inf, kernels)  # none of them tells of itself
    own = jax.nn.logsumexp(others, axis=1) - jnp.log(len(wanted) - 1.0)
    achieved = log_density(wanted / scale, seen / scale, BANDWIDTH) - jnp.log(1.0 * len(seen))
    return 1 / jnp.maximum(EARLY + jnp.mean(own - achieved), 1.0)


@law("omega", stored=True)
def omega(scene: Scene, key: Array, num: int) -> Array:
    """Goals of the environment that is evaluated (with --eval_env of that one) with a share that grows as achieved ones
    come to lie among them, else those of `rare`, [num, G]: OMEGA (arXiv 2007.02832)."""
    wanted_key, seen_key, rare_key, which_key = jax.random.split(key, 4)
    wanted = jax.vmap(scene.evaluated)(jax.random.split(wanted_key, max(num, WANTED)))
    share = share_of_wanted(wanted[:WANTED], scene.achieved(seen_key, SEEN))
    own = jax.random.uniform(which_key, (num, 1)) < share
    return jnp.where(own, wanted[:num], rare(scene, rare_key, num))
