"""A small ring that has wrapped, for tests of the buffer."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core import buffer
from goalax.core.types import BufferState, Transition


def filled_ring(number_of_first_row: int) -> BufferState:
    """A ring of 12 rows of 2 environments that has wrapped, episodes of 5 rows; its rows are numbered from there on."""
    row = {"state": (2, 3), "goal": (2, 1), "action": (2, 1), "reward": (2,), "terminal": (2,)}
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in row.items()}
    ring = buffer.init(Transition(**shapes, episode_start=jax.ShapeDtypeStruct((2,), jnp.int32)), 12, 4)
    ring = ring._replace(count=jnp.int32(number_of_first_row))
    for unroll in range(5):
        number = number_of_first_row + 4 * unroll + np.arange(4)
        normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(10 * unroll + i), (4, *shape))  # noqa: B023, E731
        starts = np.repeat((number - (number - number_of_first_row) % 5)[:, None], 2, axis=1)
        values = {name: normal(i, *shape) for i, (name, shape) in enumerate(row.items())}
        ring = buffer.add(ring, Transition(**values, episode_start=jnp.asarray(starts, jnp.int32)))
    return ring


def stored_steps(size, horizon):
    """`Path.stored` of windows, [size, horizon]: of some all steps, of the others fewer and fewer."""
    return jnp.asarray(np.arange(horizon) < horizon - np.arange(size)[:, None] % horizon, jnp.float32)
