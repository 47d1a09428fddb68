"""Tests of scripted data in point mazes of OGBench: starts, goals and actions, with a stand-in and with the package."""

from types import SimpleNamespace

import numpy as np
import pytest

from goalax.commands import dataset
from goalax.core.types import Spec
from goalax.data import collect, sources
from goalax.flags import FlagError
from goalax.host import ogbench_walks
from tests.helpers.standin import StandInMaze

NAME = "ogbench:pointmaze-medium-v0"
WAY = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]  # the free cells of the stand-in, from end to end
CORNERS = {(1, 1), (1, 3), (3, 3), (3, 1)}


@pytest.fixture
def maze():
    return StandInMaze()


@pytest.fixture
def env(maze):
    return SimpleNamespace(made=[maze], name=NAME, goal_indices=(0, 1))


def collected(env, style, seed=0, steps=1000):
    return list(ogbench_walks.collect(env, style, seed, steps))


def test_the_way_leads_from_cell_to_cell_and_in_the_last_one_to_its_centre(maze):
    paths, goal = ogbench_walks.paths_of(maze), maze.ij_to_xy((3, 1)) + 0.5
    for cell, following in zip(WAY, [*WAY[1:], WAY[-1]], strict=True):
        place = maze.ij_to_xy(cell) - 0.3
        wanted = maze.ij_to_xy(following) - place
        direction = ogbench_walks.towards(maze, paths, place, goal)
        np.testing.assert_allclose(direction, wanted / np.linalg.norm(wanted))


def test_navigate_goes_on_to_a_new_goal_at_a_corner(env, maze):
    (one,) = collected(env, "navigate")
    assert {name: leaf.shape for name, leaf in one.items()} == {
        **dict.fromkeys(("observations", "actions", "qpos", "qvel"), (1001, 2)),
        "terminals": (1001,),
    }
    assert one["terminals"].tolist() == [False] * 1000 + [True]
    assert len(maze.goals) > 10 and set(maze.goals) == CORNERS
    moved = np.diff(one["observations"], axis=0)
    free = np.abs(moved).max(axis=1) > 0
    assert free.mean() > 0.8
    np.testing.assert_allclose(moved[free], 0.4 * one["actions"][:-1][free], atol=1e-5)
    assert {maze.xy_to_ij(place) for place in one["observations"]} == set(WAY)
    np.testing.assert_array_equal(one["qpos"], one["observations"])


def test_stitch_keeps_a_goal_four_cells_away(env, maze):
    parts = collected(env, "stitch", steps=12_000)
    assert len(parts) == len(maze.asked) == 60 and all(len(part["terminals"]) == 201 for part in parts)
    apart = [abs(WAY.index(start) - WAY.index(goal)) for start, goal in maze.asked]
    assert set(apart) == {4, 3}  # 3 from the middle, from where nothing is farther
    assert {WAY.index(start) for (start, _), steps in zip(maze.asked, apart, strict=True) if steps == 3} == {3}
    ends = [maze.xy_to_ij(part["observations"][-1]) for part in parts]
    assert np.mean([end == goal for end, (_, goal) in zip(ends, maze.asked, strict=True)]) > 0.8
    assert len(maze.goals) == 1


def test_explore_keeps_a_direction_for_a_while_whatever_the_goal(env, monkeypatch):
    monkeypatch.setitem(collect.STYLES, "explore", collect.STYLES["explore"]._replace(noise=0.0))
    (one,) = collected(env, "explore", steps=500)
    action = one["actions"][:500].reshape(50, collect.HOLD, 2)
    np.testing.assert_array_equal(action, np.broadcast_to(action[:, :1], action.shape))
    np.testing.assert_allclose(np.linalg.norm(action[:, 0], axis=1), 1, rtol=1e-6)
    angles = np.arctan2(action[:, 0, 1], action[:, 0, 0])
    assert len(np.unique(angles)) == 50 and (np.histogram(angles, 4, (-np.pi, np.pi))[0] > 3).all()


def test_equal_seeds_give_equal_files(env):
    one, again, other = (collected(env, "stitch", seed)[0]["observations"] for seed in (5, 5, 6))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_giant_mazes_have_longer_episodes(env):
    env.name = "ogbench:pointmaze-giant-v0"
    assert len(collected(env, "navigate")[0]["terminals"]) == 2001
    assert len(collected(env, "stitch")[0]["terminals"]) == 201


def test_the_command_writes_both_files(env, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ogbench_walks, "OGBenchEnv", lambda name: env)
    argv = ["--env_name", NAME, "--style", "stitch", "--steps", "1000", "--out", str(tmp_path / "x.npz")]
    assert dataset.main(argv) == 0
    assert "x.npz: 1,005 rows, 5 episodes, 1,000 transitions" in capsys.readouterr().out
    spec = Spec(2, 2, 2, (0, 1), 0.99, 0.0)
    sets = [sources.read(str(tmp_path / name), spec) for name in ("x.npz", "x-val.npz")]
    assert [data.episodes for data in sets] == [5, 1]
    assert not np.isin(sets[1].ring.rows.state[0, 0, 0], sets[0].ring.rows.state)


def test_one_sentence_where_no_script_can_walk(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise ValueError("it is not there.")

    monkeypatch.setattr(ogbench_walks, "OGBenchEnv", missing)
    for name, words in (
        ("ogbench:antmaze-large-v0", "a script walks with point masses only"),
        (NAME, "it is not there."),
    ):
        assert dataset.main(["--env_name", name, "--out", str(tmp_path / "x.npz")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_package_itself():
    pytest.importorskip("ogbench")
    env = ogbench_walks.environment(NAME)
    (one,), (again,) = (collected(env, "navigate", seed=3) for _ in range(2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    maze = env.made[0].unwrapped
    assert all(maze.maze_map[maze.xy_to_ij(place)] == 0 for place in one["observations"])
    assert np.linalg.norm(np.diff(one["observations"], axis=0), axis=1).mean() > 0.1
    for name, words in (
        ("cube-single-v0", "point masses only"),
        ("pointmaze-medium-singletask-v0", "leave -singletask out"),  # where all episodes start at one place
        ("pointmaze-teleport-v0", "no way between some cells"),
    ):
        with pytest.raises(FlagError, match=words):
            ogbench_walks.environment(f"ogbench:{name}")
    with pytest.raises(FlagError, match="have no rewards"):
        dataset.check(dataset.DatasetConfig(env_name=NAME, out="minari:a/walks-v0"))
