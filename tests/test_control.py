"""DeepMind Control tasks: of a package that stands for playground, and of playground itself where it is installed."""

import subprocess
import sys
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.base import State as BraxState

from goalax.commands import train as training
from goalax.core import rollout
from goalax.envs import ENVS, control, create_env
from goalax.films import scene
from goalax.flags import FlagError
from goalax.host import given
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy, toy_rewards
from tests.helpers.runs import rows

toy.register()
toy_rewards.register()


# ---- DeepMind Control, of a package that these tests stand for ----


class Data(NamedTuple):
    qpos: jax.Array
    qvel: jax.Array


class Balance:
    """A task as playground has it: a mass on a line, rewarded in the middle; steps write into their dicts."""

    action_size, dt = 1, 0.02
    xml_path = "none"

    def state(self, data, info, metrics):
        broken = jnp.isnan(data.qpos).any().astype(jnp.float32)
        reward = jnp.exp(-(data.qpos[0] ** 2))
        metrics["reward/middle"] = reward
        obs = jnp.concatenate([data.qpos, data.qvel])
        return BraxTask(data, obs, reward, broken, metrics, info)

    def reset(self, rng):
        data = Data(jax.random.uniform(rng, (1,)), jnp.zeros(1))
        return self.state(data, {"rng": rng}, {})

    def step(self, state, action):
        speed = state.data.qvel + 0.1 * action
        return self.state(Data(state.data.qpos + speed, speed), state.info, state.metrics)


class BraxTask(NamedTuple):
    data: Any
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict
    info: dict

    def replace(self, **changes):
        return self._replace(**changes)


@pytest.fixture
def package(monkeypatch):
    """A package in the place of playground, whose every task is `Balance`; what was asked for."""
    asked = []

    def load(name, config_overrides):
        assert hasattr(mujoco.MjSpec, "find_body") and config_overrides == {"impl": "jax"}
        asked.append(name)
        return Balance()

    stand_in = types.ModuleType("mujoco_playground")
    stand_in.dm_control_suite = types.SimpleNamespace(load=load)
    monkeypatch.setitem(sys.modules, "mujoco_playground", stand_in)
    return asked


def test_a_task_is_an_environment(package):
    env = create_env("dm_walker_walk")
    assert package == ["WalkerWalk"] and not hasattr(mujoco.MjSpec, "find_body")
    assert (env.state_dim, env.goal_dim, env.action_size, env.observation_size) == (2, 0, 1, 2)
    assert (env.dt, env.backend, env.episode_length, env.goal_reach_thresh) == (0.02, "mjx", 1000, 0)
    state = env.reset(jax.random.PRNGKey(0))
    task = env.task.reset(jax.random.PRNGKey(0))
    for action in (0.5, 3.0, -1.0):
        state = env.step(state, jnp.array([action]))
        task = env.task.step(task, jnp.clip(jnp.array([action]), -1, 1))
        np.testing.assert_array_equal(state.obs, task.obs)
        assert state.reward == task.reward and state.done == 0
    assert isinstance(state, BraxState) and state.info["goal"].shape == (0,)
    assert {name: float(value) for name, value in state.metrics.items()} == {"success": 0, "dist": 0, "broken": 0}


def test_a_step_leaves_the_state_before_as_it_is(package):
    env = create_env("dm_pendulum_swingup")
    before = env.reset(jax.random.PRNGKey(0))
    middle = float(before.pipeline_state.task.metrics["reward/middle"])
    env.step(before, jnp.ones(1))
    assert before.pipeline_state.task.metrics["reward/middle"] == middle


def test_physics_that_break_end_the_episode(package):
    env = create_env("dm_walker_walk")
    before = env.reset(jax.random.PRNGKey(0))
    physics = before.pipeline_state
    broken = physics.task._replace(data=Data(jnp.full(1, jnp.nan), jnp.zeros(1)))
    after = env.step(before.replace(pipeline_state=physics._replace(task=broken)), jnp.ones(1))
    assert after.done == 1 and after.reward == 0 and after.metrics["broken"] == 1
    np.testing.assert_array_equal(after.obs, before.obs)


def test_rewards_of_a_repeated_action_are_summed(package):
    env = create_env("dm_walker_walk")
    start = rollout.reset_all(env, jax.random.split(jax.random.PRNGKey(0), 3))
    action = jnp.full((3, 1), 0.1)
    once = rollout.step_all(env, start, action)
    twice = rollout.step_all(env, once, action)
    held = rollout.hold(env, start, action, 2)
    np.testing.assert_allclose(held.reward, once.reward + twice.reward, rtol=1e-6)
    np.testing.assert_allclose(held.obs, twice.obs, rtol=1e-6)


