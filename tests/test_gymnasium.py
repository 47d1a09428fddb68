"""Environments as Gymnasium sees them: its own checks, autoreset, seeds, goals by hand, rewards of other goals."""

import itertools
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.envs import ENVS
from tests.helpers import toy

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import AutoresetMode  # noqa: E402

from goalax.interop import gym  # noqa: E402

ID = "goalax/simple_u_maze-v0"
LIMIT = 6


@pytest.fixture(scope="module")
def single():
    return gymnasium.make(ID)


@pytest.fixture(scope="module")
def many():
    return gymnasium.make_vec(ID, num_envs=3, max_episode_steps=LIMIT)


def actions_of(steps, *shape):
    return np.random.default_rng(0).uniform(-1, 1, (steps, *shape)).astype(np.float32)


def test_every_environment_is_registered_with_its_time_limit():
    toy.register()
    gym.register()
    assert {f"goalax/{name}-v0" for name in ENVS} <= set(gymnasium.registry)
    assert gymnasium.spec(ID).max_episode_steps == 250
    assert gymnasium.spec("goalax/ant_u_maze-v0").max_episode_steps == 1000
    assert gymnasium.spec("goalax/toy_eval-v0").max_episode_steps == 10, "of a constructor that is a plain function"


def test_goalax_alone_imports_no_gymnasium():
    code = "import sys, goalax; goalax.make; assert not {'gymnasium', 'goalax.interop'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_sentence_where_gymnasium_is_missing():
    code = "import sys; sys.modules['gymnasium'] = None; import goalax.interop.gym"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("goalax.interop.gym needs Gymnasium: pip install gymnasium")


def test_gymnasium_finds_nothing_wrong(single):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_env(single.unwrapped, skip_render_check=True)
    words = [str(warning.message) for warning in told if "WARN" in str(warning.message)]  # those of Gymnasium
    assert words and all("infinity. This is probably too" in word for word in words), "states have no bounds"


@pytest.mark.slow
def test_gymnasium_finds_nothing_wrong_with_pictures(opengl):
    env = gymnasium.make(ID, render_mode="rgb_array", height=60, width=80).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of infinite boxes
        check_env(env)
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (60, 80, 3) and first.dtype == np.uint8 and np.ptp(first) > 100
    env.reset(seed=0, options={"start": [12, 12]})
    assert (env.render() != first).any()
    env.close()


@pytest.mark.slow
def test_the_step_after_the_end_is_a_fresh_start(many):
    assert many.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    observation, _ = many.reset(seed=0)
    assert observation in many.observation_space
    goals, ends = [observation["desired_goal"]], []
    for action in actions_of(3 * (LIMIT + 1), *many.action_space.shape):
        observation, reward, terminated, truncated, _ = many.step(action)
        assert observation in many.observation_space
        assert {part.dtype for part in (terminated, truncated)} == {np.dtype(bool)} and reward.dtype == np.float32
        assert not terminated.any() and truncated.all() == truncated.any()
        np.testing.assert_array_equal(observation["achieved_goal"], observation["observation"][:, :2])
        goals.append(observation["desired_goal"])
        ends.append(truncated[0])
        if len(ends) > 1 and ends[-2]:
            assert np.abs(observation["achieved_goal"] - 4).max() < 0.11 and (reward == 0).all(), "at the start R"
    assert np.flatnonzero(ends).tolist() == [LIMIT - 1, 2 * LIMIT, 3 * LIMIT + 1]
    changes = [(one != other).any() for one, other in itertools.pairwise(goals)]
    assert set(np.flatnonzero(changes)) <= {LIMIT, 2 * LIMIT + 1, 3 * LIMIT + 2} and any(changes)


def test_seeds_reproduce_and_many_are_as_one_by_one(many, single):
    actions = actions_of(LIMIT + 3, 3, 2)

    def play(seed):
        seen = [many.reset(seed=seed)[0]]
        return seen + [many.step(action)[0] for action in actions]

    one, same, other = play(5), play(5), play(6)
    for a, b, c in zip(one, same, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
        assert (a["observation"] != c["observation"]).any()
    alone = [single.reset(seed=6)[0]] + [single.step(action)[0] for action in actions[:LIMIT, 1]]
    again = [single.reset()[0]] + [single.step(action)[0] for action in actions[LIMIT + 1 :, 1]]
    for a, b in zip([*alone, *again], one, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y[1], atol=1e-5), a, b)


def test_goals_and_starts_by_hand(many, single):
    observation, info = many.reset(options={"goal": [4, 8], "start": [[4, 12], [12, 12], [8, 12]]})
    assert (observation["desired_goal"] == [4, 8]).all()
    assert np.abs(observation["achieved_goal"] - [[4, 12], [12, 12], [8, 12]]).max() < 0.11
    np.testing.assert_allclose(
        info["dist"], np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"], axis=1), rtol=1e-5
    )
    assert (single.reset(options={"goal": [12, 12]})[0]["desired_goal"] == [12, 12]).all()
    for _ in range(LIMIT + 1):
        observation = many.step(np.zeros((3, 2)))[0]
    assert np.abs(observation["achieved_goal"] - 4).max() < 0.11, "only of one episode"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"goal": [8, 4]}, "options['goal'] is 8,4; that is in a wall of the maze or outside of it, and the free cell"),
        ({"goal": [4, 8, 1]}, "options['goal'] is 4,8,1; a goal of this environment has 2 numbers, and this one 3."),
        ({"goal": [4, np.nan]}, "options['goal'] is 4,nan; its numbers must be finite."),
        ({"goal": "home"}, "options['goal'] is 'home'; it must be numbers."),
        ({"goal": np.full((2, 2), 4)}, "options['goal'] has shape [2, 2]; it must be one for all environments or"),
        ({"start": [0, 0]}, "options['start'] is 0,0; that is in a wall"),
        ({"start": 4}, "options['start'] is 4; a start of this environment has 2 numbers (where it stands)"),
        ({"gaol": [4, 4]}, "Unknown option 'gaol' of reset; choose from: goal, start."),
    ],
)
def test_one_sentence_for_what_cannot_be(many, options, words):
    with pytest.raises(ValueError, match="^") as caught:
        many.reset(options=options)
    assert str(caught.value).startswith(words) and str(caught.value).endswith(".")


