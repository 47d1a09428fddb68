"""Returns to go: of stored rows, of what an agent is told of its rewards, and a Decision Transformer that is asked for
them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.agents.dt import DecisionTransformer, DTConfig, windows_to_go
from goalax.core import buffer, returns, rollout
from goalax.core.normalization import normalized
from goalax.core.types import Batch, Needs, Path
from goalax.data import files
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.learning.transformer import Transformer
from tests.helpers import toy_rewards
from tests.helpers.counter import Counter
from tests.helpers.offline import NO_GOALS, SPEC, close, golden
from tests.helpers.rings import filled_ring

toy_rewards.register()

SMALL = {"context_length": 4, "n_blocks": 1, "heads": 2, "h_dim": 8, "warm_up": 1, "target_return": 6.0}
SMALL |= {"return_scale": 2.0, "dropout": 0.0}


to_go = jax.jit(returns.to_go)


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def agent_of(spec=NO_GOALS, **flags):
    return AGENTS["dt"].make(DTConfig(**{**SMALL, **flags}), spec)


def louder(params):
    """Parameters far enough from those of the start for everything to matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), params)


def started(agent):
    state = jax.jit(agent.init)(jax.random.PRNGKey(1))
    return state._replace(params=louder(state.params))


# ---- Of stored rows --------------------------------------------------------------------------------------------------


def test_golden_returns_to_go():
    """Episodes have one more row here, in which they ended; its reward means nothing."""
    g = golden("returns_to_go")
    parts = [(g["reward"][a:b], b - a) for a, b in zip(g["episode_bounds"], g["episode_bounds"][1:], strict=False)]
    reward = np.concatenate([np.append(part, np.nan) for part, _ in parts])
    start = np.repeat(np.cumsum([0, *(size + 1 for _, size in parts)])[:-1], [size + 1 for _, size in parts])
    found = to_go(jnp.asarray(reward, jnp.float32)[:, None], jnp.asarray(start)[:, None], len(reward))[:, 0]
    ends = np.append(start[1:] != start[:-1], True)
    close(found[~ends], g["undiscounted"])
    close(found[~ends] / 1000, g["scaled_1000"])
    np.testing.assert_array_equal(found[ends], 0)


@pytest.mark.parametrize("first", [0, 5])
def test_returns_to_go_of_a_ring_that_has_wrapped(first):
    ring = filled_ring(first)
    found = np.asarray(to_go(ring.rows.reward, ring.rows.episode_start, ring.count))
    start, reward, count = (np.asarray(x) for x in (ring.rows.episode_start, ring.rows.reward, ring.count))
    expected = np.zeros_like(found)
    for column in range(2):
        for row in range(count - 12, count - 1):
            for later in range(row, count - 1):
                if start[(later + 1) % 12, column] != start[row % 12, column]:
                    break
                expected[row % 12, column] += reward[later % 12, column]
    close(found, expected)
    assert np.sum(found != 0) == 2 * (12 - np.sum(np.diff(start[np.arange(count - 12, count) % 12, 0]) != 0) - 1)


def test_rows_that_were_never_written_add_nothing():
    ring = filled_ring(0)
    rows = ring.rows._replace(episode_start=jnp.zeros((12, 2), jnp.int32))
    found = to_go(rows.reward, rows.episode_start, jnp.int32(8))
    close(found[0], jnp.sum(rows.reward[:7], axis=0))


def test_batches_tell_returns_only_to_who_asks():
    ring, spec = filled_ring(0), SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,))
    all_of_it = to_go(ring.rows.reward, ring.rows.episode_start, ring.count)
    needs, key = Needs(horizon=2, to_go=True), jax.random.PRNGKey(0)
    chosen = jax.jit(lambda: buffer.choose(ring, key, 50, needs, 0.9, 5))()
    batch = jax.jit(lambda: buffer.sample(ring, key, 50, spec, 5, needs))()
    close(batch.to_go, np.asarray(all_of_it)[np.asarray(chosen.slot), np.asarray(chosen.column)])
    later = np.asarray(all_of_it)[np.asarray(chosen.next_slot), np.asarray(chosen.column)]
    close(windows_to_go(batch.to_go, batch.path.reward)[:, 1], later)
    untold = jax.eval_shape(lambda: buffer.sample(ring, key, 50, spec, 5, Needs(horizon=2)))
    assert untold.to_go is None


# ---- What is told while it acts --------------------------------------------------------------------------------------


def listener():
    """A policy that remembers the rewards that it was told, and how often."""
    act = lambda memory, state, goal, key: (0.1 * state[:, 1:2] + goal, memory)  # noqa: E731
    start = lambda num: (jnp.zeros(num), jnp.zeros(num, jnp.int32))  # noqa: E731
    told = lambda memory, reward: (memory[0] + reward, memory[1] + 1)  # noqa: E731
    return rollout.Policy(act, start, lambda memory: {"told": memory[0], "times": memory[1]}, told)