@pytest.mark.slow
def test_an_agent_trains_on_a_task(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--episode_length", "20", "--action_repeat", "2", "--max_replay_size", "40"]
    assert training.main([*toy.BASELINE, "--env_name", "dm_cartpole_swingup", "--agent", "sac", *sizes]) == 0
    last = rows(tmp_path / "runs" / "dm_cartpole_swingup_sac_s0")[-1]
    assert 0 < float(last["eval/episode_reward"]) <= 20 and float(last["eval/avg_episode_length"]) == 20


def test_without_the_package_one_sentence_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    for flags in (["--env_name", "dm_walker_walk"], ["--env_name", "toy_rewards", "--eval_env", "dm_walker_walk"]):
        assert training.main([*flags, "--agent", "sac"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is 'dm_walker_walk': it is a task of the package playground" in line
        assert line.endswith("pip install 'goalax[playground]'.")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--backend", "spring"], "--backend is 'spring' with --env_name dm_walker_walk: Unsupported backend"),
        (["--dense_reward"], "--dense_reward is True with --env_name dm_walker_walk: This environment has no dense"),
        (["--agent", "crl"], "--agent is 'crl', which learns from goals; --env_name dm_walker_walk has none"),
    ],
)
def test_what_tasks_do_not_have(argv, words, package):
    with pytest.raises(FlagError, match=words):
        make_run(*read_flags(["--env_name", "dm_walker_walk", "--agent", "sac", *argv]))


def test_starts_cannot_be_given(package):
    env = create_env("dm_walker_walk")
    with pytest.raises(FlagError, match="--start is 1; this environment draws its own starts"):
        given.check_start(env, "--start", np.ones(1))


def test_names_are_known_without_the_package():
    assert {"dm_walker_walk", "dm_cartpole_swingup", "dm_reacher_easy", "dm_cheetah_run", "dm_finger_spin"} <= set(ENVS)
    assert len(control.TASKS) == 25 and control.name_of("BallInCup") == "dm_ball_in_cup"
    program = (
        "import sys, contextlib; from goalax.commands import train\n"
        "with contextlib.suppress(SystemExit): train.main(['--help'])\n"
        "print('imported' if 'mujoco_playground' in sys.modules else 'left alone')"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "dm_walker_walk" in printed and printed.endswith("left alone\n")


# ---- The package itself, where it is installed ----


@pytest.fixture(scope="module")
def suite():
    """playground's registry of tasks; tests that ask for it are left out where it is not installed."""
    pytest.importorskip("mujoco_playground")
    from mujoco_playground import dm_control_suite

    return dm_control_suite


def test_the_suite_is_that_of_the_package(suite):
    assert set(control.SUITE) == set(suite.ALL_ENVS)


SOME = ("dm_cartpole_swingup", "dm_finger_spin", "dm_walker_walk")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SOME else pytest.mark.table) for name in control.TASKS],
)
def test_every_task_can_be_traced(name, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = create_env(name)
    assert env.episode_length == suite.get_default_config(control.TASKS[name]).episode_length
    before = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
    after = jax.eval_shape(env.step, before, jnp.zeros(env.action_size))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for leaf, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype)
    assert before.obs.shape == (env.state_dim,) and not list(tmp_path.iterdir())  # no log file of MuJoCo


@pytest.mark.slow
def test_an_episode_of_a_task(suite):
    """200 steps of random actions: finite, rewards in [0, 1], no end; the steps are those of the package."""
    env = create_env("dm_pendulum_swingup")
    task = suite.load("PendulumSwingup", config_overrides={"impl": "jax"})
    actions = jax.random.uniform(jax.random.PRNGKey(1), (200, 1), minval=-1, maxval=1)

    def both(states, action):
        states = env.step(states[0], action), task.step(states[1], action)
        ours, theirs = states
        return states, (ours.obs, theirs.obs, ours.reward, theirs.reward, ours.done)

    with jax.numpy_rank_promotion("allow"):
        states = env.reset(jax.random.PRNGKey(0)), task.reset(jax.random.PRNGKey(0))
        _, seen = jax.jit(lambda states: jax.lax.scan(both, states, actions))(states)
    obs, other, reward, other_reward, done = map(np.asarray, seen)
    np.testing.assert_allclose(obs, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reward, other_reward, rtol=1e-5, atol=1e-6)
    assert np.isfinite(obs).all() and (reward >= 0).all() and (reward <= 1).all() and not done.any()


@pytest.mark.parametrize("name", ["dm_cartpole_swingup", "dm_walker_walk"])
def test_films_of_tasks(name, suite):
    env = create_env(name)
    model = scene.model_of(env)
    assert model.nq == env.task.mj_model.nq
    q = np.tile(np.asarray(model.qpos0, np.float32), (2, 1))
    film = scene.Film(q, np.zeros((2, 0, 3)), np.zeros(2) > 0, np.zeros(2, int), np.arange(1, 3), 0.1, "")
    assert [view.heading for view in scene.views(env, model, film)] == [0, 0]


@pytest.mark.parametrize("name", ["dm_reacher_easy", "dm_swimmer_swimmer6"])
def test_targets_that_are_not_recorded_are_not_shown_wrongly(name, suite):
    with pytest.raises(scene.RenderError, match="the target of this task is no joint"):
        scene.model_of(create_env(name))
