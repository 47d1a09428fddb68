"""Bodies in mazes: walls that hold, starts and goals; and the point mass that moves between them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax import contact, kinematics
from brax.envs.base import State
from scipy import stats

from goalax.envs import ENVS, create_env
from goalax.envs.maze import LAYOUTS, MAZES, InMaze, parse
from goalax.envs.stitching import MARK, Stitching
from tests.helpers.envs import NUM_ENVS, STEPS, draw, keys
from tests.helpers.mazes import every_layout, grid_of

# One maze of each class of bodies in mazes, and one of each picture that is special.
SOME = ["ant_u5_maze", "ant_ball_big_maze", "humanoid_u4_maze_eval", "simple_hardest_maze", "simple_u_maze_single_eval"]
SOME += ["ant_u2_maze_gen_1f2f3f", "humanoid_u_maze_gen_1f", "simple_u_maze_gen_1f2f3f"]
some_mazes = pytest.mark.parametrize("name", SOME)

# ---- Environments in mazes -------------------------------------------------------------------------------------------


def test_mazes_of_a_body_differ_by_their_picture_only():
    """So one of each class proves the physics of all."""
    for body, layouts in MAZES.items():
        for layout in layouts:
            constructor = ENVS[f"{body}_{layout}"]
            assert constructor.keywords == {"layout": layout} and not constructor.args
            assert issubclass(constructor.func, InMaze)
            assert issubclass(constructor.func, Stitching) == (MARK in layout)
        classes = {ENVS[f"{body}_{layout}"].func for layout in layouts}
        assert classes <= {ENVS[name].func for name in SOME}


def test_every_walker_is_in_every_maze():
    walked = {layout for layout in LAYOUTS if "B" not in LAYOUTS[layout]}
    for body in ("ant", "humanoid", "simple"):
        assert walked <= set(MAZES[body])
        assert set(MAZES[body]) - walked <= {layout for layout in MAZES["ant"] if MARK in layout or "ball" in layout}


@some_mazes
def test_walls_of_the_model_are_those_of_the_maze(name, env_of):
    env = env_of(name)
    model, maze = env.sys.mj_model, env.maze
    boxes = (model.geom_type == mujoco.mjtGeom.mjGEOM_BOX) & (model.geom_bodyid == 0)
    np.testing.assert_allclose(model.geom_pos[boxes][:, :2], maze.walls)
    np.testing.assert_allclose(model.geom_size[boxes][:, :2], env.cell_size / 2)
    np.testing.assert_allclose(model.geom_pos[boxes][:, 2], maze.height / 2)
    np.testing.assert_allclose(model.geom_size[boxes][:, 2], maze.height / 2)
    assert (model.geom_contype[boxes] == 1).all() and (model.geom_conaffinity[boxes] == 1).all()


@every_layout
def test_starts_and_goals_are_uniform_over_their_cells(layout):
    env = object.__new__(InMaze)  # laws need no physics
    env.maze = parse(LAYOUTS[layout], 4.0)
    goals = draw(env.sample_goal)
    starts = draw(lambda key: env.start_position(key, jnp.zeros(2)), num=200)
    for points, expected in ((goals, env.maze.goals), (starts, env.maze.starts)):
        cells, counts = np.unique(points, axis=0, return_counts=True)
        np.testing.assert_allclose(cells, np.unique(expected, axis=0))
        assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("name", [name for name in SOME if MARK not in name])
def test_bodies_start_near_the_middle_of_a_start_cell(name, env_of):
    env = env_of(name)
    goals = draw(env.sample_goal, num=8)
    assert goals.shape == (8, env.goal_dim)
    assert all((goal[:2] == env.maze.goals).all(-1).any() for goal in goals)
    q, _ = draw(lambda key: env.sample_start(key, jnp.asarray(goals[0])), num=500)
    offset = q[:, None, :2] - env.maze.starts[None]
    nearest = np.abs(offset).max(-1).min(-1)
    assert nearest.max() <= 0.1 + 1e-5
    assert len(np.unique(np.abs(offset).max(-1).argmin(-1))) == len(env.maze.starts)


def test_eval_variants_have_the_sizes_of_their_environments(env_of):
    """They are of one class, or of one that has them from it, so that one of each shall do."""
    for name in SOME:
        env, maze = env_of(name), name.split("_maze")[0] + "_maze"
        assert issubclass(ENVS[name].func, ENVS[maze].func)
        for other in filter(ENVS.__contains__, (f"{maze}_eval", f"{maze}_single_eval")):
            assert ENVS[other].func is ENVS[maze].func
        fixed = ("state_dim", "goal_indices", "episode_length", "num_timesteps", "backends", "goal_reach_thresh")
        assert all(getattr(ENVS[maze].func, size) == getattr(env, size) for size in fixed)
    for name, other in (("simple_u_maze_gen_1f2f3f", "simple_u_maze_single_eval"), ("ant_u5_maze", "ant_u_maze")):
        env, other = env_of(name), env_of(other)
        assert (env.action_size, env.observation_size) == (other.action_size, other.observation_size)
        assert env.sys.q_size() == other.sys.q_size() and env.dt == other.dt


@pytest.mark.slow
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
    assert not overlooked.any()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    ["spring", "mjx", *(pytest.param(name, marks=pytest.mark.table) for name in ("positional", "generalized"))],
)
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


@pytest.mark.slow
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
