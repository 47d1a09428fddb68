"""Commanded goals where few have been achieved, to push the frontier outwards."""

import jax
import jax.numpy as jnp
from jax import Array

from goalax.core.command.base import Scene, law
from goalax.core.normalization import SMALLEST_SPREAD

CANDIDATES = 100  # goals of which each episode gets the rarest
POOL = 32 * CANDIDATES  # goals that these are drawn from: one of them is offered to few of the episodes that begin
SEEN = 1000  # achieved goals that the density is estimated from
BANDWIDTH = 0.1  # of the kernel, in standard deviations of achieved goals: that of the paper's experiments


def scale_of(seen: Array) -> Array:
    """What kernels measure each coordinate of goals [K, G] in, [1, G]: its standard deviation over them."""
    spread = jnp.std(seen, axis=0)
    # One that hardly varies (the height of what lies on a table) tells nothing of how near goals are.
    return jnp.where(spread > SMALLEST_SPREAD, spread, jnp.inf)[None]


def log_kernels(goals: Array, seen: Array, bandwidth: float) -> Array:
    """Logarithms of Gaussian kernels, up to a constant: goals [M, G] and seen [K, G] -> [M, K]."""
    return -0.5 * jnp.sum(((goals[:, None] - seen[None]) / bandwidth) ** 2, axis=-1)


def log_density(goals: Array, seen: Array, bandwidth: float) -> Array:
    """Logarithm of a Gaussian kernel density estimate, up to a constant: goals [M, G] and seen [K, G] -> [M]."""
    return jax.nn.logsumexp(log_kernels(goals, seen, bandwidth), axis=1)


@law("rare", stored=True)
def rare(scene: Scene, key: Array, num: int) -> Array:
    """Of a few achieved goals that with the lowest density of achieved goals, [num, G]: maximum entropy gain
    exploration (MEGA, arXiv 2007.02832, section 3), without its test of what the agent can reach already."""
    seen_key, candidate_key, pick_key = jax.random.split(key, 3)
    seen, candidates = scene.achieved(seen_key, SEEN), scene.achieved(candidate_key, POOL)
    scale = scale_of(seen)
    density = log_density(candidates / scale, seen / scale, BANDWIDTH)
    offered = jax.random.randint(pick_key, (num, CANDIDATES), 0, len(candidates))
    rarest = jnp.argmin(density[offered], axis=1)
    return candidates[jnp.take_along_axis(offered, rarest[:, None], axis=1)[:, 0]]
