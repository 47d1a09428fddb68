"""Mazes: from picture to walls, starts and goals; walls that hold; and the point mass that moves between them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax import contact, kinematics
from brax.envs.base import State
from scipy import stats

from goalax.commands import train as training
from goalax.envs import ENVS, create_env
from goalax.envs.maze import LAYOUTS, MAZES, InMaze, parse
from goalax.envs.stitching import MARK, Stitching
from goalax.flags import FlagError
from goalax.host.config import Flags
from goalax.host.resolve import resolve
from tests.helpers.envs import NUM_ENVS, STEPS, draw, keys

# One maze of each class of bodies in mazes, and one of each picture that is special.
SOME = ["ant_u5_maze", "ant_ball_big_maze", "humanoid_u4_maze_eval", "simple_hardest_maze", "simple_u_maze_single_eval"]
SOME += ["ant_u2_maze_gen_1f2f3f", "humanoid_u_maze_gen_1f", "simple_u_maze_gen_1f2f3f"]
COUNTS = {  # layout -> rows, columns, walls, starts, goals, balls
    "u_maze": (5, 5, 18, 1, 6, 0),
    "u_maze_eval": (5, 5, 18, 1, 3, 0),
    "big_maze": (8, 8, 38, 1, 25, 0),
    "big_maze_eval": (8, 8, 38, 1, 10, 0),
    "u_maze_single_eval": (5, 5, 18, 1, 1, 0),
    "big_maze_scaling_eval": (8, 8, 38, 1, 9, 0),
    "hardest_maze": (9, 12, 62, 1, 45, 0),
    **{f"u2_maze{end}": (5, 6, 21, 1, goals, 0) for end, goals in (("", 8), ("_eval", 4), ("_single_eval", 1))},
    **{f"u3_maze{end}": (5, 7, 24, 1, goals, 0) for end, goals in (("", 10), ("_eval", 5), ("_single_eval", 1))},
    **{f"u4_maze{end}": (7, 5, 24, 1, goals, 0) for end, goals in (("", 10), ("_eval", 4), ("_single_eval", 1))},
    **{f"u5_maze{end}": (7, 8, 39, 1, goals, 0) for end, goals in (("", 16), ("_eval", 8), ("_single_eval", 1))},
    **{f"u6_maze{end}": (7, 7, 34, 1, goals, 0) for end, goals in (("", 14), ("_eval", 7), ("_single_eval", 1))},
    **{f"u7_maze{end}": (7, 6, 29, 1, goals, 0) for end, goals in (("", 12), ("_eval", 6), ("_single_eval", 1))},
    "ball_u_maze": (5, 5, 18, 1, 5, 1),
    "ball_big_maze": (8, 8, 38, 1, 20, 2),
}
some_mazes = pytest.mark.parametrize("name", SOME)
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


WRONG = {
    "": "has no start: none of its rows 1 to 1, '', has a cell R.",
    "####\n#RG#\n###": "is ragged: its row 3, '###', has length 3, and its row 1, '####', has length 4.",
    "####\n\n#RG#\n####": "is ragged: its row 2, '', has length 0, and its row 1, '####', has length 4.",
    "####\n#RG.\n####": "is open: there are cells at its border that are no walls.",
    "#####\n#R#G#\n#####": "has no way from its row 2, column 2 to row 2, column 4: walls part them.",
    "####\n#RX#\n####": "has 'X' in its row 2, '#RX#'; cells are # R G B and . only.",
    "####\nR  G\n####": "has ' ' in its row 2, 'R  G'; cells are # R G B and . only.",
    "####\n#r.#\n####": "has 'r' in its row 2, '#r.#'; cells are # R G B and . only.",
    "####\n#R.#\n####": "has no goal: none of its rows 1 to 3, '#### #R.# ####', has a cell G.",
    "####\n#.G#\n####": "has no start: none of its rows 1 to 3, '#### #.G# ####', has a cell R.",
}
every_wrong_picture = pytest.mark.parametrize("picture", WRONG)


@every_wrong_picture
def test_wrong_pictures_say_what_is_wrong(picture):
    for name, maze in (("my_maze", "The maze my_maze "), ("", "The maze ")):
        with pytest.raises(ValueError) as error:
            parse(picture, 4.0, name)
        assert str(error.value) == maze + WRONG[picture]


@every_wrong_picture
def test_wrong_pictures_are_no_fault_of_the_backend(picture, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(LAYOUTS, "u_maze", picture)
    monkeypatch.chdir(tmp_path)
    sentence = f"The maze u_maze {WRONG[picture]}"
    for flags, flag in (({"env_name": "ant_u_maze"}, "env_name"), ({"eval_env": "ant_u_maze"}, "eval_env")):
        with pytest.raises(FlagError) as error:
            resolve(Flags(**{"env_name": "ant", "backend": "spring"} | flags))
        assert str(error.value) == f"--{flag} is 'ant_u_maze': {sentence}"
    assert training.main(["--env_name", "simple_u_maze"]) == 2
    assert capsys.readouterr().err.endswith(f": --env_name is 'simple_u_maze': {sentence}\n")
    assert not list(tmp_path.iterdir())


def test_what_is_the_fault_of_other_flags_is_blamed_on_them():
    for flags, words in (
        ({"env_name": "ant_push", "backend": "spring"}, "--backend is 'spring' with --env_name ant_push: Unsupported"),
        ({"env_name": "simple_u_maze", "dense_reward": True}, "--dense_reward is True with --env_name simple_u_maze: "),
    ):
        with pytest.raises(FlagError, match=f"^{words}"):
            resolve(Flags(**flags))


def test_a_layout_that_is_not_there_lists_the_choices():
    with pytest.raises(ValueError, match="^Unknown maze layout: foo_maze. Choose from: .*hardest_maze"):
        ENVS["ant_u_maze"].func(layout="foo_maze")


def test_every_layout_of_this_release_is_counted():
    assert set(COUNTS) <= set(LAYOUTS)


@pytest.mark.parametrize("layout", COUNTS)
def test_layouts_have_the_cells_of_the_specification(layout):
    grid = grid_of(layout)
    assert (*grid.shape, *((grid == cell).sum() for cell in "#RGB")) == COUNTS[layout]


@pytest.mark.parametrize(
    ("layout", "longest", "far"),
    [("u2", 8, 5), ("u3", 10, 6), ("u4", 10, 7), ("u5", 16, 9), ("u6", 14, 8), ("u7", 12, 7)],
)
def test_corridors_have_the_lengths_of_the_specification(layout, longest, far):
    """Goals lie on every cell of a corridor, those of `_eval` on its farther ones, a single one on the last."""
    ends = {"": range(1, longest + 1), "_eval": range(far, longest + 1), "_single_eval": [longest]}
    for end, distances in ends.items():
        grid = grid_of(f"{layout}_maze{end}")
        steps = {tuple(np.argwhere(grid == "R")[0]): 0}
        for (row, column), step in (queue := list(steps.items())):
            for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if grid[cell] != "#" and cell not in steps:
                    steps[cell] = step + 1
                    queue.append((cell, step + 1))
        assert sorted(steps[tuple(cell)] for cell in np.argwhere(grid == "G")) == list(distances)


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


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.endswith("_eval")])
def test_eval_layouts_are_their_maze_with_fewer_goals(layout):
    grid, other = grid_of(layout.split("_maze")[0] + "_maze"), grid_of(layout)
    for cell in "#R":
        np.testing.assert_array_equal(grid == cell, other == cell)
    assert (grid[other == "G"] == "G").all() and 0 < (other == "G").sum() < (grid == "G").sum()


def test_the_two_big_mazes_for_evaluation_differ_by_one_goal():
    """As JaxGCRL and scaling-crl's ant have them; the other rows are equal."""
    one, other = grid_of("big_maze_eval"), grid_of("big_maze_scaling_eval")
    assert "".join(one[2]) == "#..#.GG#" and "".join(other[2]) == "#..#..G#"
    assert (one != other).sum() == 1 and "".join(one[5]) == "#.#G.#G#"


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
