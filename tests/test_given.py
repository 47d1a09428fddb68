"""Goals and starts by hand: what begins, what commands show of it, and one sentence for what cannot be."""

import jax
import numpy as np
import pytest

from goalax.commands import evaluate, render
from goalax.envs import create_env
from goalax.host import given
from tests.helpers.films import data_of

KEY = jax.random.PRNGKey(3)


@pytest.fixture(scope="module")
def maze():
    return create_env("simple_u_maze")


def states(env, num=20, **by_hand):
    """Fresh episodes: states [num, S] and goals [num, G]."""
    begin = jax.jit(jax.vmap(lambda key: given.begin(env, key, **by_hand)), compiler_options=env.compiler_options)
    observed = np.asarray(begin(jax.random.split(KEY, num)).obs)
    return observed[:, : env.state_dim], observed[:, env.state_dim :]


def test_nothing_by_hand_is_the_reset(maze):
    state, goal = states(maze)
    fresh = np.asarray(jax.vmap(maze.reset)(jax.random.split(KEY, 20)).obs)
    np.testing.assert_allclose(np.hstack([state, goal]), fresh, rtol=1e-6)
    assert len(np.unique(goal, axis=0)) > 2


def test_a_goal_by_hand_leaves_the_start_as_it_is_drawn(maze):
    state, goal = states(maze, goal=np.float32([8, 12]))
    assert (goal == [8, 12]).all() and np.ptp(state[:, 0]) > 0.05 and np.abs(state[:, :2] - 4).max() <= 0.1


def test_a_start_by_hand_is_where_the_body_stands(maze):
    state, goal = states(maze, start=np.float32([12, 8]))
    assert np.abs(state[:, :2] - [12, 8]).max() <= 0.1 and len(np.unique(goal, axis=0)) > 2


def test_starts_that_depend_on_goals_depend_on_the_given_one():
    state, _ = states(create_env("ant_random_start"), 6, goal=np.float32([50, 0]))
    away = np.linalg.norm(state[:, :2] - [50, 0], axis=1)
    np.testing.assert_allclose(away, 10, atol=0.2)


def test_all_joint_positions_at_rest():
    env = create_env("reacher")
    state, goal = states(env, 3, start=given.check_start(env, "start", [np.pi / 2, 0]))
    np.testing.assert_allclose(state[:, :4], [[0, 1, 1, 0]] * 3, atol=1e-5)  # cosines and sines of both angles
    np.testing.assert_allclose(state[:, 7:], 0, atol=1e-5)
    assert len(np.unique(goal, axis=0)) == 3


def test_a_cell_is_the_goal_in_its_middle_at_the_height_of_goals(maze):
    assert given.check_cell(maze, "cell", [1, 3]).tolist() == [4, 12]
    humanoid = create_env("humanoid_u_maze")
    assert given.check_cell(humanoid, "cell", [3, 2])[:2].tolist() == [6, 4]
    own = np.asarray(humanoid.sample_goal(KEY))
    assert (
        given.check_cell(humanoid, "cell", [3, 2]).shape == (3,) and own[2] == given.check_cell(humanoid, "", [1, 2])[2]
    )


def shown(run, capsys, *argv):
    assert evaluate.main([str(run), "--episodes", "4", *argv]) == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    return {row[0]: float(row[1]) for row in cells if row}


@pytest.mark.slow
def test_evaluate_commands_the_goal(toy_runs, capsys):
    far = shown(toy_runs / "l2_s0", capsys, "--goal", "9,9")
    assert far["eval/final_dist"] > 9 and far["eval/episode_success_any"] == 0
    assert shown(toy_runs / "l2_s0", capsys)["eval/final_dist"] < 4


