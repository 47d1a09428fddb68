"""The device-resident trajectory ring: init / add / sample (choose, then gather)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.core import goals, returns, sizes, visits, ways
from goalax.core.relabel.geometric import geometric
from goalax.core.sharding import look_up
from goalax.core.types import Array, Batch, BufferState, Needs, Spec, Subgoals, Transition, Visit

MANY_ROWS = 2**29  # after which `rebase` is due: up to twice as many, the sum of two numbers of rows is an int32
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


def excess_rows(buffer: BufferState) -> Array:
    """[] int32 rows by which `count` may be less, a multiple of the capacity: 0 up to MANY_ROWS of them."""
    capacity = buffer.rows.reward.shape[0]
    return jnp.where(buffer.count > MANY_ROWS, (buffer.count // capacity - 1) * capacity, 0)


def rebase(buffer: BufferState, shift: Array) -> BufferState:
    """The ring with all numbers of rows less by `shift`, a multiple of the capacity: slots stay what they are.

    Where an episode began before the first row that is then left, its start is negative, and still tells it apart.
    """
    rows = buffer.rows._replace(episode_start=buffer.rows.episode_start - shift)
    return BufferState(rows, buffer.count - shift)


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


def draw(buffer: BufferState, key: Array, batch_size: int, horizon: int = 1) -> tuple[Array, Array]:
    """Rows and columns, both [B] int32, uniform over the stored rows that `horizon` more of their episode follow."""
    capacity, num_envs = buffer.rows.episode_start.shape
    oldest = jnp.maximum(buffer.count - capacity, 0)
    row_key, column_key = jax.random.split(key)
    shape = (CANDIDATES, batch_size)
    row = jax.random.randint(row_key, shape, oldest, buffer.count - horizon)
    column = jax.random.randint(column_key, shape, 0, num_envs)

    def same_episode(starts, column, row):
        return starts[row % capacity, column] == starts[(row + horizon) % capacity, column]

    has_next = look_up(same_episode, buffer.rows.episode_start, column, row)
    first = jnp.argmax(has_next, axis=0)[None]
    row, column, found = (jnp.take_along_axis(x, first, axis=0)[0] for x in (row, column, has_next))
    if horizon == 1:
        # All candidates were ends of episodes (probability 4e-9 for episodes of 125 steps): the row before such an end
        # belongs to the same episode, except where it was overwritten; there the row after it begins an episode.
        return jnp.where(found, row, jnp.where(row > oldest, row - 1, row + 1)), column
    # All candidates were among the last rows of episodes (1e-8 for a horizon of 3 in episodes of 300 steps, 0.17 for
    # one of 20 in episodes of 30): any row of this one that the horizon fits behind, or the first of the next episode
    # where this one is too short or overwritten, or of this one where the next is not there yet. Where that is too
    # short, too, `ways.path` repeats its last row: in episodes of 12 steps 0.012 of samples with 9, with 3 never.
    starts = look_up(way_starts(horizon), buffer.rows.episode_start, column, row)
    last = row + jnp.sum(starts[:, 1:] == starts[:, :1], axis=1)
    first, back = jnp.maximum(starts[:, 0], oldest), last - horizon
    other = jnp.where(last + 2 < buffer.count, last + 1, first)
    share = jax.random.uniform(jax.random.fold_in(key, 2), (batch_size,))
    anywhere = jnp.minimum(first + jnp.floor(share * (back - first + 1)).astype(row.dtype), back)
    return jnp.where(found, row, jnp.where(back >= first, anywhere, other)), column


def way_starts(horizon: int) -> Callable[[Array, Array, Array], Array]:
    """Episode starts of a row and of so many after it, [B, horizon + 1], for `look_up`."""

    def find(starts: Array, column: Array, row: Array) -> Array:
        return starts[(row[:, None] + jnp.arange(horizon + 1)[None]) % starts.shape[0], column[:, None]]

    return find


def anywhere(buffer: BufferState, row_key: Array, column_key: Array, num: int) -> tuple[Array, Array]:
    """Rows and columns, both [num] int32, uniform over all that is stored; consumes the keys."""
    capacity, num_envs = buffer.rows.reward.shape
    oldest = jnp.maximum(buffer.count - capacity, 0)
    row = jax.random.randint(row_key, (num,), oldest, buffer.count)
    return row, jax.random.randint(column_key, (num,), 0, num_envs)


def states(buffer: BufferState, key: Array, num: int) -> Array:
    """Stored states, uniformly drawn, [num, S]; zeros of an empty ring. Consumes key."""
    row_key, column_key = jax.random.split(key)
    row, column = anywhere(buffer, row_key, column_key, num)
    capacity = buffer.rows.reward.shape[0]
    return look_up(lambda ring, column, row: ring[row % capacity, column], buffer.rows.state, column, row)


def coverage(buffer: BufferState, spec: Spec, cells: goals.Cells) -> Array:
    """Share of the free cells of a maze in which at least one stored state achieves its goal, []."""
    stored = jnp.arange(buffer.rows.reward.shape[0]) < buffer.count
    number = jnp.where(stored[:, None], goals.cell_number(cells, spec.goal_of(buffer.rows.state)), -1)
    # One cell after the other: together they would take a byte for every state and cell.
    return jnp.mean(jax.lax.map(lambda cell: jnp.any(number == cell), goals.cell_numbers(cells)))


class Choice(NamedTuple):
    """Where samples lie in the ring, each [B] int32; None where nobody asks for it."""

    slot: Array
    next_slot: Array
    future_slot: Array
    column: Array
    future_column: Array | None = None  # None: that of the sample
    actor_slot: Array | None = None
    actor_column: Array | None = None
    way_steps: Array | None = None
    left: Array | None = None
    near_steps: Array | None = None  # to `Subgoals.near`
    actor_steps: Array | None = None  # to `Subgoals.way`
    to_go: Array | None = None  # float32; sums of whole episodes, which are made once for all samples


def choose(
    buffer: BufferState, key: Array, num: int, needs: Needs, discounting: float, max_episode_steps: int
) -> Choice:
    """Rows drawn uniformly, each with a goal of the mix that is asked for; cost O(num).

    Args:
      buffer: at least `needs.horizon` + 1 rows stored, and once rows are overwritten 3 (see `contract`).
      key: consumed.
      num: B.
      needs: of the agent.
      discounting: gamma of the goal law, where the agent has none of its own.
      max_episode_steps: no episode has more steps (rows: one more).
    """
    draw_key, law_key = jax.random.split(key)
    row, column = draw(buffer, draw_key, num, needs.horizon)
    left = steps_left(buffer, row, column, max_episode_steps)
    law = needs.law or geometric(discounting)
    ahead = law(jax.random.uniform(law_key, (num,)), left)
    capacity = buffer.rows.reward.shape[0]
    choice = Choice(row % capacity, (row + 1) % capacity, (row + ahead) % capacity, column)

    def more_keys() -> Array:
        """Keys for what few agents ask for, [3]: `split` gives the same first ones, however many it is asked for."""
        return jax.random.split(key, 5)[2:]

    def mixed(number: int, shares: tuple[float, float, float], ahead: Array) -> tuple[Array, Array, Array]:
        """Slots and columns of goals by their shares, and the steps to them, or to the end for any stored ones."""
        kind_key, row_key, column_key = jax.random.split(more_keys()[number], 3)
        kind = jax.random.uniform(kind_key, (num,))
        later, now = kind < shares[0], kind < shares[0] + shares[1]
        any_row, any_column = anywhere(buffer, row_key, column_key, num)
        goal_row = jnp.where(later, row + ahead, jnp.where(now, row, any_row))
        steps = jnp.where(later, ahead, jnp.where(now, 0, left))
        return goal_row % capacity, jnp.where(now, column, any_column), steps

    steps_to_goal = ahead
    if needs.goals != Needs().goals:
        future_slot, future_column, steps = mixed(0, needs.goals, ahead)
        steps_to_goal = jnp.maximum(steps, 1)  # of the state itself: a way-point is no nearer than the next row
        choice = choice._replace(future_slot=future_slot, future_column=future_column)
    if needs.actor_goals is not None:
        actor_ahead = ahead
        if needs.actor_law is not None:
            actor_key = jax.random.split(more_keys()[1], 4)[3]  # the three before are those of the mix
            actor_ahead = needs.actor_law(jax.random.uniform(actor_key, (num,)), left)
        actor_slot, actor_column, actor_steps = mixed(1, needs.actor_goals, actor_ahead)
        choice = choice._replace(actor_slot=actor_slot, actor_column=actor_column)
        if needs.subgoal:
            near, way = (jnp.minimum(needs.subgoal, steps) for steps in (left, actor_steps))
            choice = choice._replace(near_steps=near, actor_steps=way)
    if needs.waypoint is not None:
        choice = choice._replace(way_steps=needs.waypoint(jax.random.uniform(more_keys()[2], (num,)), steps_to_goal))
    if needs.within or needs.horizon > 1:
        choice = choice._replace(left=left)
    if needs.to_go:
        to_go = returns.to_go(buffer.rows.reward, buffer.rows.episode_start, buffer.count)
        to_go = look_up(lambda ring, column, slot: ring[slot, column], to_go, column, choice.slot)
        choice = choice._replace(to_go=to_go)
    return choice


def gather(buffer: BufferState, choice: Choice, spec: Spec, needs: Needs = Needs()) -> Batch:  # noqa: B008 (immutable)
    """The transitions at a choice, some with original goals; discount is that of spec, or 0 at a true termination."""

    def take(ring: Array, slot: Array, column: Array) -> Array:
        return ring.at[slot, column].get(mode="promise_in_bounds")

    def at(rows: Transition, column: Array, slot: Array, next_slot: Array, future_slot: Array) -> tuple:
        future = take(rows.state, future_slot, column), take(rows.action, future_slot, column)
        return jax.tree.map(lambda ring: take(ring, slot, column), rows), take(rows.state, next_slot, column), *future

    def state_at(column: Array, slot: Array) -> Array:
        return look_up(lambda state, column, slot: take(state, slot, column), buffer.rows.state, column, slot)

    slots = choice.slot, choice.next_slot, choice.future_slot
    row, next_state, future_state, future_action = look_up(at, buffer.rows, choice.column, *slots)
    if choice.future_column is not None:  # the futures above are of the wrong columns, and XLA leaves them out

        def elsewhere(rows: Transition, column: Array, slot: Array) -> tuple[Array, Array]:
            return take(rows.state, slot, column), take(rows.action, slot, column)

        future_state, future_action = look_up(elsewhere, buffer.rows, choice.future_column, choice.future_slot)
    if needs.original:
        num = len(row.goal)
        last = jnp.arange(num) >= num - sizes.samples_of(needs.original, num)
        future_state = jnp.where(last[:, None], spec.achieving(row.state, row.goal), future_state)
    batch = Batch(
        state=row.state,
        action=row.action,
        next_state=next_state,
        goal=row.goal,
        future_state=future_state,
        future_action=future_action,
        reward=row.reward,
        future_reward=spec.reached(next_state, spec.goal_of(future_state)),
        discount=spec.discounting * (1 - row.terminal),
        to_go=choice.to_go,
    )
    if choice.actor_slot is not None and choice.actor_column is not None:
        batch = batch._replace(actor_state=state_at(choice.actor_column, choice.actor_slot))
    if needs.horizon > 1 and choice.left is not None:
        path = ways.path(buffer.rows, choice.column, choice.slot, choice.left, spec, needs.horizon)
        path_reward = spec.reached(path.state[:, 1:], spec.goal_of(future_state)[:, None])
        batch = batch._replace(path=path._replace(future_reward=path_reward))
    if choice.way_steps is not None:
        goal = spec.goal_of(future_state)
        waypoint = ways.waypoint(buffer.rows, choice.column, choice.slot, choice.way_steps, goal, spec)
        batch = batch._replace(waypoint=waypoint)
    if needs.same:
        same = choice.future_slot == choice.slot
        if choice.future_column is not None:
            same &= choice.future_column == choice.column
        batch = batch._replace(same=same.astype(jnp.float32))
    if choice.near_steps is not None and choice.actor_steps is not None:
        steps = choice.near_steps, choice.actor_steps
        batch = batch._replace(
            subgoals=Subgoals(*(ways.after(buffer.rows, choice.column, choice.slot, k) for k in steps))
        )
    if needs.next_action:
        action = look_up(
            lambda action, column, slot: take(action, slot, column),
            *(buffer.rows.action, choice.column, choice.next_slot),
        )
        batch = batch._replace(next_action=action)
    if needs.within and choice.left is not None:

        def visit(rows: Transition, column: Array, slot: Array, left: Array, goal: Array) -> Visit:
            return visits.find(rows, column, slot, left, goal, spec, needs.within, needs.bins)

        goal = spec.goal_of(future_state)
        batch = batch._replace(visit=look_up(visit, buffer.rows, choice.column, choice.slot, choice.left, goal))
    return batch


def sample(
    buffer: BufferState,
    key: Array,
    batch_size: int,
    spec: Spec,
    max_episode_steps: int,
    needs: Needs = Needs(),  # noqa: B008
) -> Batch:
    """`gather` of what `choose` draws."""
    return gather(buffer, choose(buffer, key, batch_size, needs, spec.discounting, max_episode_steps), spec, needs)
