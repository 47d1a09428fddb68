"""Tests of Minari's datasets: read, written, and what is wrong with them in one sentence."""

import sys

import jax
import numpy as np
import pytest

from goalax.commands import dataset
from goalax.core.types import Spec
from goalax.data import files, minari, sources
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.offline import walks
from tests.helpers.rings import filled_ring

toy.register()
SPEC = Spec(state_size=3, goal_size=0, action_size=2, goal_indices=(), discounting=0.9, goal_reach_thresh=0.0)
GOALS = Spec(3, 1, 1, (0,), 0.9, 0.5)


@pytest.fixture
def local(tmp_path, monkeypatch):
    """The package, with a folder of its own."""
    package = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return package


def made(package, name, lengths=(4, 2), wrap=lambda seen: seen, **changes):
    """A dataset of Minari made with its own functions, and the parts it was made of."""
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    rng, box, parts = np.random.default_rng(0), gymnasium.spaces.Box, []
    for num in lengths:
        part = {
            "observations": wrap(rng.normal(size=(num + 1, 3)).astype(np.float32)),
            "actions": rng.uniform(-1, 1, (num, 2)).astype(np.float32),
            "rewards": rng.uniform(size=num),
            "terminations": np.arange(num) == (num - 1 if num == 4 else num),
            "truncations": np.arange(num) == (num - 1 if num != 4 else num),
        }
        parts.append(part | changes)
    seen = parts[0]["observations"]
    spaces = {key: box(-np.inf, np.inf, value.shape[1:]) for key, value in seen.items()} if type(seen) is dict else None
    package.create_dataset_from_buffers(
        name,
        [EpisodeBuffer(**part) for part in parts],
        observation_space=gymnasium.spaces.Dict(spaces) if spaces else box(-np.inf, np.inf, seen.shape[1:]),
        action_space=box(-1, 1, (2,)),
    )
    return parts


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dataset_of_minari_is_a_ring(local):
    parts = made(local, "other/walk-v0")
    data = sources.read("minari:other/walk-v0", SPEC)
    assert (data.episodes, data.transitions) == (2, 6) and data.path == "minari:other/walk-v0"
    ring, start = data.ring.rows, 0
    for part in parts:
        end = start + len(part["rewards"])
        np.testing.assert_array_equal(ring.state[start : end + 1, 0], part["observations"])
        np.testing.assert_array_equal(ring.action[start:end, 0], part["actions"])
        np.testing.assert_array_equal(ring.reward[start:end, 0], np.float32(part["rewards"]))
        np.testing.assert_array_equal(ring.terminal[start:end, 0], part["terminations"])
        start = end + 1
    assert ring.terminal[:, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert sources.read("minari:other/walk-v0", SPEC).sha256 == data.sha256
    made(local, "other/walk-v1", lengths=(4, 3))
    assert sources.read("minari:other/walk-v1", SPEC).sha256 != data.sha256


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("none-v0", None, r"minari:none-v0 is not in .*; `minari download none-v0` gets it"),
        ("none", None, "--dataset: minari:none must be a name of Minari with a version"),
        ("../none-v0", None, "must be a name of Minari"),
        ("x-v0", {"wrap": lambda seen: seen[:, :2]}, r"episode 0, has observations of shape \[5, 2\].* be \[5, 3\]"),
        ("x-v0", {"wrap": lambda seen: {"image": seen}}, "observations of image; they must be an array, or have"),
        ("x-v0", {"wrap": lambda seen: {"observation": seen, "desired_goal": seen}}, r"has goals of shape \[5, 3\]"),
        ("x-v0", {"actions": np.zeros((3, 2))}, r"episode 0, has actions of shape \[3, 2\].* must be \[4, 2\]"),
        ("x-v0", {"lengths": (2,), "rewards": np.array([1, np.nan])}, "rewards that are not finite .* in episode 0"),
        ("x-v0", {"lengths": (2, 2), "actions": np.full((2, 2), 3.0)}, r"outside \[-1, 1\] in 4 of 6 rows, the first"),
    ],
)
def test_what_is_wrong_with_a_dataset_of_minari_is_one_sentence(local, name, changes, words):
    if changes is not None:
        made(local, name, **changes)
    with pytest.raises(FlagError, match=words) as error:
        sources.read(f"minari:{name}", SPEC)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_datasets_of_minari(local, tmp_path):
    made(local, "x-v0")
    stored = tmp_path / "minari" / "x-v0" / "data"
    content = (stored / "main_data.hdf5").read_bytes()
    for spoil in (
        lambda: (stored / "main_data.hdf5").write_bytes(content[:700]),
        lambda: (stored / "metadata.json").write_text("{"),
        lambda: (stored / "metadata.json").write_text("{}"),
        lambda: (stored / "metadata.json").unlink(),
    ):
        spoil()
        with pytest.raises(FlagError, match="minari:x-v0 cannot be read") as error:
            sources.read("minari:x-v0", SPEC)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("goals", [True, False])
