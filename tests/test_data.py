"""Tests of datasets: what a file means as a ring, a ring as a file, what is refused, and what is collected."""

import re
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import dataset
from goalax.core import buffer
from goalax.core.goals import Cells, in_cells
from goalax.core.types import Needs, Spec
from goalax.data import collect, files, sources
from goalax.envs import create_env
from goalax.envs.maze import parse
from goalax.flags import FlagError
from goalax.host import loading
from goalax.host.make import make
from tests.helpers import offline, toy
from tests.helpers.rings import filled_ring

toy.register()

SPEC = Spec(3, 1, 1, (0,), 0.9, 0.5)
LENGTHS = (4, 2, 7)  # rows of the episodes of a small file


def columns(lengths=LENGTHS, **changes):
    """A small file whose states count its rows."""
    num = sum(lengths)
    values = {
        "observations": np.arange(3 * num, dtype=np.float32).reshape(num, 3),
        "actions": np.linspace(-1, 1, num, dtype=np.float32)[:, None],
        "terminals": np.isin(np.arange(num), np.cumsum(lengths) - 1),
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def read(path, *args):
    return sources.read(str(path), *args)


@pytest.fixture
def saved(tmp_path):
    """(lengths, changes) -> path of a file."""

    def save(lengths=LENGTHS, **changes):
        np.savez_compressed(tmp_path / "x.npz", **columns(lengths, **changes))
        return tmp_path / "x.npz"

    return save


def test_a_file_is_a_ring_of_one_column(saved):
    data = read(saved(), SPEC)
    rows = data.ring.rows
    assert (data.episodes, data.transitions, data.left_out, int(data.ring.count)) == (3, 10, 0, 13)
    assert rows.state.shape == (13, 1, 3) and {leaf.dtype.name for leaf in rows} == {"float32", "int32"}
    assert rows.episode_start[:, 0].tolist() == [0] * 4 + [4] * 2 + [6] * 7
    assert rows.goal[:, 0, 0].tolist() == [9.0] * 4 + [15.0] * 2 + [36.0] * 7  # what last states achieve
    assert np.flatnonzero(rows.reward).tolist() == [2, 4, 11]  # the actions that lead into them
    assert not rows.terminal.any() and len(data.sha256) == 64


def test_optional_keys_are_taken_as_they_are(saved):
    rewards, masks = np.arange(13.0), np.r_[np.ones(3), 0, np.ones(9)]
    rows = read(saved(rewards=rewards, masks=masks, goals=np.full((13, 1), 7.0)), SPEC).ring.rows
    assert rows.reward[:, 0].tolist() == rewards.tolist() and rows.goal[:, 0, 0].tolist() == [7.0] * 13
    assert np.flatnonzero(rows.terminal).tolist() == [3]
    rows = read(saved(goals=np.full((13, 1), 6.1)), SPEC).ring.rows
    assert np.flatnonzero(rows.reward).tolist() == [1]  # the state of row 2 is at 6


def test_rows_after_the_last_mark_are_an_episode_cut_short(saved):
    terminals = np.arange(13) == 3
    data = read(saved(terminals=terminals.astype(np.float64)), SPEC)
    assert data.ring.rows.episode_start[:, 0].tolist() == [0] * 4 + [4] * 9


@pytest.mark.parametrize("min_rows, kept", [(2, [4, 2, 7]), (3, [4, 7]), (5, [7])])
def test_episodes_too_short_to_draw_from_are_left_out(saved, min_rows, kept):
    data = read(saved(), SPEC, min_rows)
    starts, lengths = np.unique(data.ring.rows.episode_start, return_counts=True)
    assert lengths.tolist() == kept and starts.tolist() == np.cumsum([0, *kept[:-1]]).tolist()
    assert data.left_out == 13 - sum(kept)
    path = saved()
    with pytest.raises(FlagError, match="no episode of 8 rows or more; its longest has 7"):
        read(path, SPEC, 8)


@pytest.mark.parametrize("horizon", [1, 3])
def test_samples_stay_in_their_episodes(saved, horizon):
    data = read(saved([2, 5, 4, 9]), SPEC, horizon + 1)
    ring = jax.tree.map(jnp.asarray, data.ring)
    longest = len(ring.rows.reward) - 1
    choice = buffer.choose(ring, jax.random.PRNGKey(0), 500, Needs(horizon=horizon), 0.9, longest)
    starts = np.asarray(ring.rows.episode_start[:, 0])
    for slot in (choice.next_slot, choice.future_slot, choice.slot + horizon):
        assert (starts[slot] == starts[choice.slot]).all()
    assert (choice.future_slot > choice.slot).all()
    assert len(np.unique(choice.slot)) == len(starts) - horizon * data.episodes  # each that can be drawn


def test_a_ring_written_and_read_has_the_same_transitions(tmp_path):
    ring = jax.device_get(filled_ring(0))
    ring = ring._replace(rows=ring.rows._replace(action=np.tanh(ring.rows.action), terminal=ring.rows.terminal > 0))
    files.write(tmp_path / "ring.npz", files.columns_of(ring))
    rows = read(tmp_path / "ring.npz", SPEC).ring.rows
    # 12 rows of 2 environments from number 8 on, in episodes of 5 from number 0 on: of 2, 5 and 5 rows.
    assert np.unique(rows.episode_start).tolist() == [0, 2, 7, 12, 14, 19]
    for column in range(2):
        for row in range(8, 20):
            here, there = (row % 12, column), (row - 8 + 12 * column, 0)
            np.testing.assert_array_equal(rows.state[there], ring.rows.state[here])
            np.testing.assert_array_equal(rows.goal[there], ring.rows.goal[here])
            np.testing.assert_array_equal(rows.action[there], ring.rows.action[here])
            if row % 5 < 4:
                assert rows.reward[there] == ring.rows.reward[here]
                assert rows.terminal[there] == ring.rows.terminal[here]


def test_episodes_of_one_row_are_not_written():
    ring = jax.device_get(filled_ring(0))
    starts = np.array(ring.rows.episode_start)
    starts[19 % 12] = 19
    written = files.columns_of(ring._replace(rows=ring.rows._replace(episode_start=starts)))
    assert len(written["terminals"]) == 22 and written["terminals"].sum() == 6


def with_bad(value):
    observations = columns()["observations"].copy()
    observations[5, 1] = value
    return observations


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"terminals": None}, "x.npz has no terminals; a dataset has the keys"),
        ({"actions": None}, "has no actions"),
        ({"terminals": np.zeros(13)}, "terminals that mark no row"),
        ({"terminals": np.full(13, 0.5)}, "terminals other than 0 and 1"),
        ({"terminals": np.zeros(12)}, r"observations of shape \[13, 3\]; .* must be \[T, S\] = \[12, 3\]"),
        ({"terminals": np.zeros(())}, "observations of shape"),
        ({"observations": np.zeros((13, 4))}, r"observations of shape \[13, 4\].* = \[13, 3\]"),
        ({"observations": np.zeros((13, 8, 8, 3), np.uint8)}, r"observations of shape \[13, 8, 8, 3\]"),
        ({"actions": np.zeros(13)}, r"actions of shape \[13\]"),
        ({"goals": np.zeros((13, 2))}, r"goals of shape \[13, 2\]"),
        ({"rewards": np.zeros((13, 1))}, r"rewards of shape \[13, 1\]"),
        ({"masks": np.full(13, 2)}, "masks other than 0 and 1"),
        ({"observations": with_bad(np.nan)}, "observations that are not finite in 1 rows, the first in row 5"),
        ({"observations": with_bad(0).astype(np.float64) + 1e39}, "not finite in 13 rows"),
        ({"actions": np.full((13, 1), 2.0)}, r"outside \[-1, 1\] in 13 of 13 rows, the first in row 0"),
        ({"actions": np.full((13, 1), "a")}, "actions of type <U1; they must be numbers"),
        ({"actions": np.full((13, 1), None)}, "cannot be read: it is damaged"),
        ({"observations": np.zeros((0, 3)), "actions": np.zeros((0, 1)), "terminals": np.zeros(0)}, "mark no row"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(saved, changes, words):
    path = saved(**changes)
    with pytest.raises(FlagError, match=words) as error:
        read(path, SPEC)
    assert "\n" not in str(error.value)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path):
    with zipfile.ZipFile(path) as archive:
        where = archive.getinfo("observations.npy").header_offset
    content = bytearray(path.read_bytes())
    content[where + 120] ^= 0xFF
    path.write_bytes(content)


