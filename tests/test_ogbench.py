"""Tests of OGBench's environments: what its package needs to be for, with a stand-in, and with it where it is there."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

from goalax.commands import evaluate
from goalax.commands import train as training
from goalax.data import files
from goalax.flags import FlagError
from goalax.host import ogbench
from goalax.host.config import read_flags
from goalax.host.loading import load, load_policy
from goalax.host.make import make_run
from tests.helpers.runs import rows
from tests.helpers.standin import LIMIT, StandIn

NAME = "ogbench:standin-v0"
SMALL = [
    *("--env_name", NAME, "--agent", "gcbc", "--dataset", "data.npz", "--offline_steps", "50", "--num_evals", "2"),
    *("--num_envs", "4", "--unroll_length", "5", "--utd_ratio", "0.1", "--batch_size", "8", "--h_dim", "8"),
    *("--n_hidden", "1"),
]
RUN = Path("runs/ogbench_standin-v0_gcbc_s0")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, and the stand-in in the place of the package."""
    made = []

    def open_one(name):
        if name != "standin-v0":
            raise ValueError("OGBench has no such environment.")
        made.append(StandIn())
        return made[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ogbench, "open_one", open_one)
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (30, 11, 2))
    states = np.cumsum(np.concatenate([np.zeros((30, 1, 2)), action[:, :-1]], 1), 1)
    ends = np.arange(330) % 11 == 10
    files.write(
        "data.npz", {"observations": states.reshape(-1, 2), "actions": action.reshape(-1, 2), "terminals": ends}
    )
    return made


def towards(state, goal):
    """A policy that goes straight to the goal."""
    return np.clip(goal - state, -1, 1)


def test_every_task_has_its_episodes_and_success_is_that_of_the_end(here):
    played = ogbench.play(ogbench.OGBenchEnv(NAME), towards, 15, seed=7)
    assert played.task.tolist() == [1, 2, 3, 4, 5] * 3
    assert played.success.tolist() == [1, 1, 1, 1, 0] * 3  # nobody reaches the last one
    assert played.length.tolist() == [1, 2, 2, 3, LIMIT] * 3  # they end at the goal, or at the limit
    np.testing.assert_allclose(played.final_dist, np.array([0, 0, 0.4, 0.2, 0] * 3), atol=1e-6)
    found = ogbench.by_episode(played, LIMIT) | ogbench.by_task(played)
    assert found["eval/success"].mean() == pytest.approx(0.8) and found["eval/task5_success"].tolist() == [0, 0, 0]
    assert found["eval/time_at_goal"].max() == 1 / LIMIT


def test_more_episodes_than_fit_side_by_side(here, monkeypatch):
    """They come in turns, with seeds of their own, and the policy sees equal shapes in each."""
    shapes = set()

    def watching(state, goal):
        shapes.add((state.shape, goal.shape, state.dtype))
        return towards(state, goal)

    monkeypatch.setattr(ogbench, "AT_ONCE", 4)
    played = ogbench.play(ogbench.OGBenchEnv(NAME), watching, 10, seed=7)
    assert played.task.tolist() == [1, 2, 3, 4, 5] * 2 and played.success.tolist() == [1, 1, 1, 1, 0] * 2
    assert shapes == {((4, 2), (4, 2), np.dtype("float32"))} and len(here) == 4
    seeds = sorted(seed for each in here for seed, _ in each.seeds)
    assert seeds == list(range(7, 17))


def test_equal_seeds_draw_equal_numbers_and_leave_those_of_others(here):
    env = ogbench.OGBenchEnv(NAME)
    np.random.seed(3)
    expected = np.random.uniform(size=2)
    np.random.seed(3)
    first = np.random.uniform()
    for seed in (5, 5, 6):
        ogbench.play(env, towards, 5, seed)
    assert [first, np.random.uniform()] == expected.tolist()
    one, again, other = here[0].seeds
    assert one == again and one[1] != other[1]


@pytest.mark.slow
def test_a_run_on_a_dataset(here, capsys):
    assert training.main(SMALL) == 0
    found = rows(RUN)
    tasks = [f"eval/task{task}_success" for task in range(1, 6)]
    for row in found:
        assert float(row["eval/success"]) == pytest.approx(np.mean([float(row[name]) for name in tasks]))
        assert float(row["training/envsteps"]) == 0 and "eval/task6_success" not in row
    assert len(here) == 25  # five episodes of each task, side by side
    assert load_policy(RUN)(np.zeros(2), np.ones(2)).shape == (2,)
    run, state = load(RUN)
    assert run.config.normalize_observations is False and run.spec.goal_indices == (0, 1)
    again = run.evaluate(state)
    for name in tasks:  # of the same policy, with the same seed
        assert again[name] == pytest.approx(float(found[-1][name]))
    capsys.readouterr()
    assert evaluate.main([str(RUN), "--episodes", "12"]) == 0
    printed = capsys.readouterr().out
    for flag in ("--goal", "--start"):
        assert evaluate.main([str(RUN), flag, "1,2"]) == 2
        assert f"{flag} is given" in capsys.readouterr().err
    assert "50 updates, 15 episodes" in printed and "eval/task5_success" in printed


