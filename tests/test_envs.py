"""What is expected of every environment, under random actions and on frozen physics; and `create_env`."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.core import rollout
from goalax.envs import ENVS, GoalEnv, create_env
from goalax.envs.control import TASKS
from goalax.envs.maze import MAZES
from tests.helpers.envs import NUM_ENVS, STEPS, frozen, keys

CLASSES = {name: getattr(ENVS[name], "func", ENVS[name]) for name in ENVS}
NAMES = [name for name in ENVS if CLASSES[name].__module__.startswith("goalax.envs.") and name not in TASKS]
# Mazes of a body differ by their pictures (test_maze_bodies.py): here, one with few walls and one with many shall do.
MAZE_NAMES = [f"{body}_{layout}" for body, layouts in MAZES.items() for layout in layouts]
SHOWN = ("_u_maze", "_ball_big_maze", "_hardest_maze", "_u_maze_gen_1f2f3f")
NAMES = [name for name in NAMES if name not in MAZE_NAMES or name.endswith(SHOWN)]
FIRST = {CLASSES[name].__module__: name for name in reversed(NAMES)}.values()  # one environment of each body

# Body -> sizes of state and action, goal indices, thresholds (success, easy, hard), default backend.
SPEC = {
    "reacher": (10, 2, (4, 5, 6), (0.05, None, None), "generalized"),
    "cheetah": (18, 6, (0,), (0.5, 2.0, None), "mjx"),
    "pusher": (20, 7, (10, 11, 12), (0.1, None, 0.05), "generalized"),
    "pusher2": (23, 7, tuple(range(10, 16)), (0.1, None, None), "generalized"),
    "pusher_reacher": (17, 7, (14, 15, 16), (0.1, None, 0.05), "generalized"),
    "ant": (29, 8, (0, 1), (0.5, 2.0, None), "spring"),
    "ant_ball": (31, 8, (29, 30), (0.5, 2.0, None), "spring"),
    "ant_push": (31, 8, (0, 1), (0.5, 2.0, None), "mjx"),
    "humanoid": (246, 17, (0, 1, 2), (0.5, 2.0, None), "spring"),
    "arm_reach": (13, 4, (7, 8, 9), (0.1, 0.3, 0.03), "mjx"),
    "arm_grasp": (24, 5, (0, 1, 2, *range(16, 22)), (0.1, 0.3, 0.03), "mjx"),
    "arm_push": (18, 5, (0, 1, 2), (0.1, 0.3, 0.03), "mjx"),
    "arm_binpick": (18, 5, (0, 1, 2), (0.1, 0.3, 0.03), "mjx"),
    "simple": (4, 2, (0, 1), (0.5, 2.0, None), "spring"),
}

# Environments whose law has one goal, or one start.
ONE_GOAL = ("cheetah", "arm_binpick_easy")
ONE_START = tuple(name for name in NAMES if name.startswith("humanoid"))
FEW_STARTS = tuple(name for name in ONE_START if "_gen_" in name)  # the cells of a corridor

ADVERTISED = [(name, backend) for name in NAMES for backend in CLASSES[name].backends]

# What compiles an environment does so for one of each body; for the others only on request, since they differ in laws
# that the tests of their body prove.
ONE_OF_EACH_BODY = [pytest.param(name, marks=() if name in FIRST else pytest.mark.table) for name in NAMES]
every_env = pytest.mark.parametrize("name", NAMES)
# The bodies of this release, whose sizes are known; what else is asked here holds for any environment.
KNOWN = [name for name in NAMES if any(name.startswith(f"{body}_") or name == body for body in SPEC)]
every_body = pytest.mark.parametrize("name", ONE_OF_EACH_BODY)
# One of each body on its default backend and on the others; what is new is stepped by default. Those whose step takes
# half a minute to compile, and whose own tests step them too, wait for `-m table`.
SLOW_TO_COMPILE = {"ant_ball", "arm_reach", "humanoid", "pusher_easy"}
LONG_TO_COMPILE = {"ant_push", "cheetah", "pusher2"}


def one_of_each_body(long_ones):
    """ONE_OF_EACH_BODY for tests that compile much of an environment; long_ones: the mark of LONG_TO_COMPILE."""

    def marks_of(name):
        if name not in FIRST:
            return pytest.mark.table
        slow = pytest.mark.slow if name in SLOW_TO_COMPILE else ()
        return long_ones if name in LONG_TO_COMPILE else slow

    return [pytest.param(name, marks=marks_of(name)) for name in NAMES]


STEPPED = one_of_each_body(long_ones=pytest.mark.table)
PAIRS = [
    *(pytest.param(*param.values, None, marks=param.marks) for param in STEPPED),
    *(
        pytest.param(
            name,
            backend,
            marks=pytest.mark.slow if name == "simple_u_maze" else pytest.mark.table,
            id=f"{name}-{backend}",
        )
        for name, backend in ADVERTISED
        if name in FIRST and backend != CLASSES[name].backends[0]
    ),
]


def of_one_point(name):
    """Whether success is one point at another; the tests of a body that measures otherwise prove what it measures."""
    return CLASSES[name].measures is GoalEnv.measures


# ---- Every environment -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_sizes_are_those_of_the_specification(name):
    env = create_env(name)
    body = max((body for body in SPEC if name.startswith(body)), key=len)
    thresholds = (env.goal_reach_thresh, env.goal_easy_thresh, env.goal_hard_thresh)
    assert (env.state_dim, env.action_size, env.goal_indices, thresholds, env.backend) == SPEC[body]
    assert env.goal_dim == len(env.goal_indices)
    assert env.observation_size == env.state_dim + env.goal_dim
    assert env.episode_length > 0 and env.help


@pytest.mark.parametrize("name", one_of_each_body(long_ones=pytest.mark.slow))
def test_reset(env_functions, name):
    env, reset, _ = env_functions(name)
    states = reset(keys(0))
    state, goal = states.obs[:, : env.state_dim], states.obs[:, env.state_dim :]
    assert states.obs.shape == (NUM_ENVS, env.observation_size) and np.isfinite(states.obs).all()
    np.testing.assert_array_equal(goal, states.info["goal"])
    np.testing.assert_array_equal(env.goal_of(state), state[:, list(env.goal_indices)])
    if of_one_point(name):
        dist = np.linalg.norm(env.goal_of(state) - goal, axis=-1)
        np.testing.assert_allclose(states.metrics["dist"], dist, rtol=1e-5)
    assert not states.done.any() and not states.reward.any()
    np.testing.assert_array_equal(states.obs, reset(keys(0)).obs)
    starts, goals = (len(np.unique(values, axis=0)) for values in (state, goal))
    assert goals == 1 if name in ONE_GOAL else goals >= (2 if name in MAZE_NAMES else NUM_ENVS)
    if name in FEW_STARTS:
        assert 1 < starts <= NUM_ENVS
    else:
        assert starts == (1 if name in ONE_START else NUM_ENVS)


@pytest.mark.parametrize("name, backend", PAIRS)
def test_random_steps_stay_finite(env_functions, name, backend):
    env, reset, run = env_functions(name, backend)
    big_maze = name in MAZE_NAMES and not name.endswith("u_maze")
    states = reset(keys(0))
    goal, rng = np.asarray(states.info["goal"]), np.random.default_rng(0)
    for _ in range(200 // STEPS if big_maze or backend else 400 // STEPS):  # -m table: 1,000 of each
        actions = rng.uniform(-1, 1, (STEPS, NUM_ENVS, env.action_size)).astype(np.float32)
        states, trace = run(states, actions)
        for leaf in jax.tree.leaves((states, trace)):
            assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(trace.obs[..., env.state_dim :], np.broadcast_to(goal, (STEPS, *goal.shape)))
        np.testing.assert_array_equal(trace.reward, trace.metrics["success"])
        if of_one_point(name):
            np.testing.assert_array_equal(trace.metrics["success"], trace.metrics["dist"] < env.goal_reach_thresh)
    assert (np.asarray(trace.obs[-1] != trace.obs[-2]).any(axis=-1)).all()  # they still move


@pytest.mark.table
@pytest.mark.parametrize("name, backend", ADVERTISED)
def test_backend_is_supported(name, backend, record_property):
    """A backend counts as supported if 64 environments stay finite for 1,000 random steps, as training takes them."""
    env, started = create_env(name, backend), time.perf_counter()

    def policy(state, goal, key):
        return jax.random.uniform(key, (64, env.action_size), minval=-1.0)

    def run(key):
        start, lengths = rollout.init(env, key, 64), {"length": 1000, "episode_length": 1001, "action_repeat": 1}
        _, rows = rollout.unroll(env, rollout.memoryless(policy), start, jnp.int32(0), key, **lengths)
        return jnp.isfinite(rows.state).all(axis=(1, 2)) & jnp.isfinite(rows.reward).all(axis=1)

    steps = int(np.cumprod(jax.jit(run)(jax.random.key(0))).sum())
    seconds = time.perf_counter() - started
    record_property("table", f"{name:<24}{backend:<14}finite for {steps:>5} steps{seconds:>8.0f} s")
    assert steps == 1000


@pytest.mark.parametrize("name", STEPPED)
def test_state_placed_at_the_goal_is_a_success(env_functions, name):
    env, reset, run = env_functions(name)
    states = reset(keys(1))
    states = states.replace(info={"goal": env.goal_of(states.obs[:, : env.state_dim])})
    _, trace = run(states, np.zeros((STEPS, NUM_ENVS, env.action_size), np.float32))
    assert trace.reward[0].all() and trace.metrics["success"][0].all()


@pytest.mark.parametrize("name", [param for param in ONE_OF_EACH_BODY if of_one_point(*param.values)])
def test_thresholds(env_functions, name):
    env, state = frozen(env_functions, name)
    achieved = env.goal_of(state.obs[: env.state_dim])
    thresholds = {
        "success": env.goal_reach_thresh,
        "success_easy": env.goal_easy_thresh,
        "success_hard": env.goal_hard_thresh,
    }
    thresholds = {metric: limit for metric, limit in thresholds.items() if limit is not None}
    step = jax.jit(env.step)
    for limit in thresholds.values():
        for dist in (0.99 * limit, 1.01 * limit):
            after = step(state.replace(info={"goal": achieved.at[0].add(dist)}), jnp.zeros(env.action_size))
            assert set(after.metrics) == {"dist", "broken", *thresholds}
            np.testing.assert_allclose(after.metrics["dist"], dist, rtol=1e-4)
            for metric, other in thresholds.items():
                assert after.metrics[metric] == (dist < other), metric
            assert after.reward == after.metrics["success"]


@every_body
def test_actions_are_clipped(env_functions, name):
    env, state = frozen(env_functions, name)
    seen = []
    env.pipeline_step = lambda pipeline_state, action: (seen.append(action), pipeline_state)[1]
    action = np.linspace(-3, 3, env.action_size).astype(np.float32)
    env.step(state, action)
    np.testing.assert_array_equal(seen[0], np.clip(action, -1, 1))


@pytest.mark.parametrize("name", ["reacher", "simple_u_maze", "ant"])
def test_stepping_many_in_a_scan_agrees_with_stepping_one(env_functions, name):
    env, reset, run = env_functions(name)
    states = reset(keys(2))
    actions = np.random.default_rng(2).uniform(-1, 1, (STEPS, NUM_ENVS, env.action_size)).astype(np.float32)
    _, trace = run(states, actions)
    alone, step = jax.tree.map(lambda leaf: leaf[3], states), jax.jit(env.step)
    for t in range(5):
        alone = step(alone, actions[t, 3])
        np.testing.assert_allclose(trace.obs[t, 3], alone.obs, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(trace.metrics["dist"][t, 3], alone.metrics["dist"], rtol=1e-3, atol=1e-4)


# ---- create_env ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("antt", "Unknown environment: antt. Choose from: ant, "),
        ("", "Unknown environment: . Choose from: "),
        ("dog_u_maze", "Unknown environment: dog_u_maze. Choose from: "),
        ("ant_foo_maze", "Unknown maze layout: foo_maze. Choose from: u_maze, "),
        ("ant_maze", "Unknown maze layout: maze. Choose from: "),
        ("simple_u_maze_evals", "Unknown maze layout: u_maze_evals. Choose from: u_maze_eval, "),
        ("ant_ball_u_maze_eval", "Unknown maze layout: ball_u_maze_eval. Choose from: "),
        ("ant_u_maze_gen_2f", "Unknown maze layout: u_maze_gen_2f. Choose from: u_maze_gen_1f2f, "),
    ],
)
def test_unknown_names_list_the_choices(name, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as error:
        create_env(name)
    listed = set(re.split(", ", str(error.value).split("Choose from: ")[1].rstrip(".")))
    assert listed == (set(ENVS) if "environment" in sentence else set(MAZES[name.split("_")[0]]))


@every_env
def test_unsupported_backend_lists_the_supported_ones(name):
    backends = ", ".join(CLASSES[name].backends)
    with pytest.raises(ValueError, match=f"^Unsupported backend: warp. Choose from: {backends}.$"):
        create_env(name, backend="warp")


def test_missing_dense_reward_is_an_error():
    with pytest.raises(ValueError, match="no dense reward"):
        create_env("simple_u_maze", dense_reward=True)
