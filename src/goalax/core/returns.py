"""Returns to go: what a stored episode still brings in rewards, from each of its rows on."""

import jax
import jax.numpy as jnp

from goalax.core.types import Array


def to_go(reward: Array, episode_start: Array, count: Array) -> Array:
    """R_t = r_t + r_{t+1} + ... up to the last stored row of the same episode, without that of this row, which
    means nothing where the episode has ended there (arXiv 2106.01345, section 3; undiscounted), [capacity, N].

    Sums begin anew in every episode, so they are as exact as one episode allows; cost O(capacity log capacity).

    Args:
      reward, episode_start: [capacity, N] of the ring, in the order of its slots.
      count: [] int32 rows written, see `BufferState`.
    """
    # Oldest first. Where the ring is not full, what was never written comes before that, and is read by nobody.
    reward, start = (jnp.roll(leaf, -count, axis=0) for leaf in (reward, episode_start))
    last = jnp.ones_like(start[:1], bool)
    going_on = jnp.concatenate([start[1:] == start[:-1], ~last])

    def joined(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        """Of two runs of rows, whether all go on to the next one, and their rewards until one does not."""
        return later[0] * earlier[0], earlier[1] + earlier[0] * later[1]

    _, sums = jax.lax.associative_scan(
        joined, (going_on.astype(jnp.float32), jnp.where(going_on, reward, 0.0)), reverse=True
    )
    return jnp.roll(sums, count, axis=0)