def array_file(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def with_actions(content):
    """What makes a file whose actions are these bytes."""

    def spoil(path):
        with zipfile.ZipFile(path) as archive:
            others = {name: archive.read(name) for name in archive.namelist() if name != "actions.npy"}
        with zipfile.ZipFile(path, "w") as archive:
            for name, stored in {**others, "actions.npy": content}.items():
                archive.writestr(name, stored)

    return spoil


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.write_text("observations,actions\n1,2\n"), "is no npz file"),
        (lambda path: path.write_bytes(b""), "is no npz file"),
        (array_file, "is no npz file"),
        (truncated, "is no npz file, or its end is missing"),
        (flipped, "cannot be read: it is damaged"),
        (with_actions(b"text"), r"cannot be read: it is damaged \(actions is no array\)"),
        (with_actions(b"\x93NUMPY\x01\x00\x1a\x00{'descr': '<f4', 'shape': (6,"), "cannot be read: it is damaged"),
    ],
)
def test_files_that_are_none_are_refused(saved, spoil, words):
    path = saved()
    spoil(path)
    with pytest.raises(FlagError, match=words) as error:
        read(path, SPEC)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(FlagError, match="cannot be written: No such file or directory"):
        files.write(tmp_path / "none" / "x.npz", columns())
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(FlagError, match="cannot be written: Is a directory"):
        files.write(tmp_path / "x.npz", columns())
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_ogbench_reads_what_is_written(tmp_path):
    loader = pytest.importorskip("ogbench.utils")
    files.write(tmp_path / "x.npz", files.columns_of(jax.device_get(filled_ring(0))))
    data = loader.load_dataset(str(tmp_path / "x.npz"))
    assert data["next_observations"].shape == (18, 3) and data["terminals"].sum() == 6
    compact = loader.load_dataset(str(tmp_path / "x.npz"), compact_dataset=True)
    assert compact["valids"].sum() == 18


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