def test_rewards_of_steps_are_those_of_their_goals(many, single):
    start = [[4, 12.2], [12, 12], [4, 9]]
    many.reset(seed=1, options={"goal": [4, 12], "start": start})
    rewards = []
    for action in actions_of(LIMIT, 3, 2):
        observation, reward, terminated, _, info = many.step(action)
        pair = observation["achieved_goal"], observation["desired_goal"]
        np.testing.assert_array_equal(reward, many.unwrapped.compute_reward(*pair, info))
        np.testing.assert_array_equal(terminated, many.unwrapped.compute_terminated(*pair, info))
        assert not many.unwrapped.compute_truncated(*pair, info).any()
        rewards.append(reward)
    assert (np.array(rewards) == [1, 0, 0]).all()
    goals = np.array([[[0, 0], [0.4, 0]], [[0, 0.6], [3, 4]]], np.float32)
    assert single.unwrapped.compute_reward(goals, np.zeros_like(goals), {}).tolist() == [[1, 1], [0, 0]]
    assert single.unwrapped.compute_reward(goals[0, 1], goals[0, 0], {}) == 1.0
    infos = np.array([{"terminated": True}, {"terminated": False}])
    assert single.unwrapped.compute_terminated(goals[0], goals[0], infos).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"Expected two arrays of goals \[..., 2\], got \[2, 2\] and \[2\]."):
        single.unwrapped.compute_reward(goals[0], goals[0, 0], {})


def test_success_that_an_environment_defines_by_itself():
    env = gymnasium.make("goalax/pusher2-v0").unwrapped
    goal = np.zeros(6, np.float32)
    near, far = np.array([0.02, 0, 0, 0, 0.02, 0]), np.array([0.01, 0, 0, 0.3, 0, 0])
    assert env.compute_reward(np.float32([near, far]), np.stack([goal, goal])).tolist() == [1, 0]


def test_a_dense_reward_cannot_be_relabelled():
    env = gymnasium.make("goalax/reacher-v0", dense_reward=True).unwrapped
    with pytest.raises(ValueError, match="A dense reward is no function of the two goals"):
        env.compute_reward(np.zeros(3), np.zeros(3), {})


def test_an_episode_that_ended_for_good_starts_anew_alone(many):
    """A point mass cannot fall: the physics of the first one is broken by an action that is no number."""
    before, _ = many.reset(seed=0)
    observation, _, terminated, truncated, info = many.step(np.array([[np.nan, 0], [1, 0], [1, 0]], np.float32))
    assert terminated.tolist() == info["terminated"].tolist() == [True, False, False] and not truncated.any()
    assert (observation["observation"][0] == before["observation"][0]).all(), "the last state that was one"
    after, _, terminated, _, _ = many.step(np.zeros((3, 2), np.float32))
    assert not terminated.any() and (after["observation"][0] != observation["observation"][0]).all()
    assert (after["desired_goal"][1:] == observation["desired_goal"][1:]).all()
    for step in range(LIMIT - 1):  # the first one began a step later than those that went on
        truncated = many.step(np.zeros((3, 2), np.float32))[3]
        assert truncated.tolist() == [False, step == LIMIT - 3, step == LIMIT - 3]


@pytest.mark.slow
def test_jax_arrays_on_request():
    env = gymnasium.make_vec(ID, num_envs=2, arrays="jax")
    observation, info = env.reset(seed=0)
    stepped = env.step(jnp.zeros((2, 2)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((observation, info, stepped)))
    reward = env.unwrapped.compute_reward(observation["achieved_goal"], observation["desired_goal"])
    assert isinstance(reward, jax.Array) and reward.shape == (2,)


@pytest.mark.slow
def test_gymnasium_steps_single_ones_side_by_side_too():
    env = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync")
    observation, _ = env.reset(seed=0)
    assert observation["observation"].shape == (2, 4) and env.step(env.action_space.sample())[1].shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"render_mode": "ansi"}, "render_mode is 'ansi'; choose from: None, rgb_array."),
        ({"arrays": "torch"}, "arrays is 'torch'; choose from: numpy, jax."),
        ({"num_envs": 0}, "num_envs is 0; it must be at least 1."),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; it must be at least 1, or -1 for none."),
        ({"backend": "warp"}, "Unsupported backend: warp. Choose from: spring, mjx, positional, generalized."),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError) as caught:
        gym.GoalaxVectorEnv("simple_u_maze", **arguments)
    assert str(caught.value) == words


def test_steps_need_a_reset_and_actions_that_fit(single):
    env = gymnasium.make_vec(ID, num_envs=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"Expected actions \[2, 2\], got \[2\]."):
        env.step(np.zeros(2))
    single.reset(seed=0)
    with pytest.raises(ValueError, match=r"Expected an action \[2\], got \[3\]."):
        single.unwrapped.step(np.zeros(3))
