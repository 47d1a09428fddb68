"""Tests of other formats of datasets: ExORL's folders, Minari's datasets, rewards of OGBench's single tasks."""

import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from goalax.commands import dataset
from goalax.commands import train as training
from goalax.core.types import Spec
from goalax.data import files, minari, sources
from goalax.flags import FlagError
from goalax.host import ogbench, ogbench_rewards
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.offline import walks
from tests.helpers.rings import filled_ring
from tests.helpers.runs import RUN, rows
from tests.helpers.standin import LIMIT, StandIn

toy.register()

SPEC = Spec(state_size=3, goal_size=0, action_size=2, goal_indices=(), discounting=0.9, goal_reach_thresh=0.0)
SINGLE = "ogbench:standin-singletask-task2-v0"


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
def test_a_name_that_no_disk_has_is_one_sentence(name):
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


# ---- Minari ----------------------------------------------------------------------------------------------------------

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
    expected, data = files.read(tmp_path / "x.npz", spec).ring.rows, sources.read("minari:own/x-v0", spec)
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


def test_a_dataset_that_cannot_be_written_leaves_nothing(local, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        (tmp_path / "minari" / "x-v0").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local, "create_dataset_from_buffers", full)
    with pytest.raises(FlagError, match="--out is 'minari:x-v0', which cannot be written: No space left on device"):
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


# ---- a single task of OGBench ----------------------------------------------------------------------------------------


