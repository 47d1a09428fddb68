"""The device-resident trajectory ring: init / add / sample (choose, then gather)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.core.goals import truncated_geometric
from goalax.core.sharding import look_up
from goalax.core.types import Array, Batch, BufferState, Spec, Transition

CANDIDATES = 4  # rows drawn per sample, of which the first that has a future is taken


def init(row: Transition, max_rows: int, unroll_length: int) -> BufferState:
    """An empty ring.

    Args:
      row: one row of all environments (arrays or shapes), leaves [N, ...].
      max_rows: rows to hold at least; rounded up to a multiple of unroll_length, so that an insertion never wraps.
      unroll_length: rows of one `add`.
    """
    capacity = -(-max_rows // unroll_length) * unroll_length
    return BufferState(
        rows=jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), row),
        count=jnp.zeros((), jnp.int32),
    )


def add(buffer: BufferState, rows: Transition) -> BufferState:
    """Writes rows, leaves [unroll_length, N, ...], over the oldest ones."""
    capacity, length = buffer.rows.reward.shape[0], rows.reward.shape[0]
    slot = buffer.count % capacity
    stored = jax.tree.map(lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, slot, 0), buffer.rows, rows)
    return BufferState(stored, buffer.count + length)


def steps_left(buffer: BufferState, row: Array, column: Array, max_episode_steps: int) -> Array:
    """Rows between each (row, column) and the last stored row of the same episode: [B] int32 >= 0.

    Binary search: along a column episode_start never decreases, and no episode is longer than max_episode_steps + 1
    rows.
    """

    def search(starts, column, row, count):
        start = starts[row % starts.shape[0], column]
        low, high = row, jnp.minimum(start + max_episode_steps, count - 1)
        for _ in range(max_episode_steps.bit_length()):
            middle = (low + high + 1) // 2
            same = starts[middle % starts.shape[0], column] == start
            low, high = jnp.where(same, middle, low), jnp.where(same, high, middle - 1)
        return low - row

    return look_up(search, buffer.rows.episode_start, column, row, buffer.count)


def draw(buffer: BufferState, key: Array, batch_size: int) -> tuple[Array, Array]:
    """Rows and columns, both [B] int32, uniform over the stored rows whose next state is stored too."""
    capacity, num_envs = buffer.rows.episode_start.shape
    oldest = jnp.maximum(buffer.count - capacity, 0)
    row_key, column_key = jax.random.split(key)
    shape = (CANDIDATES, batch_size)
    row = jax.random.randint(row_key, shape, oldest, buffer.count - 1)
    column = jax.random.randint(column_key, shape, 0, num_envs)

    def same_episode(starts, column, row):
        return starts[row % capacity, column] == starts[(row + 1) % capacity, column]

    has_next = look_up(same_episode, buffer.rows.episode_start, column, row)
    first = jnp.argmax(has_next, axis=0)[None]
    row, column, found = (jnp.take_along_axis(x, first, axis=0)[0] for x in (row, column, has_next))
    # All candidates were ends of episodes (probability 4e-9 for episodes of 125 steps): the row before such an end
    # belongs to the same episode, except where it was overwritten; there the row after it begins an episode.
    return jnp.where(found, row, jnp.where(row > oldest, row - 1, row + 1)), column


class Choice(NamedTuple):
    """Where samples lie in the ring, each [B] int32."""

    slot: Array
    next_slot: Array
    future_slot: Array
    column: Array


def choose(buffer: BufferState, key: Array, num: int, discounting: float, max_episode_steps: int) -> Choice:
    """Rows drawn uniformly, each with a future of its own episode drawn by the goal law; cost O(num).

    Args:
      buffer: at least 2 rows stored.
      key: consumed.
      num: B.
      discounting: gamma of the goal law.
      max_episode_steps: no episode has more steps (rows: one more).
    """
    draw_key, law_key = jax.random.split(key)
    row, column = draw(buffer, draw_key, num)
    left = steps_left(buffer, row, column, max_episode_steps)
    ahead = truncated_geometric(jax.random.uniform(law_key, (num,)), left, discounting)
    capacity = buffer.rows.reward.shape[0]
    return Choice(row % capacity, (row + 1) % capacity, (row + ahead) % capacity, column)


def gather(buffer: BufferState, choice: Choice, spec: Spec) -> Batch:
    """The transitions at a choice; discount is that of spec, or 0 at a true termination."""

    def at(rows: Transition, column: Array, slot: Array, next_slot: Array, future_slot: Array) -> tuple:
        def take(ring, slot):
            return ring.at[slot, column].get(mode="promise_in_bounds")

        future = take(rows.state, future_slot), take(rows.action, future_slot)
        return jax.tree.map(lambda ring: take(ring, slot), rows), take(rows.state, next_slot), *future

    slots = choice.slot, choice.next_slot, choice.future_slot
    row, next_state, future_state, future_action = look_up(at, buffer.rows, choice.column, *slots)
    return Batch(
        state=row.state,
        action=row.action,
        next_state=next_state,
        goal=row.goal,
        future_state=future_state,
        future_action=future_action,
        reward=row.reward,
        future_reward=spec.reached(next_state, spec.goal_of(future_state)),
        discount=spec.discounting * (1 - row.terminal),
    )


def sample(buffer: BufferState, key: Array, batch_size: int, spec: Spec, max_episode_steps: int) -> Batch:
    """`gather` of what `choose` draws by the goal law of spec."""
    return gather(buffer, choose(buffer, key, batch_size, spec.discounting, max_episode_steps), spec)
