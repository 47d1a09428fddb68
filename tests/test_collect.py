"""What is collected: walks of a script in mazes, and the command that writes these and what runs hold into files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import dataset
from goalax.core.goals import Cells, in_cells
from goalax.core.types import Spec
from goalax.data import collect, files
from goalax.envs import create_env
from goalax.envs.maze import parse
from goalax.host import loading
from tests.helpers.offline import read

MAZE = """
    #####
    #RG.#
    #.#G#
    #...#
    #####"""


def cells_of(picture):
    maze = parse(picture, 4.0)
    return Cells(maze.free, maze.cell_size)


def test_ways_are_shortest_paths():
    ways = collect.ways_of(cells_of(MAZE))  # a ring of 8 cells around a wall: 0 1 2 / 3 4 / 5 6 7
    assert ways.steps[0].tolist() == [0, 1, 2, 1, 3, 2, 3, 4]
    assert ways.corners.tolist() == [0, 2, 5, 7]
    for here in range(8):
        for goal in range(8):
            there = int(ways.next_cell[here, goal])
            assert int(ways.steps[there, goal]) == max(int(ways.steps[here, goal]) - 1, 0)
            assert int(ways.steps[here, there]) == (here != goal)
    with pytest.raises(ValueError, match="no way"):
        collect.ways_of(cells_of("#####\n#R#G#\n#####"))


def test_goals_of_the_styles():
    ways = collect.ways_of(cells_of(MAZE))
    keys = jax.random.split(jax.random.PRNGKey(0), 300)
    starts, far = jax.vmap(lambda key: collect.anywhere(ways, key))(keys)
    assert np.unique(starts).tolist() == list(range(8)) and np.unique(far).tolist() == [0, 2, 5, 7]
    starts, near = jax.vmap(lambda key: collect.nearby(ways, key))(keys)
    assert (np.asarray(ways.steps)[starts, near] == 4).all()  # each cell of the ring has one
    corridor = collect.ways_of(cells_of("######\n#RG.G#\n######"))
    starts, near = jax.vmap(lambda key: collect.nearby(corridor, key))(keys)
    assert {*zip(starts.tolist(), near.tolist(), strict=True)} == {(0, 3), (1, 3), (2, 0), (3, 0)}


@pytest.fixture(scope="module")
def maze():
    return create_env("simple_u_maze")


@pytest.fixture(scope="module", params=["navigate", "stitch", "explore"])
def walks(request, maze):
    """A style, its rows per episode, and what it collects in 3 episodes of 2 environments."""
    law = collect.STYLES[request.param]
    parts = list(collect.collect(maze, request.param, 0, 3 * (law.rows - 1), 2))
    assert [len(part["terminals"]) for part in parts] == [2 * law.rows, law.rows]
    return request.param, law.rows, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def test_walks_are_episodes_of_the_maze(walks, maze, tmp_path):
    style, rows, written = walks
    spec = Spec.of(maze, 0.99)
    files.write(tmp_path / "x.npz", written)
    data = read(tmp_path / "x.npz", spec)
    assert (data.episodes, data.transitions) == (3, 3 * (rows - 1))
    assert np.abs(written["actions"]).max() <= 1 and written["actions"].std() > 0.3
    np.testing.assert_array_equal(written["observations"], np.hstack([written["qpos"], written["qvel"]]))
    inside = np.asarray(in_cells(maze.cells, jnp.asarray(written["qpos"]))).any(axis=1)
    assert inside.mean() > 0.99  # a mass may be pressed a little into a wall
    steps = np.linalg.norm(np.diff(written["qpos"], axis=0), axis=1)[~written["terminals"][:-1]]
    assert steps.max() < 0.5  # metres in 0.05 s
    ends = written["terminals"]
    reached = np.linalg.norm(written["qpos"][1:] - written["goals"][:-1], axis=1) < maze.goal_reach_thresh
    np.testing.assert_array_equal(written["rewards"][:-1][~ends[:-1]], reached[~ends[:-1]])
    changes = (np.diff(written["goals"], axis=0) != 0).any(axis=1) & ~ends[:-1]
    assert changes.any() == (style == "navigate")
    if style == "navigate":  # a new goal comes where one was reached
        assert written["rewards"][np.flatnonzero(changes)].all()
    if style == "stitch":  # the walker arrives
        assert written["rewards"].reshape(3, rows).max(axis=1).sum() >= 2