# ---- By the names of OGBench -----------------------------------------------------------------------------------------


def home(tmp_path, monkeypatch):
    """The folder of OGBench's files of somebody who has their home here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".ogbench" / "data"
    folder.mkdir(parents=True)
    return folder


def test_a_file_of_ogbench_is_found_by_its_name(tmp_path, monkeypatch):
    folder = home(tmp_path, monkeypatch)
    name = "ogbench:toymaze-navigate-v0"
    assert sources.validation(name) is None
    for end in ("", "-val"):
        files.write(str(folder / f"toymaze-navigate-v0{end}.npz"), offline.walks())
    run = make("toy", dataset=name, offline_steps=4, num_timesteps=0)
    assert run.dataset.path == str(folder / "toymaze-navigate-v0.npz")
    assert (
        sources.validation(name) == str(folder / "toymaze-navigate-v0-val.npz") and run.held_out["dataset"] is not None
    )


def test_what_ogbench_does_not_have_is_one_sentence(tmp_path, monkeypatch):
    folder = home(tmp_path, monkeypatch)
    about = f"--dataset: ogbench:x-v0 is not in {folder}, and the package ogbench"
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(FlagError, match=f"^{re.escape(about)}, which could fetch it, is not installed.$"):
        sources.fetch("ogbench:x-v0")

    def nowhere(names, folder):
        print("downloading")
        raise OSError("Network is unreachable")

    monkeypatch.setitem(sys.modules, "ogbench", types.SimpleNamespace(download_datasets=nowhere))
    with pytest.raises(FlagError, match=f"^{re.escape(about)} could not fetch it: Network is unreachable.$"):
        sources.fetch("ogbench:x-v0")


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
