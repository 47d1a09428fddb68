"""Tests of ExORL's folders, and of the names that datasets have."""

from pathlib import Path

import jax
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.core.types import Spec
from goalax.data import sources
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.offline import walks
from tests.helpers.runs import RUN, rows

toy.register()
SPEC = Spec(state_size=3, goal_size=0, action_size=2, goal_indices=(), discounting=0.9, goal_reach_thresh=0.0)


def episode(num, seed=0, **changes):
    """A file of ExORL with `num` steps; its first row is of no step."""
    rng = np.random.default_rng(seed)
    values = {
        "observation": rng.normal(size=(num + 1, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (num + 1, 2)).astype(np.float32),
        "reward": rng.uniform(size=(num + 1, 1)).astype(np.float32),
        "discount": np.ones((num + 1, 1), np.float32),
        "physics": rng.normal(size=(num + 1, 5)),
    }
    for key in ("action", "reward", "discount"):
        values[key][0] = np.nan  # read by nobody
    return {key: value for key, value in (values | changes).items() if value is not None}


@pytest.fixture
def folder(tmp_path):
    """(episodes by the names of their files) -> path of a folder."""

    def save(**episodes):
        (tmp_path / "rnd").mkdir(exist_ok=True)
        for name, values in episodes.items():
            np.savez_compressed(tmp_path / "rnd" / f"{name}.npz", **values)
        return tmp_path / "rnd"

    return save


def test_an_action_of_exorl_lies_in_the_row_that_it_was_taken_in(folder):
    one, two = episode(4, 1), episode(6, 2)
    two["discount"][6] = 0  # its last step ends it for good
    data = sources.read(str(folder(e2=two, e1=one)), SPEC)
    assert (data.episodes, data.transitions, data.left_out) == (2, 10, 0)
    ring = data.ring.rows
    assert ring.episode_start[:, 0].tolist() == [0] * 5 + [5] * 7  # in the order of names
    for start, file in ((0, one), (5, two)):
        for t in range(1, len(file["reward"])):  # (o[t-1], a[t], r[t], o[t], d[t])
            row = start + t - 1
            np.testing.assert_array_equal(ring.state[row, 0], file["observation"][t - 1])
            np.testing.assert_array_equal(ring.state[row + 1, 0], file["observation"][t])
            np.testing.assert_array_equal(ring.action[row, 0], file["action"][t])
            assert ring.reward[row, 0] == file["reward"][t, 0] and ring.terminal[row, 0] == 1 - file["discount"][t, 0]
    assert ring.terminal.sum() == 1 and ring.terminal[10, 0] == 1 and not ring.action[[4, 11]].any()


def test_shapes_and_types_of_exorl(folder):
    flat = episode(4, 1)
    expected = sources.read(str(folder(e1=flat)), SPEC)
    again = {key: flat[key][:, 0].astype(np.float64) for key in ("reward", "discount")}
    data = sources.read(str(folder(e1=flat | again)), SPEC)
    assert jax.tree.all(jax.tree.map(np.array_equal, data.ring, expected.ring)) and data.sha256 != expected.sha256
    assert {leaf.dtype.name for leaf in data.ring.rows} == {"float32", "int32"}
    alone = sources.read(str(folder(e1=flat, e2=episode(0))), SPEC)
    assert (alone.episodes, alone.left_out) == (1, 1)


def test_the_hash_of_a_folder_is_that_of_its_sorted_files(folder, tmp_path):
    path = folder(e1=episode(4, 1), e2=episode(6, 2))
    digest = sources.read(str(path), SPEC).sha256
    (path / "notes.txt").write_text("not read")
    moved = path.rename(tmp_path / "elsewhere")
    assert sources.read(str(moved), SPEC).sha256 == digest and len(digest) == 64
    (moved / "e1.npz").rename(moved / "e3.npz")
    assert sources.read(str(moved), SPEC).sha256 != digest


def changed(key, place, value):
    """A file whose entry at a place is another."""
    file = episode(4)
    array = file[key].astype(np.float64)
    array[place] = value
    return file | {key: array}


@pytest.mark.parametrize(
    "spoiled, words",
    [
        ({"action": None}, "b.npz has no action; an episode of ExORL has the keys observation, action, reward, disc"),
        ({"observation": np.zeros((5, 4))}, r"b.npz has observation of shape \[5, 4\].* it must be \[5, 3\]"),
        ({"action": np.zeros((4, 2))}, r"b.npz has action of shape \[4, 2\].* it must be \[5, 2\]"),
        ({"action": np.zeros(5)}, r"b.npz has action of shape \[5\]"),
        ({"reward": np.zeros((5, 2))}, r"b.npz has reward of shape \[5, 2\].* it must be \[5, 1\]"),
        ({"observation": np.zeros((0, 3))}, r"b.npz has observation of shape \[0, 3\]"),
        ({"observation": np.zeros(())}, r"b.npz has observation of shape \[\]"),
        ({"action": np.full((5, 2), "a")}, "b.npz has action of type <U1"),
        ({"action": np.full((5, 2), None)}, "b.npz cannot be read: it is damaged"),
        (changed("observation", (2, 1), np.nan), "observations that are not finite in 1 rows, the first in b.npz"),
        (changed("reward", 3, 1e39), "rewards that are not finite in 1 rows, the first in b.npz"),
        (changed("discount", slice(None), 0.5), "b.npz has discounts other than 0 and 1"),
        (changed("action", slice(3, 5), 1.5), r"outside \[-1, 1\] in 2 of 10 rows, the first in b.npz"),
    ],
)
def test_what_is_wrong_in_a_folder_is_one_sentence(folder, spoiled, words):
    path = folder(a=episode(4, 1), b=episode(4, 2, **spoiled))
    with pytest.raises(FlagError, match=words) as error:
        sources.read(str(path), SPEC)
    assert str(error.value).startswith("--dataset: ") and "\n" not in str(error.value)


def test_names_of_tasks_stand_for_the_file_of_all_tasks():
    maze, cube = "ogbench:pointmaze-medium-navigate", "ogbench:cube-single-play"
    for name, file in (
        (f"{maze}-singletask-task3-v0", f"{maze}-v0"),
        (f"{maze}-oraclerep-v0", f"{maze}-v0"),
        (f"{cube}-singletask-v0", f"{cube}-v0"),
    ):
        assert sources.path_of(name) == sources.path_of(file)
        assert sources.path_of(file).name == f"{file.removeprefix('ogbench:')}.npz"


@pytest.mark.parametrize("name", ["n" * 300, f"ogbench:{'n' * 300}"])
def test_a_name_that_no_disk_has_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FOLDER", tmp_path)  # in a folder that is not there, every name merely is not there
    for look in (lambda: sources.read(name, SPEC), lambda: sources.validation(name)):
        with pytest.raises(FlagError, match="cannot be read: File name too long"):
            look()


def test_no_name_is_not_the_current_folder():
    with pytest.raises(FlagError, match="--dataset is empty; it must be a file, a folder"):
        sources.read("", SPEC)


def test_folders_that_hold_no_episodes(tmp_path, folder):
    with pytest.raises(FlagError, match="is a folder without npz files; it must hold one for each episode"):
        sources.read(str(tmp_path), SPEC)
    path = folder(a=episode(4))
    (path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(FlagError, match="b.npz is no npz file"):
        sources.read(str(path), SPEC)
    (path / "b.npz").unlink()
    (path / "b.npz").mkdir()
    with pytest.raises(FlagError, match="b.npz cannot be read: Is a directory"):
        sources.read(str(path), SPEC)


def test_names_of_validation_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rnd").mkdir()
    assert sources.validation_name("a/x.npz") == "a/x-val.npz"
    assert sources.validation_name("rnd/") == str(tmp_path / "rnd-val")
    assert sources.validation_name("minari:maze/walks-v3") == "minari:maze/walks-val-v3"
    monkeypatch.chdir("rnd")
    assert sources.validation(".") is None
    (tmp_path / "rnd-val").mkdir()
    assert sources.validation(".") == str(tmp_path / "rnd-val")


def toy_episodes(path, number):
    """Episodes of the toy environment with goals as ExORL would keep them."""
    path.mkdir()
    held = walks()
    lines = {key: value.reshape(-1, 11, *value.shape[1:]) for key, value in held.items()}
    for i in range(number):
        step = {"action": lines["actions"][i], "reward": np.arange(11.0)[:, None], "discount": np.ones((11, 1))}
        shifted = {key: np.roll(value, 1, axis=0) for key, value in step.items()}
        np.savez_compressed(path / f"e{i:03}.npz", observation=lines["observations"][i], **shifted)


OFFLINE = [*toy.TINY, "--dataset", "rnd", "--offline_steps", "8", "--num_timesteps", "0"]


def test_a_run_on_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy_episodes(Path("rnd"), 12)
    toy_episodes(Path("rnd-val"), 3)
    run = make_run(*read_flags(OFFLINE))
    assert (run.dataset.episodes, run.dataset.transitions) == (12, 120) and run.held_out[
        "dataset"
    ].rows.reward.shape == (33, 1)
    assert run.dataset.ring.rows.reward[:11, 0].tolist() == [*range(10), 0]
    Path("rnd-val/e000.npz").write_bytes(b"")
    assert training.main(OFFLINE) == 2
    assert "rnd-val/e000.npz is no npz file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_on_a_folder_trains_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy_episodes(Path("rnd"), 12)
    assert training.main(OFFLINE) == 0
    assert "learning from rnd: 120 transitions in 12 episodes" in capsys.readouterr().out
    Path("rnd").rename("moved")
    again = [*OFFLINE, "--dataset", "moved", "--offline_steps", "16", "--resume"]
    assert training.main(again) == 0
    assert float(rows(RUN)[-1]["training/offline_updates"]) == 16
    Path("moved/e000.npz").unlink()
    capsys.readouterr()
    assert training.main([*again, "--offline_steps", "20"]) == 2
    assert "moved is not the file that" in capsys.readouterr().err