@pytest.mark.slow
def test_resume_is_exact_and_seeds_are_evaluated_apart(here):
    assert training.main(SMALL) == 0
    assert training.main([*SMALL, "--exp_name", "part", "--offline_steps", "24", "--num_evals", "1"]) == 0
    assert training.main([*SMALL, "--exp_name", "part", "--resume"]) == 0
    assert rows(RUN.with_name("part_s0"))[-1] == rows(RUN)[-1]
    assert training.main([*SMALL, "--exp_name", "two", "--num_seeds", "2"]) == 0
    both = [rows(f"runs/two_s{seed}")[-1] for seed in (0, 1)]
    assert both[0]["eval/final_dist"] != both[1]["eval/final_dist"]
    np.testing.assert_allclose(float(both[0]["eval/final_dist"]), float(rows(RUN)[-1]["eval/final_dist"]), rtol=1e-3)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--env_name", "ogbench:none-v0"], "--env_name is 'ogbench:none-v0': OGBench has no such environment"),
        (["--num_timesteps", "100"], "--num_timesteps is 100; with --env_name ogbench:standin-v0 it must be 0"),
        (["--eval_env", "reacher"], "--eval_env is 'reacher'"),
        (["--episode_length", "9"], "--episode_length is 9; with --env_name ogbench:standin-v0 it must be 12"),
        (["--num_eval_envs", "12"], "--num_eval_envs is 12; it must be a multiple of 5"),
        (["--backend", "spring"], "--backend is 'spring'"),
        (["--dense_reward"], "--dense_reward is True"),
        (["--agent", "td3"], "--agent is 'td3', which learns from rewards"),
        (["--agent", "crl", "--action_chunk", "3"], "--agent is 'crl', which remembers between actions"),
        (["--agent", "srl"], "--agent is 'srl', which asks when a goal is reached"),
    ],
)
def test_what_does_not_fit_is_one_sentence(here, flags, words, capsys):
    assert training.main([*SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_it_needs_a_dataset(here, capsys):
    without = [word for word in SMALL if word not in ("--dataset", "data.npz", "--offline_steps", "50")]
    assert training.main(without) == 2
    assert "--dataset must name the file to learn from" in capsys.readouterr().err


def test_nothing_else_steps_it(here):
    run = make_run(*read_flags(SMALL))
    for function in (run.env.reset, jax.jit(run.env.reset)):
        with pytest.raises(FlagError, match="stepped on the host"):
            function(jax.random.PRNGKey(0))
    with pytest.raises(FlagError, match="stepped on the host"):
        jax.eval_shape(run.train.evaluate, jax.eval_shape(run.train.init, run.keys(0)))


def test_without_the_package_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    assert training.main(["--env_name", "ogbench:pointmaze-medium-v0", "--dataset", "data.npz"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'goalax[ogbench]'" in error and error.count("\n") == 1


def test_a_name_it_does_not_have_lists_near_ones(monkeypatch):
    """Of what the package registers, only environments with states and goals are offered."""
    kinds = {"pointmaze-large-v0": "ogbench.a:b", "visual-antmaze-v0": "ogbench.a:b", "CartPole-v1": "gymnasium.a:b"}
    gymnasium = ModuleType("gymnasium")
    gymnasium.registry = {name: SimpleNamespace(entry_point=entry) for name, entry in kinds.items()}
    monkeypatch.setitem(sys.modules, "gymnasium", gymnasium)
    monkeypatch.setitem(sys.modules, "ogbench", ModuleType("ogbench"))
    for name in ("pointmaze-large-navigate-v0", "CartPole-v1", "visual-antmaze-v0"):
        with pytest.raises(ValueError, match="near it are pointmaze-large-v0\\."):
            ogbench.open_one(name)


def test_the_package_itself():
    """A policy that goes straight to the goal solves the tasks of pointmaze-medium where no wall is between."""
    pytest.importorskip("ogbench")
    env = ogbench.OGBenchEnv("ogbench:pointmaze-medium-v0")
    assert (env.state_dim, env.action_size, env.episode_length, env.num_tasks) == (2, 2, 1000, 5)
    assert env.dt == 0.1 and ogbench.OGBenchEnv("ogbench:cube-single-v0").dt == 0.05
    played = ogbench.play(env, towards, 5, seed=0)
    again = ogbench.play(env, towards, 5, seed=0)
    assert all(map(np.array_equal, played, again))
    assert (played.length[played.success == 1] < 1000).all() and (played.length[played.success == 0] == 1000).all()
    assert (played.final_dist[played.success == 1] <= 1.0).all() and (played.final_dist[played.success == 0] > 1).all()
    with pytest.raises(ValueError, match="pointmaze-medium-v0"):
        ogbench.OGBenchEnv("ogbench:pointmaze-medium-navigate-v0")
