"""Scripted data of a point mass in a maze, collected on the device: `navigate`, `stitch` and `explore` of OGBench.

Laws of OGBench's maze data (arXiv 2410.20092, appendix on datasets), with a walker for a mass that is pushed: a script
asks for a velocity towards the centre of the next cell on a shortest path, and noise is added to the push.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core import goals, rollout
from goalax.core.goals import Cells
from goalax.core.types import Array

SPEED = 3.0  # m/s that the script asks for
HOLD = 10  # actions for which `explore` keeps a direction
STITCH_CELLS = 4  # from start to goal of `stitch`, along the shortest path
SPREAD = 0.25  # of starts and goals around the centre of their cell, in cells: 1 m of 4, as in OGBench


class Style(NamedTuple):
    """How a kind of data is made."""

    rows: int  # of an episode
    noise: float  # standard deviation of what is added to actions
    # (the maze's `Ways`, key) -> cells of start and goal, [] int32 each
    start: Callable[["Ways", Array], tuple[Array, Array]]
    again: bool = False  # a goal that is reached is followed by a new one
    directed: bool = True  # walks to the goal; else in directions drawn at random


class Ways(NamedTuple):
    """Shortest paths between the cells of a maze."""

    next_cell: Array  # [C, C] int32, the cell after the first on the way to the second; the second where there is none
    steps: Array  # [C, C] int32 cells from the first to the second
    corners: Array  # [K] int32, cells that are no straight corridor: the goals of `navigate`


def ways_of(cells: Cells) -> Ways:
    """Shortest paths by a breadth-first search from every cell; ValueError where a cell cannot be reached."""
    places = [tuple(place) for place in cells.places.tolist()]
    number = {place: index for index, place in enumerate(places)}
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1))
    beside = [[number.get((x + dx, y + dy)) for dx, dy in sides] for x, y in places]
    next_cell = np.tile(np.arange(len(places)), (len(places), 1))
    steps = np.full((len(places),) * 2, -1)
    for goal in range(len(places)):
        steps[goal, goal], queue = 0, deque([goal])
        while queue:
            here = queue.popleft()
            for cell in beside[here]:
                if cell is not None and steps[cell, goal] < 0:
                    steps[cell, goal], next_cell[cell, goal] = steps[here, goal] + 1, here
                    queue.append(cell)
    if (steps < 0).any():
        raise ValueError("There is no way between some cells of the maze.")
    free = np.array([[side is not None for side in cell] for cell in beside])
    straight = (free == [True, True, False, False]).all(1) | (free == [False, False, True, True]).all(1)
    ways = next_cell, steps, np.flatnonzero(~straight)
    return Ways(*(jnp.asarray(way, jnp.int32) for way in ways))


def anywhere(ways: Ways, key: Array) -> tuple[Array, Array]:
    """A start in any cell, a goal in any but straight corridors."""
    start_key, goal_key = jax.random.split(key)
    return jax.random.randint(start_key, (), 0, len(ways.steps)), jax.random.choice(goal_key, ways.corners)


def nearby(ways: Ways, key: Array) -> tuple[Array, Array]:
    """A start in any cell, a goal STITCH_CELLS away, or as far as there is one."""
    start_key, goal_key = jax.random.split(key)
    start = jax.random.randint(start_key, (), 0, len(ways.steps))
    steps = ways.steps[start]
    fitting = steps == jnp.minimum(STITCH_CELLS, jnp.max(steps))
    return start, jax.random.categorical(goal_key, jnp.where(fitting, 0.0, -jnp.inf))


STYLES = {
    "navigate": Style(rows=251, noise=0.5, start=anywhere, again=True),
    "stitch": Style(rows=101, noise=0.5, start=nearby),
    "explore": Style(rows=251, noise=1.0, start=anywhere, directed=False),
}


def place(cells: Cells, cell: Array, key: Array) -> Array:
    """A point around the centre of a cell, [2]."""
    centres = jnp.asarray(cells.centres, jnp.float32)
    return centres[cell] + cells.size * jax.random.uniform(key, (2,), minval=-SPREAD, maxval=SPREAD)


def unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-6)


def push(cells: Cells, ways: Ways, position: Array, velocity: Array, goal: Array, goal_cell: Array) -> Array:
    """What the script does, [2], before noise: it asks for SPEED towards the next cell, in the last one to the goal."""
    centres = jnp.asarray(cells.centres, jnp.float32)
    here = jnp.argmin(jnp.sum((centres - position[None]) ** 2, axis=1))
    target = jnp.where(here == goal_cell, goal, centres[ways.next_cell[here, goal_cell]])
    return SPEED * unit(target - position) - velocity


@functools.partial(jax.jit, static_argnames=("env", "style", "num_envs"))
def episodes(env: Any, style: Style, key: Array, num_envs: int) -> dict[str, Array]:
    """One episode in each of num_envs environments, leaves [rows, N, ...] by the keys of a file.

    Args:
      env: a point mass in a maze: its positions and velocities are q and qd of its simulator, and its state both.
      key: consumed.
    """
    cells, ways = env.cells, ways_of(env.cells)
    reset_key, start_key, step_key = jax.random.split(key, 3)

    def begin(state, key):
        cell_key, start_key, goal_key = jax.random.split(key, 3)
        start_cell, goal_cell = style.start(ways, cell_key)
        q, qd = place(cells, start_cell, start_key), state.pipeline_state.qd
        physics = env.pipeline_init(q, qd)
        goal = place(cells, goal_cell, goal_key)
        moved = state.replace(pipeline_state=physics, obs=jnp.concatenate([env.state_of(physics), goal]))
        return env.command(moved, goal), goal_cell

    def act(state, goal_cell, wish, key):
        noise_key, wish_key, cell_key, goal_key = jax.random.split(key, 4)
        q, qd, goal = state.pipeline_state.q, state.pipeline_state.qd, state.info["goal"]
        if style.again:
            at_goal = goals.reached(goals.distance(q, goal), env.goal_reach_thresh) > 0
            goal_cell = jnp.where(at_goal, style.start(ways, cell_key)[1], goal_cell)
            goal = jnp.where(at_goal, place(cells, goal_cell, goal_key), goal)
            state = env.command(state, goal)
        if style.directed:
            push_to = push(cells, ways, q, qd, goal, goal_cell)
        else:
            steps, direction = wish
            drawn = unit(jax.random.normal(wish_key, (2,)))
            direction = jnp.where(steps % HOLD == 0, drawn, direction)
            wish, push_to = (steps + 1, direction), SPEED * direction - qd
        action = jnp.clip(push_to + style.noise * jax.random.normal(noise_key, (2,)), -1, 1)
        row = {"observations": state.obs[: env.state_dim], "actions": action, "goals": goal, "qpos": q, "qvel": qd}
        return state, goal_cell, wish, action, row

    def step(carry, keys):
        state, goal_cell, wish = carry
        state, goal_cell, wish, action, row = jax.vmap(act)(state, goal_cell, wish, keys)
        after = rollout.step_all(env, state, action)
        row |= {"rewards": after.reward, "masks": 1 - after.done}
        return (after, goal_cell, wish), row

    fresh = rollout.reset_all(env, jax.random.split(reset_key, num_envs))
    state, goal_cell = jax.vmap(begin)(fresh, jax.random.split(start_key, num_envs))
    wish = jnp.zeros(num_envs, jnp.int32), jnp.zeros((num_envs, 2))
    keys = jax.random.split(step_key, (style.rows, num_envs))
    return jax.lax.scan(step, (state, goal_cell, wish), keys)[1]


def collect(env: Any, style: str, seed: int, steps: int, num_envs: int) -> Iterator[dict[str, np.ndarray]]:
    """Parts of a file, leaves [rows of whole episodes, ...], of `steps` transitions or up to an episode more.

    Args:
      env: see `episodes`.
      style: a name in STYLES.
      num_envs: environments at once.
    """
    law, left = STYLES[style], -(-steps // (STYLES[style].rows - 1))
    for key in jax.random.split(jax.random.PRNGKey(seed), -(-left // num_envs)):
        part = jax.device_get(episodes(env, law, key, num_envs))
        num, left = min(left, num_envs), left - num_envs
        lines = {name: np.swapaxes(leaf, 0, 1)[:num].reshape(-1, *leaf.shape[2:]) for name, leaf in part.items()}
        ends = np.arange(num * law.rows) % law.rows == law.rows - 1
        ends_nothing = {"rewards": np.where(ends, 0, lines["rewards"]), "masks": np.where(ends, 1, lines["masks"])}
        yield lines | ends_nothing | {"terminals": ends}
