"""Tests of OGBench's single tasks: rewards by their law, played without goals."""

import sys
from types import ModuleType

import numpy as np
import pytest

from goalax.commands import train as training
from goalax.core.types import Spec
from goalax.data import files, sources
from goalax.host import ogbench, ogbench_rewards
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.runs import rows
from tests.helpers.standin import LIMIT, StandIn

toy.register()
SINGLE = "ogbench:standin-singletask-task2-v0"


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