class Single(StandIn):
    """The task in which the point starts at 0 and is asked for (1.6, 0): -1 a step, and 0 where it was there."""

    def __init__(self):
        super().__init__()
        self.data, self._reward_task_id = type("Data", (), {"qpos": np.zeros(2)}), 2

    def reset(self, seed=None, options=None):
        return super().reset(seed, {"task_id": self._reward_task_id})

    def step(self, action):
        success = np.linalg.norm(self.place - self.goal) < 0.5
        place, *_ = super().step(action)
        return place, float(success) - 1.0, success, self.steps == LIMIT, {"success": float(success)}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder to work in, and stand-ins for the package and for its law of rewards."""

    def relabel(name, env, data):
        env.reset()
        success = np.linalg.norm(data["qpos"] - env.unwrapped.goal, axis=1) < 0.5
        data["rewards"], data["masks"] = success - 1.0, 1.0 - success

    laws = ModuleType("ogbench.relabel_utils")
    laws.relabel_dataset = relabel
    monkeypatch.setitem(sys.modules, "ogbench", ModuleType("ogbench"))
    monkeypatch.setitem(sys.modules, "ogbench.relabel_utils", laws)
    monkeypatch.setattr(ogbench, "open_one", lambda name: Single() if "single" in name else StandIn())
    monkeypatch.chdir(tmp_path)
    action = np.random.default_rng(0).uniform(-1, 1, (30, 11, 2))
    states = np.cumsum(np.concatenate([np.zeros((30, 1, 2)), action[:, :-1]], 1), 1).reshape(-1, 2)
    columns = {"observations": states, "actions": action.reshape(-1, 2), "terminals": np.arange(330) % 11 == 10}
    files.write("data.npz", columns | {"qpos": states, "rewards": np.full(330, 7.0)})
    return columns


ALONE = [
    *("--env_name", SINGLE, "--agent", "iql", "--dataset", "data.npz", "--offline_steps", "8", "--num_evals", "1"),
    *("--num_envs", "4", "--unroll_length", "5", "--utd_ratio", "0.1", "--batch_size", "8", "--h_dim", "8"),
    *("--n_hidden", "1"),
]


def test_rewards_of_a_single_task_are_those_of_its_law(alone):
    run = make_run(*read_flags(ALONE))
    near = np.linalg.norm(alone["observations"] - [1.6, 0], axis=1) < 0.5
    assert 0 < near.sum() < 100 and run.spec.goal_size == 0 and run.env.tasks == (2,)
    np.testing.assert_array_equal(run.dataset.ring.rows.reward[:, 0], near - 1.0)
    np.testing.assert_array_equal(run.dataset.ring.rows.terminal[:, 0], near)
    assert ogbench_rewards.labels(ogbench.OGBenchEnv("ogbench:standin-v0")) is None


def towards(state, goal):
    assert goal.shape == (len(state), 0)
    return np.clip([1.6, 0] - state, -1, 1)


def test_the_task_is_played_without_goals(alone):
    env = ogbench.OGBenchEnv(SINGLE)
    assert (ogbench.episodes(env), env.num_tasks) == (25, 1)
    played = ogbench.play(env, towards, 3, seed=7)
    assert played.task.tolist() == [2, 2, 2] and played.success.tolist() == [1, 1, 1]
    assert played.length.tolist() == [3, 3, 3] and played.reward.tolist() == [-2, -2, -2]  # judged before the action
    metrics = ogbench.by_episode(played, LIMIT) | ogbench.by_task(played)
    assert metrics["eval/episode_reward"].mean() == -2 and metrics["eval/task2_success"].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_a_run_in_a_single_task(alone, capsys):
    assert training.main([*ALONE, "--num_eval_envs", "2"]) == 0
    (row,) = rows("runs/ogbench_standin-singletask-task2-v0_iql_s0")
    assert row["eval/success"] == row["eval/task2_success"] and -12 <= float(row["eval/episode_reward"]) <= 0


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--agent", "gcivl"], "--agent is 'gcivl', which learns from goals; --env_name ogbench:standin-singletask"),
        (["--dataset", "bare.npz"], "bare.npz has no qpos, from which the rewards of the task are computed"),
        (["--dataset", "wide.npz"], r"wide.npz has qpos of shape [330, 3]"),
        (["--dataset", "nan.npz"], "nan.npz has qpos that are not finite in 330 rows"),
    ],
)
def test_what_does_not_fit_a_single_task(alone, flags, words, capsys):
    files.write("bare.npz", alone | {"rewards": np.zeros(330)})
    files.write("wide.npz", alone | {"qpos": np.zeros((330, 3))})
    files.write("nan.npz", alone | {"qpos": np.full((330, 2), np.nan)})
    assert training.main([*ALONE, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_nothing_is_remembered_in_a_single_task(alone, capsys):
    assert training.main([*ALONE[:-4], "--agent", "dt"]) == 2
    error = capsys.readouterr().err
    assert "--agent is 'dt', which remembers between actions" in error
    assert "OGBench with a single task are for agents that learn from rewards, such as iql or rebrac." in error


def test_pre_training_looks_at_no_rewards(alone):
    """And not at where the task that the file was made for was solved."""
    files.write("bare.npz", alone | {"rewards": np.ones(330), "masks": np.zeros(330)})
    flags = ["--finetune_dataset", "data.npz", "--finetune_steps", "8"]
    run = make_run(*read_flags([*ALONE, "--agent", "hilp", "--dataset", "bare.npz", *flags]))
    assert not run.dataset.ring.rows.reward.any() and run.finetune_dataset.ring.rows.reward.min() == -1
    assert not run.dataset.ring.rows.terminal.any()


@pytest.mark.slow
def test_the_package_plays_a_single_task():
    """The way that its own maze knows solves it; the step at the goal costs nothing."""
    pytest.importorskip("ogbench")
    env = ogbench.OGBenchEnv("ogbench:pointmaze-medium-singletask-task3-v0")
    inner = env.made[0].unwrapped
    goal = np.array(inner.task_infos[2]["goal_xy"])

    def by_the_way(state, _):
        ways = [inner.get_oracle_subgoal(place, goal)[0] for place in state]
        near = np.linalg.norm(state - goal, axis=1, keepdims=True) < 2
        return np.clip(2 * (np.where(near, goal, ways) - state), -1, 1)

    played = ogbench.play(env, by_the_way, 3, seed=0)
    assert played.task.tolist() == [3, 3, 3] and played.success.tolist() == [1, 1, 1]
    assert (played.length < 300).all() and (played.reward == 1 - played.length).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, kind",
    [
        ("pointmaze-medium-{}singletask-task3-v0", "navigate-"),
        ("antsoccer-arena-{}singletask-v0", "navigate-"),
        ("cube-double-{}singletask-task2-v0", "play-"),
        ("scene-{}singletask-task4-v0", "play-"),
        ("puzzle-3x3-{}singletask-v0", "play-"),
    ],
)
def test_rewards_of_the_package_itself(name, kind, tmp_path):
    """They are those of the loader of the package, row for row."""
    package = pytest.importorskip("ogbench")
    env, rng, num = ogbench.OGBenchEnv(f"ogbench:{name.format('')}"), np.random.default_rng(0), 60
    labels, inner = ogbench_rewards.labels(env), env.made[0].unwrapped
    env.made[0].reset(seed=0)
    near = lambda: rng.uniform(size=num) < 0.7  # noqa: E731
    qpos = rng.normal(size=(num, labels.columns["qpos"]))
    if "qpos" in labels.columns and hasattr(inner, "cur_goal_xy"):
        ball = 15 * name.startswith("antsoccer")
        qpos[:, ball : ball + 2] = inner.cur_goal_xy + rng.uniform(-1, 1, (num, 2))
    for i, place in enumerate(inner._data.mocap_pos if hasattr(inner, "_data") else ()):
        qpos[near(), 14 + 7 * i : 17 + 7 * i] = place
    if name.startswith("scene"):
        qpos[near(), -2], qpos[near(), -1] = inner._target_drawer_pos, inner._target_window_pos
    ends = np.arange(num) % 20 == 19
    columns = {
        "observations": rng.normal(size=(num, env.state_dim)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (num, env.action_size)).astype(np.float32),
        "terminals": ends,
        "qpos": qpos,
        "qvel": qpos,
    }
    if "button_states" in labels.columns:
        columns["button_states"] = rng.integers(0, 2, (num, labels.columns["button_states"]))
    for file in ("x.npz", "x-val.npz"):
        files.write(tmp_path / file, columns)
    found = sources.read(str(tmp_path / "x.npz"), Spec.of(env, 0.99), labels=labels).ring.rows
    _, expected, _ = package.make_env_and_datasets(name.format(kind), dataset_path=str(tmp_path / "x.npz"))
    np.testing.assert_array_equal(found.reward[~ends, 0], expected["rewards"])
    np.testing.assert_array_equal(found.terminal[~ends, 0], 1 - expected["masks"])
    assert len(np.unique(expected["rewards"])) > 1
