"""Mazes: from picture to walls, starts and goals; walls that hold; and the point mass that moves between them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax import contact, kinematics
from brax.envs.base import State
from scipy import stats

from goalax.envs import ENVS, create_env
from goalax.envs.maze import LAYOUTS, MAZES, parse
from tests.helpers.envs import NUM_ENVS, STEPS, draw, keys

MAZE_NAMES = [f"{body}_{layout}" for body, layouts in MAZES.items() for layout in layouts]
COUNTS = {  # layout -> rows, columns, walls, starts, goals, balls
    "u_maze": (5, 5, 18, 1, 6, 0),
    "u_maze_eval": (5, 5, 18, 1, 3, 0),
    "big_maze": (8, 8, 38, 1, 25, 0),
    "big_maze_eval": (8, 8, 38, 1, 10, 0),
    "hardest_maze": (9, 12, 62, 1, 45, 0),
    "ball_u_maze": (5, 5, 18, 1, 5, 1),
    "ball_big_maze": (8, 8, 38, 1, 20, 2),
}
every_maze = pytest.mark.parametrize("name", MAZE_NAMES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def grid_of(layout):
    return np.array([list(line) for line in LAYOUTS[layout].split()])


def centres(cells, size):
    """Metres [n, 2] of the centres of the True cells."""
    return np.argwhere(cells) * size


# ---- Pictures --------------------------------------------------------------------------------------------------------


@every_layout
@pytest.mark.parametrize("size", [4.0, 2.0])
def test_parse_puts_cells_where_the_picture_shows_them(layout, size):
    grid, maze = grid_of(layout), parse(LAYOUTS[layout], size)
    for cell, points in (("R", maze.starts), ("G", maze.goals), ("B", maze.balls), ("#", maze.walls)):
        np.testing.assert_array_equal(points, np.argwhere(grid == cell) * size)
    assert maze.height == 0.5 * size


def test_rows_run_along_x():
    maze = parse("####\n#R.#\n##G#\n####", 4.0)
    np.testing.assert_array_equal(maze.starts, [[4, 4]])
    np.testing.assert_array_equal(maze.goals, [[8, 8]])
    walls = maze.walls.tolist()
    assert [8, 4] in walls and [4, 8] not in walls


@pytest.mark.parametrize("picture", ["", "###\n##", "###\n#X#\n###", "# #\n###"])
def test_wrong_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="rows of equal length.* # R G B and \\."):
        parse(picture, 4.0)


@pytest.mark.parametrize("layout", COUNTS)
def test_layouts_have_the_cells_of_the_specification(layout):
    grid = grid_of(layout)
    assert (*grid.shape, *((grid == cell).sum() for cell in "#RGB")) == COUNTS[layout]


@every_layout
def test_layouts_are_closed_and_connected(layout):
    grid = grid_of(layout)
    border = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    assert (border == "#").all()
    reached, before = grid == "R", None
    while before is None or (reached != before).any():
        before = reached.copy()
        for axis in (0, 1):
            for shift in (-1, 1):
                reached |= np.roll(before, shift, axis) & (grid != "#")
    assert reached[grid == "G"].all()


def test_ball_layouts_are_their_mazes_with_other_cells():
    for layout in ("u_maze", "big_maze"):
        assert ((grid_of(layout) == "#") == (grid_of(f"ball_{layout}") == "#")).all()


def test_eval_layouts_have_the_start_of_their_maze_and_fewer_goals():
    for layout in ("u_maze", "big_maze"):
        grid, other = grid_of(layout), grid_of(f"{layout}_eval")
        assert grid.shape == other.shape and ((grid == "R") == (other == "R")).all()
        assert (other == "G").sum() < (grid == "G").sum()


# ---- Environments in mazes -------------------------------------------------------------------------------------------


@every_maze
def test_walls_of_the_model_are_those_of_the_maze(name):
    env = create_env(name)
    model, maze = env.sys.mj_model, env.maze
    boxes = (model.geom_type == mujoco.mjtGeom.mjGEOM_BOX) & (model.geom_bodyid == 0)
    np.testing.assert_allclose(model.geom_pos[boxes][:, :2], maze.walls)
    np.testing.assert_allclose(model.geom_size[boxes][:, :2], env.cell_size / 2)
    np.testing.assert_allclose(model.geom_pos[boxes][:, 2], maze.height / 2)
    np.testing.assert_allclose(model.geom_size[boxes][:, 2], maze.height / 2)
    assert (model.geom_contype[boxes] == 1).all() and (model.geom_conaffinity[boxes] == 1).all()


@every_maze
def test_maze_starts_and_goals_are_uniform_over_their_cells(name):
    env = create_env(name)
    goals = draw(env.sample_goal)
    cells, counts = np.unique(goals[:, :2], axis=0, return_counts=True)
    np.testing.assert_allclose(cells, np.unique(env.maze.goals, axis=0))
    assert stats.chisquare(counts).pvalue > 1e-3
    q, _ = draw(lambda key: env.sample_start(key, jnp.asarray(goals[0])), num=500)
    offset = q[:, None, :2] - env.maze.starts[None]
    nearest = np.abs(offset).max(-1).min(-1)
    assert nearest.max() <= 0.1 + 1e-5
    assert len(np.unique(np.abs(offset).max(-1).argmin(-1))) == len(env.maze.starts)


@every_maze
def test_eval_variant_has_the_sizes_of_its_environment(name):
    if f"{name}_eval" in ENVS:
        env, other = create_env(name), create_env(f"{name}_eval")
        for size in ("state_dim", "goal_indices", "action_size", "observation_size", "episode_length", "backend"):
            assert getattr(env, size) == getattr(other, size)


@pytest.mark.parametrize("name", ["ant_u_maze", "ant_ball_big_maze", "humanoid_hardest_maze", "simple_big_maze"])
def test_no_contact_with_a_wall_is_overlooked(name):
    env, rng = create_env(name), np.random.default_rng(0)
    no_limit = env.sys.replace(numeric_data=np.full_like(env.sys.numeric_data, -1))  # MJX then looks at all pairs

    @jax.jit
    @jax.vmap
    def depths(q):
        with jax.numpy_rank_promotion("allow"):
            x, _ = kinematics.forward(env.sys, q, jnp.zeros(env.sys.qd_size()))
            return tuple(jnp.sort(contact.get(sys, x).dist) for sys in (env.sys, no_limit))

    free = np.concatenate([env.maze.starts, env.maze.goals])
    q = np.tile(np.asarray(env.sys.init_q), (2000, 1))
    for axes in (slice(0, 2), slice(15, 17)) if "ball" in name else (slice(0, 2),):
        q[:, axes] = rng.choice(free, 2000) + rng.uniform(-0.5, 0.5, (2000, 2)) * env.cell_size
    if len(q.T) >= 7:
        q[:, 3:7] = rng.normal(size=(2000, 4))
        q[:, 3:7] /= np.linalg.norm(q[:, 3:7], axis=-1, keepdims=True)
    limited, all_pairs = (np.minimum(np.asarray(dist), 0) for dist in depths(q.astype(np.float32)))
    possible = all_pairs.min(axis=-1) > -0.1  # no part is deep inside a wall
    touching = (all_pairs < 0).sum(axis=-1)[possible]
    assert (touching > 0).sum() > 20 and touching.max() <= len(limited.T) < len(all_pairs.T)
    overlooked = (np.abs(limited - all_pairs[:, : len(limited.T)]) > 1e-5).any(axis=-1)[possible]
    assert overlooked.mean() < (0.003 if "humanoid" in name else 1e-9)  # a humanoid reaches over its low walls


def test_walls_stop_a_flying_ant(env_functions):
    env, _, run = env_functions("ant_u_maze")

    def launch(velocity):
        q = env.sys.init_q.at[:2].set(env.maze.starts[0]).at[2].set(0.75)
        physics = env.pipeline_init(q, jnp.zeros(env.sys.qd_size()).at[:3].set(velocity))
        state, goal, zero = env.state_of(physics), jnp.zeros(2), jnp.zeros(())
        metrics = env.told(state, goal)
        return State(physics, jnp.concatenate([state, goal]), zero, zero, metrics, {"goal": goal})

    directions = np.array([[1, 0], [0, -1], [-1, 0], [0, 1]])  # a wall in each but the last
    velocities = np.concatenate([np.c_[8 * directions, 4 * [3]], np.c_[12 * directions, 4 * [4]]]).astype(np.float32)
    start = jax.jit(jax.vmap(launch))(velocities)
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 8), np.float32))
    moved = np.asarray(trace.obs[..., :2]) - env.maze.starts[0]
    furthest = (moved * np.tile(directions, (2, 1))).sum(-1).max(0)
    radius, to_wall = 0.25, 2.0
    np.testing.assert_allclose(furthest[[0, 1, 2, 4, 5, 6]], to_wall - radius, atol=0.1)
    assert (furthest[[3, 7]] > 5).all()


# ---- Point mass ------------------------------------------------------------------------------------------------------

every_backend = pytest.mark.parametrize("backend", ["spring", "mjx", "positional", "generalized"])


@every_backend
def test_random_point_mass_never_leaves_the_free_cells(env_functions, backend):
    env, reset, run = env_functions("simple_u_maze", backend)
    grid, states, rng = grid_of("u_maze"), reset(keys(0)), np.random.default_rng(0)
    positions = []
    for _ in range(8):  # full force, a new direction every STEPS steps: it hits the walls as fast as it can
        actions = np.repeat(rng.choice([-1, 1], (1, NUM_ENVS, 2)), STEPS, axis=0).astype(np.float32)
        states, trace = run(states, actions)
        positions.append(np.asarray(trace.obs[..., :2]).reshape(-1, 2))
    positions = np.concatenate(positions)
    assert positions.min() > 2 and positions.max() < 14  # inside the border
    i, j = np.round(positions / env.cell_size).astype(int).T
    assert (grid[i, j] != "#").all()
    assert positions.min() < 2.3  # it did touch a wall


@pytest.mark.parametrize("backend", ["spring", "mjx", "positional", "generalized"])
def test_point_mass_accelerates_alike_on_all_backends(env_functions, backend):
    env, reset, run = env_functions("simple_u_maze", backend)
    states = reset(keys(4))
    _, trace = run(states, np.broadcast_to(np.array([0, 1], np.float32), (STEPS, NUM_ENVS, 2)))
    steps = round(1 / float(env.dt))
    moved = np.asarray(trace.obs[steps - 1, :, 1] - states.obs[:, 1] - states.obs[:, 3])  # in 1 s, less its first drift
    np.testing.assert_allclose(moved, 0.5 * 5 / 1.2, rtol=0.25)  # 5 N, and 1 kg (of armature) to 1.3 kg


@every_backend
def test_point_mass_physics(backend):
    env = create_env("simple_u_maze", backend)
    np.testing.assert_allclose(env.dt, 0.05, rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, 5)
    np.testing.assert_array_equal(env.sys.dof.armature, 1)
    np.testing.assert_array_equal(env.sys.dof.damping, 0)
    ball = env.sys.mj_model.geom_type == mujoco.mjtGeom.mjGEOM_SPHERE
    np.testing.assert_allclose(env.sys.mj_model.geom_size[ball, 0], 0.25)