@pytest.mark.slow
def test_the_command_writes_what_a_run_holds(toy_runs, tmp_path, capsys):
    assert dataset.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / "x.npz")]) == 0
    run, state = loading.load(toy_runs / "l2_s0")
    data = read(tmp_path / "x.npz", run.spec)
    assert f"{data.transitions} transitions" in capsys.readouterr().out
    held = jax.device_get(state.buffer.rows)
    stored = {tuple(row) for row in np.hstack([held.state.reshape(-1, 2), held.goal.reshape(-1, 2)]).tolist()}
    rows = data.ring.rows
    assert {tuple(row) for row in np.hstack([rows.state[:, 0], rows.goal[:, 0]]).tolist()} <= stored
    assert 0.8 * 120 < len(rows.reward) <= 120  # 30 rows of 4 environments, without single ones


@pytest.mark.parametrize("which", ["newest", "oldest"])
def test_some_rows_of_a_run_alone(which, toy_runs, tmp_path, capsys):
    """Six of each of four environments, without single ones; they are the last or first ones of each in the ring."""
    run, flag = str(toy_runs / "l2_s0"), f"--{which}"
    assert dataset.main([run, "--out", str(tmp_path / "x.npz"), flag, "22"]) == 0
    _, state = loading.load(toy_runs / "l2_s0")
    ring = jax.device_get(state.buffer)
    count, capacity = int(ring.count), ring.rows.reward.shape[0]
    first = count - 6 if which == "newest" else max(count - capacity, 0)
    wanted = ring.rows.state[np.arange(first, first + 6) % capacity].reshape(-1, 2)
    found = np.load(tmp_path / "x.npz")["observations"]
    assert 16 <= len(found) <= 24 and {*map(tuple, found)} <= {*map(tuple, wanted)}
    assert dataset.main([run, "--out", str(tmp_path / "z.npz"), flag, "4"]) == 2
    assert f"{flag} is 4; of 4 environments these rows hold no transition" in capsys.readouterr().err
    assert not (tmp_path / "z.npz").exists()
    assert dataset.main(["--env_name", "simple_u_maze", flag, "5", "--out", str(tmp_path / "y.npz")]) == 2
    assert f"{flag} are rows of a run" in capsys.readouterr().err


def test_the_newest_and_the_oldest_rows_are_not_asked_for_at_once(tmp_path, capsys):
    assert dataset.main(["run", "--newest", "5", "--oldest", "5", "--out", str(tmp_path / "y.npz")]) == 2
    assert "--newest and --oldest are different rows of a run; give one of them." in capsys.readouterr().err


def test_the_command_collects_two_sets(maze, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dataset, "create_env", lambda name: maze)
    monkeypatch.setattr(dataset, "NUM_ENVS", 2)
    flags = ["--env_name", "simple_u_maze", "--style", "stitch", "--steps", "250"]
    assert dataset.main([*flags, "--out", str(tmp_path / "x.npz")]) == 0
    assert "x.npz: 303 rows, 3 episodes, 300 transitions" in capsys.readouterr().out
    sets = [read(tmp_path / name, Spec.of(maze, 0.99)) for name in ("x.npz", "x-val.npz")]
    assert [data.episodes for data in sets] == [3, 1]
    assert not np.isin(sets[1].ring.rows.state[0, 0, 0], sets[0].ring.rows.state)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--env_name", "simple_u_maze", "--out", "x"], "--out is 'x'; it must be the npz file to write"),
        (["--env_name", "simple_u_maze"], "--out is ''"),
        (["--out", "x.npz"], "It takes one run directory or --env_name"),
        (["a", "--env_name", "simple_u_maze", "--out", "x.npz"], "It takes one run directory or --env_name"),
        (["--env_name", "simple_u_maze", "--step", "3", "--out", "x.npz"], "--step is a checkpoint of a run"),
        (["--env_name", "simple_u_maze", "--style", "wander", "--out", "x.npz"], "--style is 'wander'; choose from"),
        (["--env_name", "reacher", "--out", "x.npz"], "a script walks with point masses only, such as simple_u_maze"),
        (
            ["--env_name", "simple_u_maze", "--out", "none/x.npz"],
            "--out is 'none/x.npz'; it must name a file",
        ),
        (["none", "--out", "x.npz"], "There is no run in none"),
    ],
)
def test_the_command_says_what_is_wrong(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dataset.main(flags) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--steps", "100"], "--steps is how far it walks; leave it out with a run directory."),
        (["run", "--style", "stitch"], "--style is how a script walks; leave it out with a run directory."),
        (["run", "--seed", "3"], "--seed draws a script's walks; leave it out with a run directory."),
        (
            ["--env_name", "simple_u_maze", "--step", "3"],
            "--step is a checkpoint of a run; leave it out with --env_name.",
        ),
    ],
)
def test_flags_of_the_other_kind_of_dataset_are_refused(argv, words, capsys):
    assert dataset.main([*argv, "--out", "x.npz"]) == 2
    assert capsys.readouterr().err == f"dataset.py: {words}\n"
