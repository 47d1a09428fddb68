"""Tests of datasets: what a file means as a ring, a ring as a file, what is refused, and files by OGBench's names."""

import re
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.core import buffer
from goalax.core.types import Needs, Spec
from goalax.data import files, sources
from goalax.flags import FlagError
from goalax.host.make import make
from tests.helpers import offline, toy
from tests.helpers.offline import read
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