def test_render_shows_the_goal_and_the_start(maze, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def still(name, backend):
        env = create_env(name, backend)
        env.pipeline_step = lambda pipeline_state, action: pipeline_state
        return env

    monkeypatch.setattr(render, "create_env", still)
    argv = ["--env_name", "simple_u_maze", "--episode_length", "5", "--vis_length", "10"]
    pages = {}
    for name, more in {
        "one": ["--goal", "12,4", "--start", "12,12"],
        "same": ["--goal_cell", "3,1", "--start", "12,12"],
        "other": ["--goal", "12,8", "--start", "12,12"],
        "free": [],
    }.items():
        assert render.main([*argv, *more, "--out", f"{name}.html"]) == 0
        pages[name] = data_of((tmp_path / f"{name}.html").read_text())["poses"]
    assert pages["one"] == pages["same"] and len(set(pages.values())) == 3


def test_a_trained_policy_is_shown_the_goal(toy_runs):
    """Where as many environments are evaluated as have collected, which were reset before the goal was given."""
    config = render.RenderConfig(run=str(toy_runs / "l2_s0"), goal="9,9")
    _, recording, caption = render.trained_policy(config)
    np.testing.assert_array_equal(recording.goal, np.full(recording.goal.shape, 9))
    assert caption.endswith("120 steps")


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("simple_u_maze", ["--goal", "8,4"], "--goal is 8,4; that is in a wall of the maze or outside of it, and the"),
        ("simple_u_maze", ["--goal", "400,4"], "--goal is 400,4; that is in a wall of the maze or outside of it, and"),
        ("simple_u_maze", ["--goal", "4,8,0"], "--goal is 4,8,0; a goal of this environment has 2 numbers, and this"),
        ("simple_u_maze", ["--goal", "four"], "--goal is 'four'; it must be numbers with commas between, as in 4,8."),
        ("simple_u_maze", ["--goal", "4,"], "--goal is '4,'; it must be numbers with commas between, as in 4,8."),
        ("simple_u_maze", ["--goal", "4,inf"], "--goal is 4,inf; its numbers must be finite."),
        ("simple_u_maze", ["--goal", "1e39,4"], "--goal is 1e+39,4; its numbers must be finite."),
        (
            "simple_u_maze",
            ["--start", "0,4"],
            "--start is 0,4; that is in a wall of the maze or outside of it, and the",
        ),
        (
            "simple_u_maze",
            ["--start", "4"],
            "--start is 4; a start of this environment has 2 numbers (where it stands)",
        ),
        (
            "ant_u_maze",
            ["--start", "4"],
            "--start is 4; a start of this environment has 2 numbers (where the body stan",
        ),
        ("simple_u_maze", ["--goal_cell", "2,2"], "--goal_cell is 2,2; that cell is a wall of the maze or outside of"),
        ("simple_u_maze", ["--goal_cell", "1.5,2"], "--goal_cell is 1.5,2; it must be a row and a column, two whole"),
        ("simple_u_maze", ["--goal_cell", "1"], "--goal_cell is 1; it must be a row and a column, two whole numbers"),
        ("reacher", ["--goal_cell", "1,1"], "--goal_cell is 1,1; it is for mazes, and this environment is none."),
        ("reacher", ["--goal", "0.1,0.1"], "--goal is 0.1,0.1; a goal of this environment has 3 numbers, and this"),
        ("reacher", ["--goal", "0,0,0", "--goal_cell", "1,1"], "--goal is '0,0,0' and --goal_cell '1,1'; only one"),
    ],
)
def test_one_sentence_for_what_cannot_be(name, argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert render.main(["--env_name", name, *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"render.py: {words}") and error.count("\n") == 1 and error.endswith(".\n")
    assert not list(tmp_path.iterdir())


def test_evaluate_says_it_too(toy_runs, capsys):
    assert evaluate.main([str(toy_runs / "l2_s0"), "--goal", "1,2,3"]) == 2
    assert capsys.readouterr().err == (
        "evaluate.py: --goal is 1,2,3; a goal of this environment has 2 numbers, and this one 3.\n"
    )