@pytest.mark.parametrize("action_repeat", [1, 3])
def test_what_collects_is_told_the_rewards_that_are_stored(action_repeat):
    env, policy = Counter((0, 7)), listener()

    def unroll(envs):
        sizes = {"length": 20, "episode_length": 12, "action_repeat": action_repeat}
        return rollout.unroll(env, policy, envs, jnp.int32(0), jax.random.PRNGKey(1), **sizes)

    envs = jax.jit(lambda: rollout.init(env, jax.random.PRNGKey(0), 4, policy.start(4)))()
    after, rows = jax.device_get(jax.jit(unroll)(envs))
    told, times = after.memory
    assert len(set(rows.episode_start[-1])) > 1  # they ended at different times
    for column, start in enumerate(np.asarray(after.episode_start)):
        np.testing.assert_allclose(told[column], np.sum(rows.reward[start:, column]), rtol=1e-5)
        assert times[column] == len(rows.reward) - start


@pytest.mark.parametrize("action_repeat", [1, 3])
def test_what_is_evaluated_is_told_all_rewards_of_its_episode(action_repeat):
    """Those before a termination, after which nothing counts."""
    sizes = {"num_envs": 5, "episode_length": 12, "action_repeat": action_repeat}
    key = jax.random.PRNGKey(0)
    metrics = jax.jit(lambda: rollout.evaluate(Counter((0, 7)), listener(), key, **sizes)[0])()
    np.testing.assert_allclose(metrics["told"], metrics["episode_reward"], rtol=1e-5)
    assert metrics["times"] == 12 // action_repeat and metrics["falls"] > 0


def test_normalising_inputs_leaves_rewards_as_they_are():
    agent = normalized(agent_of(), NO_GOALS)
    memory, held = agent.memory, agent.memory.start(jax.jit(agent.init)(jax.random.PRNGKey(0)), 2)
    np.testing.assert_allclose(memory.reward(held, jnp.array([1.0, 2.0])).left, [[5.0], [4.0]])
    assert normalized(agent_of(SPEC, target_return=1e3, return_scale=1e3), SPEC).memory.reward is None


# ---- The Decision Transformer ----------------------------------------------------------------------------------------


def windows(size=6, horizon=4):
    nothing = jnp.zeros((size, horizon))
    states, actions = normal(0, size, horizon + 1, 5), jnp.tanh(normal(1, size, horizon, 3))
    path = Path(states, actions, normal(4, size, horizon), nothing, nothing + 1)
    first = path.state[:, 0], path.action[:, 0], path.state[:, 1], jnp.zeros((size, 0)), path.state[:, 1]
    batch = Batch(*first, path.action[:, 0], path.reward[:, 0], *[nothing[:, 0]] * 2, to_go=3 * normal(3, size))
    return batch._replace(path=path) if horizon > 1 else batch


