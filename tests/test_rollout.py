"""Collection and evaluation on a tiny environment, against a loop in numpy that steps each environment alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.core import rollout
from tests.helpers.counter import Counter


def policy(state, goal, key):
    """The same for an environment whatever its slot, but different in each state."""
    return 0.1 * state[:, 1:2] + goal


POLICY = rollout.memoryless(policy)


CASES = {  # environments, rows per unroll, steps of an episode, action repeat, steps until a true end (0: never)
    "time limits": (3, 20, 5, 1, (0,)),
    "early ends": (4, 16, 6, 1, (0, 1, 2, 5, 6)),
    "more environments than rows": (7, 2, 3, 1, (0, 1)),
    "one row": (2, 1, 2, 1, (0, 1)),
    "action repeat": (3, 12, 6, 2, (0,)),
    "action repeat and early ends": (4, 12, 12, 3, (0, 1, 2, 3, 4, 7, 12)),
    "longer than an unroll": (3, 4, 30, 1, (0,)),
}


class Collected:
    """Rows of several unrolls in a row."""

    def __init__(self, num_envs, length, episode_length, action_repeat, ends_after, unrolls=4):
        self.episode_length, self.action_repeat = episode_length, action_repeat
        env = Counter(ends_after)
        unroll = jax.jit(
            lambda envs, row, key: rollout.unroll(
                env, POLICY, envs, row, key, length=length, episode_length=episode_length, action_repeat=action_repeat
            )
        )
        envs = jax.jit(lambda key: rollout.init(env, key, num_envs))(jax.random.key(7))
        unrolls = max(unrolls, -(-3 * episode_length // (length * action_repeat)))
        rows = []
        for i in range(unrolls):
            envs, new = unroll(envs, jnp.int32(i * length), jax.random.key(i))
            assert new.reward.shape == (length, num_envs)
            rows.append(new)
        self.envs = envs
        self.rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
        self.num_rows, self.num_envs = self.rows.reward.shape
        first = self.rows.episode_start == np.arange(self.num_rows)[:, None]
        self.beginnings = [np.flatnonzero(first[:, column]) for column in range(num_envs)]


case_of = functools.cache(lambda name: Collected(*CASES[name]))


@pytest.fixture(params=CASES)
def case(request):
    return case_of(request.param)


def expected_episode(state, goal, episode_length, action_repeat):
    """Rows of one episode from its first state: (state, action, reward, terminal) each, the last one without reward."""
    state = np.array(state, np.float32)
    steps, done, rows = 0, False, []
    while not done and steps < episode_length:
        action, before, reward = np.float32(0.1) * state[1] + goal, state.copy(), np.float32(0)
        for _ in range(action_repeat):
            state = state + np.array([0, 1, action, 0], np.float32)
            reward, steps = reward + state[1] + action, steps + 1
            done = bool(state[3] == state[1])
            if done:
                break
        rows.append((before, action, reward, float(done)))
    rows.append((state, np.float32(0.1) * state[1] + goal, None, None))
    return rows


def test_rows_equal_stepping_each_environment_alone(case):
    finished = 0
    for column, beginnings in enumerate(case.beginnings):
        assert beginnings[0] == 0
        row = 0
        while row < case.num_rows:
            state, goal = case.rows.state[row, column], case.rows.goal[row, column]
            assert row in beginnings and state[1] == state[2] == 0
            episode = expected_episode(state, goal[0], case.episode_length, case.action_repeat)
            for i, (state, action, reward, terminal) in enumerate(episode[: case.num_rows - row]):
                got = jax.tree.map(lambda leaf, at=(row + i, column): leaf[at], case.rows)
                assert got.episode_start == row
                np.testing.assert_allclose(got.state, state, rtol=1e-5)
                np.testing.assert_array_equal(got.goal, goal)
                np.testing.assert_allclose(got.action, [action], rtol=1e-5)
                if reward is not None:
                    np.testing.assert_allclose(got.reward, reward, rtol=1e-5)
                    assert got.terminal == terminal
            finished += row + len(episode) <= case.num_rows
            row += len(episode)
    assert finished >= case.num_envs


def test_rows_of_an_episode_are_one_more_than_its_decisions(case):
    decisions = case.episode_length // case.action_repeat
    for column, beginnings in enumerate(case.beginnings):
        for row, rows in zip(beginnings, np.diff(beginnings), strict=False):
            end = case.rows.state[row, column, 3]
            assert rows == 1 + min(decisions, -(-int(end) // case.action_repeat) if end else decisions)


@pytest.mark.parametrize("name, share", [("time limits", 0), ("action repeat", 0), ("early ends", 1 / 8)])
def test_terminal_marks_true_ends_only(name, share):
    case = case_of(name)
    ends = np.diff(case.rows.episode_start, axis=0) != 0
    assert ends.sum() >= 2 * case.num_envs
    assert case.rows.terminal.mean() >= share and (share or not case.rows.terminal.any())


def test_every_episode_gets_a_fresh_start_and_goal(case):
    for column, beginnings in enumerate(case.beginnings):
        assert len(beginnings) >= 2
        for values in (case.rows.state[beginnings, column, 0], case.rows.goal[beginnings, column, 0]):
            assert len(np.unique(values)) == len(beginnings)


@pytest.mark.parametrize("name", ["time limits", "more environments than rows", "one row"])
def test_environments_that_start_together_start_differently(name):
    case = case_of(name)
    for row in range(case.num_rows):
        columns = [column for column, beginnings in enumerate(case.beginnings) if row in beginnings]
        assert len(np.unique(case.rows.state[row, columns, 0])) == len(columns)


def test_environments_after_an_unroll_go_on_where_it_ended():
    case = case_of("longer than an unroll")
    envs, rows = case.envs, case.rows
    start = rows.episode_start[-1]
    np.testing.assert_array_equal(envs.episode_start, start)
    np.testing.assert_array_equal(envs.episode_step, case.num_rows - start)
    np.testing.assert_array_equal(envs.env.obs[:, 1], envs.episode_step)
    np.testing.assert_array_equal(envs.env.obs[:, 0], rows.state[-1, :, 0])
    np.testing.assert_array_equal(envs.over, envs.episode_step == 30)


def test_every_row_has_its_own_key():
    def random_policy(state, goal, key):
        return jax.random.normal(key, (state.shape[0], 1))

    env = Counter()
    envs = jax.jit(lambda key: rollout.init(env, key, 4))(jax.random.key(0))
    unroll = jax.jit(
        functools.partial(
            rollout.unroll, env, rollout.memoryless(random_policy), length=8, episode_length=5, action_repeat=1
        )
    )
    rows = [unroll(envs, jnp.int32(0), jax.random.key(seed))[1].action for seed in (0, 1)]
    assert len(np.unique(np.stack(rows))) == 2 * 8 * 4


def test_held_action_stops_at_the_end_of_an_episode():
    env = Counter((0, 1, 2, 3))
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(3), 16))
    action = jnp.linspace(-1, 1, 16).reshape(16, 1)
    after = jax.jit(lambda states: rollout.hold(env, states, action, 3))(states)
    end = np.asarray(states.obs[:, 3])
    steps = np.where(end > 0, end, 3)
    assert set(end) == {0, 1, 2, 3}
    np.testing.assert_array_equal(after.obs[:, 1], steps)
    np.testing.assert_allclose(after.reward, steps * (steps + 1) / 2 + steps * action[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(after.done, end > 0)


@pytest.mark.parametrize("episode_length, action_repeat", [(6, 1), (12, 3)])
def test_evaluation_equals_a_loop(episode_length, action_repeat):
    env, num_envs = Counter((0, 1, 2, 3, 7)), 16
    env.started = []
    sizes = {"num_envs": num_envs, "episode_length": episode_length, "action_repeat": action_repeat}
    metrics, _, outcomes = jax.jit(lambda key: rollout.evaluate(env, POLICY, key, **sizes))(jax.random.key(0))
    jax.effects_barrier()
    assert len(env.started) == num_envs
    episodes = []
    for start, _, _, end, goal in env.started:
        length = min(int(end), episode_length) if end else episode_length
        steps = np.arange(1, length + 1)
        actions = 0.1 * ((steps - 1) // action_repeat * action_repeat) + goal
        episodes.append(
            {
                "episode_reward": (steps + actions).sum(),
                "episode_success": ((steps == 2) | (steps == 3)).sum(),
                "episode_dist": (start + steps).sum(),
                "episode_success_any": length >= 2,
                "time_at_goal": ((steps == 2) | (steps == 3)).sum() / episode_length,
                "final_dist": start + length,
                "falls": 0 < end <= episode_length,
                "avg_episode_length": length,
            }
        )
    assert set(metrics) == set(episodes[0])
    for name, value in metrics.items():
        np.testing.assert_allclose(value, np.mean([episode[name] for episode in episodes]), rtol=1e-5, err_msg=name)
    assert 0 < metrics["episode_success_any"] < 1 and metrics["avg_episode_length"] < episode_length
    assert 0 < metrics["falls"] < 1
    by_goal = sorted(
        (goal, *(episode[name] for name in ("episode_success_any", "time_at_goal", "episode_reward")))
        for goal, episode in zip([started[4] for started in env.started], episodes, strict=True)
    )
    np.testing.assert_allclose(sorted(zip(outcomes.goal[:, 0], *outcomes[1:], strict=True)), by_goal, rtol=1e-6)


def test_bodies_that_cannot_end_an_episode_never_fall():
    sizes = {"num_envs": 4, "episode_length": 4, "action_repeat": 1}
    falls = [
        rollout.evaluate(Counter(ends), POLICY, jax.random.key(0), **sizes)[0]["falls"] for ends in ((0,), (4,), (5,))
    ]
    assert falls == [0, 1, 0]  # one that ends in the last step ends for good


def test_evaluation_draws_fresh_episodes_for_every_key():
    sizes = {"num_envs": 4, "episode_length": 4, "action_repeat": 1}
    evaluate = jax.jit(lambda key: rollout.evaluate(Counter(), POLICY, key, **sizes)[0]["final_dist"])
    first, again, other = (evaluate(jax.random.key(seed)) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("action_repeat", [1, 3])
def test_recording_is_what_the_evaluation_saw(action_repeat):
    env, sizes = Counter((0, 1, 2, 3, 7)), {"num_envs": 16, "episode_length": 12, "action_repeat": action_repeat}

    def record(episodes):
        return jax.jit(lambda key: rollout.evaluate(env, POLICY, key, **sizes, recorded=episodes))(jax.random.key(0))

    metrics, seen, outcomes = record(16)
    assert seen.alive.shape == (12, 16) and seen.q.shape == (12, 16, 2) and seen.goal.shape == (12, 16, 1)
    alive = np.asarray(seen.alive)
    assert (alive[0] == 1).all() and (np.diff(alive.astype(int), axis=0) <= 0).all()
    np.testing.assert_allclose(alive.sum(0).mean(), metrics["avg_episode_length"])
    np.testing.assert_allclose((seen.success * alive).sum(0).mean(), metrics["episode_success"])
    steps = np.where(alive, seen.q[..., 1], 0)
    np.testing.assert_array_equal(steps, np.where(alive, np.arange(1, 13)[:, None], 0))  # each step once, in order
    last = np.take_along_axis(np.asarray(seen.q).sum(-1), alive.sum(0)[None] - 1, axis=0)
    np.testing.assert_allclose(last.mean(), metrics["final_dist"], rtol=1e-6)

    np.testing.assert_array_equal(outcomes.goal, seen.goal[0])
    np.testing.assert_allclose(outcomes.time_at_goal, (seen.success * alive).sum(0) / 12, rtol=1e-6)
    np.testing.assert_array_equal(outcomes.reached, (seen.success * alive).any(0))

    fewer_metrics, fewer, same = record(3)
    jax.tree.map(np.testing.assert_array_equal, same, outcomes)
    jax.tree.map(np.testing.assert_array_equal, fewer, jax.tree.map(lambda leaf: leaf[:, :3], seen))
    jax.tree.map(np.testing.assert_array_equal, fewer_metrics, metrics)
    assert record(0)[1].q.shape == (12, 0, 2)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def counting(num_envs):
    """A policy whose actions are how many it has taken since the episode began."""

    def act(memory, state, goal, key):
        return memory[:, None].astype(jnp.float32), memory + 1

    return rollout.Policy(act, lambda num: jnp.zeros(num, jnp.int32))


def test_memory_begins_anew_with_every_episode_and_goes_on_across_unrolls():
    env, num_envs, length = Counter((0, 1, 2, 5)), 6, 7
    remembering = counting(num_envs)
    sizes = {"length": length, "episode_length": 9, "action_repeat": 1}
    unroll = jax.jit(lambda envs, row, key: rollout.unroll(env, remembering, envs, row, key, **sizes))
    envs = rollout.init(env, jax.random.key(0), num_envs, remembering.start(num_envs))
    rows = []
    for i in range(5):
        envs, new = unroll(envs, jnp.int32(i * length), jax.random.key(i))
        rows.append(new)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
    # Row t of an episode holds its action number t; the last row holds the one that would have come next.
    since = np.arange(5 * length)[:, None] - rows.episode_start
    np.testing.assert_array_equal(rows.action[..., 0], since)


def test_memory_is_told_which_episodes_of_an_evaluation_are_over():
    """From the decision on that ended one for good, and it alone."""
    act = lambda memory, state, goal, key: (0.1 * state[:, 1:2] + goal, memory)  # noqa: E731
    policy = rollout.Policy(act, jnp.zeros, lambda memory: {"times": memory}, ended=lambda memory, over: memory + over)
    sizes = {"num_envs": 5, "episode_length": 12, "action_repeat": 1}
    metrics = rollout.evaluate(Counter((0, 7)), policy, jax.random.PRNGKey(0), **sizes)[0]
    assert 0 < metrics["falls"] < 1
    np.testing.assert_allclose(metrics["times"], 12 - metrics["avg_episode_length"] + metrics["falls"], rtol=1e-5)


def test_evaluation_begins_with_a_fresh_memory():
    env = Counter((0,))
    sizes = {"num_envs": 3, "episode_length": 4, "action_repeat": 1}
    metrics, _, _ = rollout.evaluate(env, counting(3), jax.random.key(0), **sizes)
    # reward: steps made + action, that is 1 + 0, 2 + 1, 3 + 2, 4 + 3
    assert metrics["episode_reward"] == 16
