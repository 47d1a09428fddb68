"""Input normalisation: what is fitted, and that the wrapped agent sees normalised values everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.core.normalization import SMALLEST_SPREAD, Affine, NormalizedState, fit, normalized
from goalax.core.train import Loop
from goalax.core.types import Agent, Batch, Path, Spec, Subgoals, Transition, Waypoint
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy

toy.register()

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(3, 1), discounting=0.9, goal_reach_thresh=1)
STATE_MAP = Affine(jnp.arange(5.0), jnp.arange(1.0, 6.0))
GOAL_MAP = Affine(jnp.array([-1.0, 2.0]), jnp.array([0.5, 4.0]))

# An agent that tells what it was given: its state holds nothing but the key of init.
SPY = Agent(
    init=lambda key: {"key": key},
    act=lambda agent, state, goal, key: (agent, state, goal, key),
    mode=lambda agent, state, goal: (agent, state, goal),
    update=lambda agent, batch, key: ({"key": agent["key"] + 1}, {"batch": batch, "key": key}),
)


def make_rows(goal_scale=10.0):
    """[6, 4] rows; state coordinate 4 is constant, coordinate 2 varies by less than SMALLEST_SPREAD."""
    rng = np.random.default_rng(0)
    state = rng.normal([1, -2, 5, 0.5, 7], [1, 2, SMALLEST_SPREAD / 10, 0.1, 0], (6, 4, 5)).astype(np.float32)
    goal = rng.normal([0, 3], [goal_scale, goal_scale], (6, 4, 2)).astype(np.float32)
    other = np.zeros((6, 4), np.float32)
    return Transition(state, goal, np.zeros((6, 4, 3), np.float32), other, other, other.astype(np.int32))


@pytest.mark.parametrize("goal_scale", [10.0, 1e-4])
def test_fit_equals_numpy(goal_scale):
    rows = make_rows(goal_scale)
    state_map, goal_map = jax.jit(fit, static_argnums=1)(rows, SPEC)
    states, goals = rows.state.reshape(-1, 5).astype(float), rows.goal.reshape(-1, 2).astype(float)
    mean, spread = states.mean(0), states.std(0)
    for g, i in enumerate(SPEC.goal_indices):
        spread[i] = max(spread[i], np.sqrt(((goals[:, g] - mean[i]) ** 2).mean()))
    spread[[2, 4]] = 1  # constant coordinates keep their unit
    np.testing.assert_allclose(state_map.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(state_map.spread, spread, rtol=1e-4)
    np.testing.assert_array_equal(goal_map.mean, state_map.mean[jnp.array(SPEC.goal_indices)])
    np.testing.assert_array_equal(goal_map.spread, state_map.spread[jnp.array(SPEC.goal_indices)])


def test_spread_of_goal_coordinates_is_the_larger_one():
    far, near = (make_rows(scale) for scale in (1000.0, 1e-4))
    near = near._replace(goal=np.broadcast_to(near.state.mean((0, 1))[[3, 1]], (6, 4, 2)))
    spread = {name: np.asarray(fit(rows, SPEC)[0].spread) for name, rows in {"far": far, "near": near}.items()}
    achieved = far.state.std((0, 1))
    assert (spread["far"][[3, 1]] > 300).all()
    np.testing.assert_allclose(spread["near"][[3, 1]], achieved[[3, 1]], rtol=1e-4)
    np.testing.assert_allclose(spread["far"][0], achieved[0], rtol=1e-4)


def test_a_goal_coordinate_that_varies_nowhere_keeps_its_unit():
    """Else a commanded goal would be as far from achieved ones as can be, in what no actor trains on (a table)."""
    rows = make_rows()
    state, goal = rows.state.copy(), rows.goal.copy()
    state[..., SPEC.goal_indices[0]], goal[..., 0] = -0.275, -0.323
    spread = np.asarray(fit(rows._replace(state=state, goal=goal), SPEC)[1].spread)
    assert spread[0] == 1 and spread[1] > 5
    varied = goal.copy()
    varied[0, 0, 0] = 0.2  # where commanded goals vary, their distance from the achieved one counts
    assert np.asarray(fit(rows._replace(state=state, goal=varied), SPEC)[1].spread)[0] < 0.2


def test_achieved_goal_maps_as_the_state_it_comes_from():
    rows = make_rows()
    state_map, goal_map = fit(rows, SPEC)
    indices = jnp.array(SPEC.goal_indices)
    np.testing.assert_array_equal(state_map(rows.state)[..., indices], goal_map(rows.state[..., indices]))
    normal = np.asarray(state_map(rows.state))
    np.testing.assert_allclose(normal.mean((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(normal.std((0, 1))[0], 1, rtol=1e-4)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_affine_keeps_leading_axes(lead):
    x = np.random.default_rng(0).standard_normal((*lead, 5)).astype(np.float32)
    mapped = STATE_MAP(x)
    assert mapped.shape == x.shape
    np.testing.assert_allclose(mapped, (x - np.arange(5)) / np.arange(1, 6), rtol=1e-6)


def test_identity_until_statistics_are_set():
    agent = normalized(SPY, SPEC)
    state = agent.init(jnp.int32(7))
    assert isinstance(state, NormalizedState) and state.agent == {"key": 7}
    observed, goal = jnp.array([1e5, -3.0, 1e-6, 0.0, 2.0]), jnp.array([4.0, -5.0])
    _, seen, seen_goal = agent.mode(state, observed, goal)
    np.testing.assert_array_equal(seen, observed)
    np.testing.assert_array_equal(seen_goal, goal)


@pytest.fixture
def fitted():
    agent = normalized(SPY, SPEC)
    return agent, agent.init(jnp.int32(7))._replace(state_map=STATE_MAP, goal_map=GOAL_MAP)


def test_act_and_mode_see_normalised_values(fitted):
    agent, state = fitted
    observed, goal = jnp.arange(10.0).reshape(2, 5) ** 2, jnp.array([[1.0, 2.0], [3.0, 4.0]])
    for inner, seen, seen_goal, *key in (agent.act(state, observed, goal, "key"), agent.mode(state, observed, goal)):
        assert inner is state.agent
        np.testing.assert_array_equal(seen, STATE_MAP(observed))
        np.testing.assert_array_equal(seen_goal, GOAL_MAP(goal))
        assert key in ([], ["key"])


def test_update_sees_normalised_values_and_keeps_the_maps(fitted):
    agent, state = fitted
    rng = np.random.default_rng(0)
    states = ("state", "next_state", "future_state", "actor_state")
    sizes = dict.fromkeys(states, 5) | {"goal": 2, "action": 3, "future_action": 3}
    batch = {name: rng.standard_normal((4, size)).astype(np.float32) for name, size in sizes.items()}
    batch = Batch(**batch, reward=np.arange(4.0), future_reward=np.arange(4.0) / 3, discount=np.arange(4.0) / 5)
    batch = batch._replace(subgoals=Subgoals(*rng.standard_normal((2, 4, 5)).astype(np.float32)))
    way = rng.standard_normal((4, 3, 5)).astype(np.float32)
    batch = batch._replace(
        path=Path(way, *rng.standard_normal((4, 4, 2))), waypoint=Waypoint(way[:, 0], *np.eye(4)[:3])
    )
    after, told = agent.update(state, batch, "key")
    seen, key = told["batch"], told["key"]
    maps = dict.fromkeys(states, STATE_MAP) | {"goal": GOAL_MAP}
    maps["subgoals"] = lambda both: Subgoals(*map(STATE_MAP, both))
    maps |= dict.fromkeys(("path", "waypoint"), lambda parts: parts._replace(state=STATE_MAP(parts.state)))
    for name, value in batch._asdict().items():
        expected = maps[name](value) if name in maps else value
        jax.tree.map(np.testing.assert_array_equal, getattr(seen, name), expected)
    assert key == "key"
    assert after.agent == {"key": 8}
    assert after.state_map is state.state_map and after.goal_map is state.goal_map


def test_a_run_is_normalised_by_the_rows_of_its_prefill():
    """And not by the zeros of a buffer that holds several times as many."""
    run = make_run(*read_flags([*toy.TINY, "--min_replay_size", "10", "--max_replay_size", "40"]))
    agent = normalized(AGENTS["crl"].make(run.agent_config, run.spec), run.spec)
    loop = Loop(run.env, run.eval_env, agent, run.spec, run.sizes, normalize=True)
    state = jax.jit(lambda key: loop.fit(loop.advance(loop.init(key), run.sizes.prefill_unrolls, 0)))(run.keys(0))
    rows = jax.device_get(state.buffer.rows)
    assert rows.state.shape[0] == 40 and int(state.buffer.count) == 10
    states, goals = (part[:10].reshape(-1, 2).astype(float) for part in (rows.state, rows.goal))
    mean = states.mean(0)
    spread = np.maximum(states.std(0), np.sqrt(((goals - mean) ** 2).mean(0)))  # `toy`'s states are its goals
    for fitted in (state.agent.state_map, state.agent.goal_map):
        np.testing.assert_allclose(fitted.mean, mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(fitted.spread, spread, rtol=1e-4)


@pytest.mark.parametrize("name", ["crl", "cmd", "chronosrl"])  # CMD's critic sees the action in the future too
def test_score_of_a_run_is_the_agents_own_on_normalised_values(name):
    run = make_run(*read_flags([*toy.TINY, "--agent", name, "--repr_dim", "16"]))
    train, sizes = run.train, run.sizes
    state = train.fit(train.advance(train.init(run.keys(0)), sizes.prefill_unrolls, 0))
    state = train.advance(state, 1, sizes.updates_per_unroll)
    agent, learned = AGENTS[name].make(run.agent_config, run.spec), state.agent.agent

    def by_hand(fitted, x):
        mean, spread = (np.asarray(values)[None] for values in fitted)
        assert np.all(np.abs(mean) > 1e-3) and np.all(np.abs(spread - 1) > 0.1)  # it changes something
        return (x - mean) / spread

    observed, future = np.random.default_rng(0).uniform(-1, 1, (2, 16, 2)).astype(np.float32)
    here, there = (by_hand(state.agent.state_map, x) for x in (observed, future))
    np.testing.assert_allclose(by_hand(state.agent.goal_map, future), there)  # `toy`'s states are its goals
    expected = agent.score(learned, here, there)
    np.testing.assert_allclose(train.score(state, observed, future), expected, rtol=1e-5)