def test_what_is_written_for_minari_is_read_again(local, tmp_path, goals):
    ring = jax.device_get(filled_ring(0))
    terminal = np.zeros_like(ring.rows.terminal)
    terminal[(18 % 12, 0)] = 1  # the last step of an episode
    ring = ring._replace(rows=ring.rows._replace(action=np.tanh(ring.rows.action), terminal=terminal))
    columns = files.columns_of(ring)
    spec = GOALS if goals else GOALS._replace(goal_size=0, goal_indices=())
    columns |= {} if goals else {"goals": columns["goals"][:, :0]}
    files.write(tmp_path / "x.npz", columns)
    sources.write("minari:own/x-v0", columns, spec.goal_indices)
    expected, data = sources.read(str(tmp_path / "x.npz"), spec).ring.rows, sources.read("minari:own/x-v0", spec)
    stays = np.append(np.diff(expected.episode_start[:, 0]) == 0, False)  # rows that are not the last
    for name, one, other in zip(expected._fields, expected, data.ring.rows, strict=True):
        kept = stays if name == "action" else slice(None)
        np.testing.assert_array_equal(one[kept], other[kept], err_msg=name)
    assert data.ring.rows.terminal.sum() == 1
    loaded = local.load_dataset("own/x-v0")
    assert (loaded.total_episodes, loaded.total_steps) == (data.episodes, data.transitions)
    assert isinstance(loaded[0].observations, dict) is goals and loaded.storage.metadata["total_steps"] == 18
    ends = [(one.terminations[-1], one.truncations[-1]) for one in loaded]
    assert sorted(ends) == [(False, True)] * 5 + [(True, False)]
    with pytest.raises(FlagError, match="--out is 'minari:own/x-v0', but .* is there already"):
        sources.write("minari:own/x-v0", columns, spec.goal_indices)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("Can't decrement id ref count\n(no space)"), r"Can't decrement id ref count \(no space\)"),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_dataset_that_cannot_be_written_leaves_nothing(error, words, local, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        (tmp_path / "minari" / "x-v0").mkdir(parents=True)
        raise error

    monkeypatch.setattr(local, "create_dataset_from_buffers", full)
    told = f"--out is 'minari:x-v0', which cannot be written: {words}.$"
    with pytest.raises(FlagError if words else KeyboardInterrupt, match=told if words else None):
        sources.write("minari:x-v0", files.columns_of(jax.device_get(filled_ring(0))), (0,))
    assert not (tmp_path / "minari" / "x-v0").exists()


@pytest.mark.slow
def test_the_command_collects_for_minari(local, capsys):
    flags = ["--env_name", "simple_u_maze", "--style", "stitch", "--steps", "250", "--out", "minari:walks/stitch-v0"]
    assert dataset.main(flags) == 0
    assert "minari:walks/stitch-val-v0: 101 rows, 1 episodes" in capsys.readouterr().out
    assert sorted(local.list_local_datasets()) == ["walks/stitch-v0", "walks/stitch-val-v0"]
    assert dataset.main(flags) == 2
    assert "is there already" in capsys.readouterr().err
    run = make_run(
        *read_flags(["--env_name", "simple_u_maze", "--dataset", "minari:walks/stitch-v0", "--offline_steps", "1"])
    )
    assert run.dataset.transitions == 300 and run.held_out["dataset"].rows.reward.shape == (101, 1)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, FlagError])
def test_a_pair_of_which_one_cannot_be_written_leaves_nothing(stop, local, monkeypatch):
    full = local.create_dataset_from_buffers

    def only_the_first(name, *args, **kwargs):
        if "-val-" in name:
            raise stop
        return full(name, *args, **kwargs)

    monkeypatch.setattr(local, "create_dataset_from_buffers", only_the_first)
    columns = files.columns_of(jax.device_get(filled_ring(0)))
    monkeypatch.setattr(dataset, "walks_in", lambda *_: (lambda seed, steps: [columns], (0,)))
    config = dataset.DatasetConfig(env_name="simple_u_maze", out="minari:walks/x-v0")
    with pytest.raises(stop):
        dataset.write_walks(config)
    assert local.list_local_datasets() == {}
    monkeypatch.setattr(local, "create_dataset_from_buffers", full)
    dataset.check(config)
    dataset.write_walks(config)
    assert sorted(local.list_local_datasets()) == ["walks/x-v0", "walks/x-val-v0"]


@pytest.mark.parametrize("missing", ["minari", "h5py"])
def test_without_the_package_it_says_how_to_get_it(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(FlagError, match="--dataset: minari:x-v0 is a dataset of the package minari, .*install 'goal"):
        sources.read("minari:x-v0", SPEC)
    assert dataset.main(["--env_name", "simple_u_maze", "--out", "minari:x-v0"]) == 2
    error = capsys.readouterr().err
    assert "--out: minari:x-v0 is a dataset of the package" in error and error.count("\n") == 1


def test_the_package_is_only_asked_for_where_it_is_meant(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    monkeypatch.chdir(tmp_path)
    files.write("x.npz", walks())
    assert sources.validation("x.npz") is None and not sources.is_minari("x.npz")
    for name, valid in {"D4RL/pointmaze/umaze-v2": True, "x-v0": True, "a/b/x-v0": True, "a/x-v0": False}.items():
        assert bool(minari.NAMES.fullmatch(name)) is valid