def test_tokens_are_returns_states_and_actions_in_this_order():
    """Against the transformer alone, by NumPy around it."""
    transformer = Transformer(1, 2)
    net, inputs = DecisionTransformer(transformer, 8, 3), [normal(i, 5, 3, size) for i, size in enumerate((1, 4, 2))]
    params = louder(jax.jit(net.init)(jax.random.PRNGKey(3), *inputs))
    p, (asked, state, action) = jax.tree.map(np.asarray, params["params"]), map(np.asarray, inputs)
    dense = lambda number, x: x @ p[f"Dense_{number}"]["kernel"] + p[f"Dense_{number}"]["bias"]  # noqa: E731
    of_each = [dense(number, x) + p["places"] for number, x in ((2, asked), (0, state), (1, action))]
    tokens = np.stack([part[:, t] for t in range(3) for part in of_each], axis=1)[:, :-1]
    middle, spread = tokens.mean(-1, keepdims=True), tokens.std(-1, keepdims=True)
    norm = p["LayerNorm_0"]
    tokens = (tokens - middle) / np.sqrt(spread**2 + 1e-6) * norm["scale"] + norm["bias"]
    seen = jax.jit(transformer.apply)({"params": p["transformer"]}, jnp.asarray(tokens, jnp.float32))
    expected = dense(3, np.asarray(seen)[:, [1, 4, 7]])
    np.testing.assert_allclose(jax.jit(net.apply)(params, *inputs), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("horizon", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_loss_is_that_of_acting_through_the_windows_with_their_rewards(horizon):
    agent, batch = agent_of(context_length=horizon, return_scale=0.5), windows(horizon=horizon)
    assert agent.needs == Needs(horizon=horizon, to_go=True)
    state = started(agent)
    _, metrics = jax.jit(agent.update)(state, batch, jax.random.PRNGKey(2))
    mode, path = jax.jit(agent.memory.mode), batch.path
    if path is None:
        path = Path(batch.state[:, None], batch.action[:, None], batch.reward[:, None], None, None)
    held, errors = agent.memory.start(state, 6)._replace(left=batch.to_go[:, None]), []
    for t in range(horizon):
        action, held = mode(state, held, path.state[:, t], batch.goal)
        errors.append(np.sum((np.asarray(action) - np.asarray(path.action[:, t])) ** 2, axis=-1))
        held = held._replace(action=held.action.at[:, t].set(path.action[:, t]))
        held = agent.memory.reward(held, path.reward[:, t])
    np.testing.assert_allclose(metrics["actor_loss"], np.mean(errors), rtol=1e-4)


def test_what_is_left_to_ask_for_is_the_target_less_the_rewards():
    """Also where the context has lost its oldest steps; and it matters to what it does."""
    agent = agent_of(context_length=2)
    state, nothing = started(agent), jnp.zeros((2, 0))
    held, rewards = agent.memory.start(state, 2), np.array([[1.0, 0.5], [2.0, 0.25], [0.5, 8.0]])
    mode = jax.jit(agent.memory.mode)
    for t in range(3):
        _, held = mode(state, held, normal(t, 2, 5), nothing)
        left = 6 - rewards[:t].sum(axis=0)
        np.testing.assert_allclose(held.to_go[:, min(t, 1), 0], left, rtol=1e-6)
        held = agent.memory.reward(held, jnp.asarray(rewards[t]))
    np.testing.assert_allclose(held.to_go[:, 0, 0], 6 - rewards[0], rtol=1e-6)
    np.testing.assert_allclose(held.left[:, 0], 6 - rewards.sum(axis=0), rtol=1e-6)
    more, _ = mode(state, held._replace(left=held.left + 1), normal(9, 2, 5), nothing)
    same, _ = mode(state, held, normal(9, 2, 5), nothing)
    assert float(jnp.min(jnp.max(jnp.abs(more - same), axis=1))) > 1e-4


def test_who_remembers_nothing_acts_as_at_the_first_step():
    agent = agent_of()
    state, seen = started(agent), normal(0, 2, 5)
    first, _ = jax.jit(agent.memory.mode)(state, agent.memory.start(state, 2), seen, jnp.zeros((2, 0)))
    np.testing.assert_allclose(jax.jit(agent.mode)(state, seen, jnp.zeros((2, 0))), first, atol=1e-6)
    assert jax.eval_shape(agent.mode, state, jnp.ones((2, 3, 5)), jnp.zeros((2, 3, 0))).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("spec", "flags", "words"),
    [
        (
            SPEC,
            {"return_scale": 1e3},
            "--target_return is 6.0; the environment has goals, which are asked for in place of",
        ),
        (SPEC, {"target_return": 1e3}, "--return_scale is 2.0; the environment has goals"),
        (
            NO_GOALS,
            {"her_strategy": "goal_law"},
            "--her_strategy is 'goal_law'; the environment has no goals: leave it",
        ),
    ],
    ids=["target", "scale", "goals"],
)
def test_flags_that_mean_nothing_are_one_sentence(spec, flags, words):
    with pytest.raises(FlagError) as error:
        agent_of(spec, **flags)
    assert str(error.value).startswith(words) and str(error.value).count(".") == 1 + words.count(".")


# ---- Runs ------------------------------------------------------------------------------------------------------------

RUN = [
    "--env_name",
    "toy_rewards",
    "--agent",
    "dt",
    "--num_envs",
    "4",
    "--unroll_length",
    "5",
    "--max_replay_size",
    "40",
]
RUN += ["--min_replay_size", "10", "--vis_length", "0", "--context_length", "4", "--n_blocks", "1", "--h_dim", "32"]
RUN += ["--num_eval_envs", "32", "--target_return", "8", "--return_scale", "4", "--dropout", "0", "--policy_lr", "3e-3"]
RUN += ["--warm_up", "50", "--utd_ratio", "2", "--batch_size", "64", "--num_timesteps", "120", "--dataset", "data.npz"]
RUN += ["--offline_steps", "40"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, random walks through `toy_rewards`, to work in."""
    monkeypatch.chdir(tmp_path)
    files.write("data.npz", jax.device_get(toy_rewards.walks(300, 11)))
    return tmp_path


@pytest.mark.slow
def test_it_gets_the_return_that_it_is_asked_for(here):
    """Also much more of it than the walks have on average, 0.85, of which one in a hundred has 6."""
    run = make_run(*read_flags(RUN))
    state, found = run.learn(run.start(), 600), {}
    for target in (0.5, 2, 6):
        other = make_run(*read_flags([*RUN, "--target_return", str(target)])).train
        found[target] = float(other.evaluate(state)[0]["eval/episode_reward"])
    assert found[0.5] < 1 < found[2] < 3.5 and found[6] > 4.5, found


@pytest.mark.slow
def test_a_resumed_run_goes_on_bit_for_bit(here):
    """Online too, where what is left of returns is part of what is saved."""
    run = make_run(*read_flags(RUN))
    online = run.advance(run.collect(run.learn(run.start(), 20)), 1)
    assert (np.asarray(online.env.memory.left) < 8).any()
    run.save(online, "online")
    restored = run.restore("online")
    after, again = (jax.tree.leaves(jax.device_get(run.advance(state, 1))) for state in (online, restored))
    assert len(after) == len(again) and all(map(np.array_equal, after, again))
