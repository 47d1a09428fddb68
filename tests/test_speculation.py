"""Speculative execution: the rules step by step against golden values and a loop, what is executed, and in the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import speculation
from goalax.agents.mppi import Plan
from goalax.agents.plans import Planner, replanning
from goalax.agents.speculation import EXTENDED, FOLLOWED, MISSED, PLANNED, WAITED, Speculation, kinds, speculative
from goalax.agents.tdmpc2 import TDMPC2Config
from goalax.core.rollout import where
from goalax.flags import FlagError
from goalax.host.make import make
from tests.helpers import ROOT, toy

toy.register()
RUN = {"num_envs": 4, "num_eval_envs": 4, "unroll_length": 5, "utd_ratio": 0.1, "min_replay_size": 10}
RUN |= {"max_replay_size": 40, "batch_size": 8, "vis_length": 0, "num_timesteps": 400, "agent": "tdmpc2"}
RUN |= {"encoder_dim": 8, "h_dim": 8, "latent_dim": 16, "num_q": 2, "num_samples": 16, "num_prior": 4}
RUN |= {"num_elites": 4, "iterations": 2}


def followed(rules, distance):
    """Kinds and steps [T, N] of decisions with these distances [T, N] from predictions."""
    num = distance.shape[1]
    step, left, seen = jnp.zeros(num, jnp.int32), jnp.zeros(num, jnp.int32), []
    for now in jnp.asarray(distance, jnp.float32):
        kind, _ = speculation.kinds(rules, now, step, left)
        at, step, left = speculation.counted(rules, kind, step, left)
        seen.append((kind, at))
    return (np.array(part) for part in zip(*seen, strict=True))


@pytest.mark.parametrize("execute", [1, 3, 6])
def test_with_room_for_all_the_rules_are_the_golden_ones(execute):
    with np.load(ROOT / "tests" / "golden" / "planning" / "speculation.npz") as file:
        values = dict(file)
    rules = Speculation(int(values["plan_horizon"]), execute, float(values["threshold"]), 1.0)
    kind, step = followed(rules, np.stack([values["distance"]] * 2, axis=1))
    for column in range(2):
        np.testing.assert_array_equal(kind[:, column], values[f"kind_{execute}"])
        np.testing.assert_array_equal(step[:, column], values[f"step_{execute}"])
    assert set(values["kind_6"]) == {PLANNED, FOLLOWED, EXTENDED, MISSED}


# With 0.2 somebody always waits, and nobody off its plan is served.
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.7])
def test_with_less_room_those_that_need_it_most_come_first(share):
    """Against a loop over lists, in which whoever waits stands in a queue."""
    rules, num = Speculation(2, 3, 0.5, share), 5
    distance = np.abs(0.5 * np.random.default_rng(0).normal(size=(60, num))).astype(np.float32)
    kind, step = followed(rules, distance)
    room, plans, waiting = round(share * num + 0.499), [None] * num, dict.fromkeys(range(num), 0)
    for t in range(60):
        missed = [e for e in range(num) if plans[e] is not None and plans[e] < 3 and distance[t, e] > 0.5]
        for e in range(num):
            if plans[e] == 3:
                plans[e], waiting[e] = None, t
        queue = sorted((e for e in range(num) if plans[e] is None), key=lambda e: waiting[e])
        served = (queue + sorted(missed, key=lambda e: -distance[t, e]))[:room]
        assert (np.isin(kind[t], (PLANNED, MISSED)).sum()) == len(served) <= room
        for e in range(num):
            if e in served:
                assert kind[t, e] == (MISSED if e in missed else PLANNED) and step[t, e] == 0
                plans[e] = 1
            elif e in queue:
                assert kind[t, e] == WAITED
            else:
                assert kind[t, e] == (FOLLOWED if plans[e] < 2 else EXTENDED) and step[t, e] == plans[e]
                plans[e] += 1
    assert {FOLLOWED, WAITED, PLANNED, *([MISSED] if share > 0.2 else [])} <= set(kind.ravel())
    last = [np.flatnonzero(np.isin(kind[:, e], (PLANNED, MISSED))).max() for e in range(num)]
    assert min(last) > 45  # nobody waits for ever


def line(horizon, log=None):
    """A planner on the line, where z is the state: plans go right by 1, 2, ... hundredths; the prior goes left by 1."""

    def plan(agent, z, mean, key, explore):
        if log is not None:
            log.append((z.shape[0], mean))
        actions = jnp.tile(0.01 * jnp.arange(1.0, horizon + 1).reshape(1, horizon, 1), (z.shape[0], 1, 1))
        return Plan(actions, mean + 1)

    return Planner(
        horizon=horizon,
        action_size=1,
        latent_size=1,
        encode=lambda agent, state, goal: state,
        plan=plan,
        predict=lambda agent, z, action: z + action,
        prior=lambda agent, z: -jnp.ones_like(z) + z,
    )


def test_what_is_executed():
    """Plans of two steps for four decisions: those behind the end are the prior's, on what was predicted."""
    held = speculative(line(2), Speculation(2, 4, 0.5, 1.0))
    state, memory, taken = jnp.array([[5.0], [7.0]]), held.start(None, 2), []
    for t in range(6):
        seen = state + (0.3 if t == 3 else 0.0)  # not far enough from the prediction
        seen = seen.at[1].add(10.0 * (t == 1))  # far off, in the second alone
        action, memory = held.mode(None, memory, seen, jnp.zeros((2, 0)))
        taken.append(action[:, 0])
        state = state + action
    # 5 -> 5.01 -> 5.03, where the prior begins: 4.03 -> 8.06 -> 15.12; then a new plan.
    np.testing.assert_allclose(np.array(taken)[:, 0], [0.01, 0.02, 4.03, 8.06, 0.01, 0.02], rtol=1e-5)
    # A new plan in place of the second step, and it counts from there.
    np.testing.assert_allclose(np.array(taken)[:3, 1], [0.01, 0.01, 0.01], rtol=1e-5)
    np.testing.assert_array_equal(memory.plans[0], 2)
    np.testing.assert_allclose(held.measures(memory)["plans_per_decision"][0], 2 / 6)


def test_predictions_behind_the_end_of_a_plan_are_of_the_present():
    """In a world that is as predicted the distance stays 0: nobody misses, however long a plan is followed."""
    held = speculative(line(2), Speculation(2, 7, 0.0, 1.0))
    state, memory = jnp.full((1, 1), 0.25), held.start(None, 1)
    for _ in range(7):
        np.testing.assert_allclose(memory.expected[0], state[0] if int(memory.decisions[0]) else 0.0, rtol=1e-6)
        action, memory = held.mode(None, memory, state, jnp.zeros((1, 0)))
        state = state + action
    assert int(memory.plans[0]) == 1


def test_who_waits_takes_the_action_of_the_prior_on_what_is():
    log = []
    held = speculative(line(3, log), Speculation(3, 3, 0.5, 0.5))
    memory, state = held.start(None, 3), jnp.array([[1.0], [2.0], [3.0]])
    action, memory = held.mode(None, memory, state, jnp.zeros((3, 0)))
    np.testing.assert_allclose(action[:, 0], [0.01, 0.01, 2.0])  # 3 - 1 of the prior
    assert log[0][0] == 2  # planned for two of three
    np.testing.assert_array_equal(memory.left, [2, 2, -1])
    action, memory = held.mode(None, memory, state + action, jnp.zeros((3, 0)))
    np.testing.assert_allclose(action[:, 0], [0.02, 0.02, 0.01])
    np.testing.assert_array_equal(memory.plans, [1, 1, 1])
    np.testing.assert_array_equal(memory.mean[:, 0, 0], [1, 1, 1])  # all have been shifted since


def test_episodes_that_are_over_take_no_room_from_others():
    """Five of ten end in the midst of a plan, off their predictions or without any: five others have room for all."""
    held, num = speculative(line(3), Speculation(3, 3, 0.5, 0.2)), 10
    memory, state, over = held.start(None, num), jnp.arange(1.0, num + 1)[:, None], jnp.arange(num) < 5
    for t in range(30):
        action, after = held.mode(None, memory, state, jnp.zeros((num, 0)))
        memory = where(over & (t > 6), memory, after)  # as an evaluation does
        if t >= 6:
            memory = held.ended(memory, over)
        if t == 6:
            before = memory
        state = state + where(over & (t > 3), 9.0 + action, action)
    made = memory.plans - before.plans
    np.testing.assert_array_equal(made[:5], 0)
    np.testing.assert_array_equal(memory.decisions, np.where(over, 7, 30))
    assert int(made[5:].min()) >= 23 // 3  # none of them ever waits


def test_a_plan_for_each_decision_is_the_planner_alone():
    config = TDMPC2Config()
    assert config.speculation(3) == Speculation(3, 1, 0.5, 1.0)
    plain, rules = replanning(line(3)), Speculation(3, 1, 0.5, 1.0)
    same = speculative(line(3), rules)
    assert type(same.start(None, 2)) is type(plain.start(None, 2)) and same.measures is None
    # As are the rules themselves, if a little less room than all is still room for all.
    longer = speculative(line(3), rules._replace(replans=0.99))
    warm, held, state = plain.start(None, 2), longer.start(None, 2), jnp.array([[1.0], [2.0]])
    for _ in range(3):
        one, warm = plain.mode(None, warm, state, jnp.zeros((2, 0)))
        other, held = longer.mode(None, held, state, jnp.zeros((2, 0)))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(held.mean[:, :-1], warm.mean[:, 1:])
        state = state + one


@pytest.mark.parametrize(
    "changes", [{"exec_horizon": 2}, {"plan_horizon": 4}, {"replans": 0.5}, {"mismatch": 0.0}], ids=str
)
def test_every_flag_changes_the_rules(changes):
    before = TDMPC2Config(exec_horizon=3).speculation(3)
    assert TDMPC2Config(**{"exec_horizon": 3, **changes}).speculation(3) == before._replace(**changes)
    assert TDMPC2Config().speculation(5).plan_horizon == 5


def test_a_mismatch_means_nothing_without_plans_to_follow():
    with pytest.raises(FlagError, match=r"--mismatch is 0.1; it means nothing with --exec_horizon 1"):
        TDMPC2Config(mismatch=0.1).speculation(3)


@pytest.fixture(scope="module")
def run():
    return make("toy", episode_length=7, exec_horizon=3, replans=0.5, plan_horizon=2, mismatch=10.0, **RUN)


@pytest.fixture(scope="module")
def begun(run):
    return jax.device_get(run.advance(run.start(), 3))


@pytest.mark.slow
def test_plans_are_forgotten_at_fresh_starts(run, begun):
    state, fresh = begun, 0
    for _ in range(4):
        held, step = state.env.memory, state.env.episode_step
        np.testing.assert_array_equal(held.decisions, step)
        started = step == 0
        fresh += int(started.sum())
        assert not np.any(held.actions[started]) and not np.any(held.left[started]) and not np.any(held.plans[started])
        assert (held.plans <= step).all() and (held.left < 3).all()
        state = jax.device_get(run.advance(jax.device_put(state), 1))
    assert fresh > 0


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_in_the_midst_of_plans(run, begun, tmp_path):
    assert (begun.env.memory.left > 0).any()
    run.save(jax.device_put(begun), tmp_path / "run")
    one, other = run.advance(jax.device_put(begun), 1), run.advance(run.restore(tmp_path / "run"), 1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_evaluation_tells_how_many_plans_there_were(run, begun):
    share = run.evaluate(jax.device_put(begun))["eval/plans_per_decision"]
    assert share == pytest.approx(2 / 7, abs=0.15)  # one for three decisions, of seven, and some wait; nobody misses


@pytest.mark.table
def test_two_devices_share_the_environments():
    """Who has a plan is decided among all environments, wherever they are."""
    flags = {**RUN, "episode_length": 7, "exec_horizon": 3, "replans": 0.5, "num_devices": 2}
    two, one = (make("toy", **{**flags, "num_devices": number}) for number in (2, 1))
    # Rounding differs, and of nearly equal sequences a search takes another one: not for long are they the same.
    held, alone = (run.advance(run.start(), 2).env.memory for run in (two, one))
    assert held.actions.sharding.num_devices == 2 and (held.plans > 0).any()
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(held), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("share", "num", "room"), [(0.07, 100, 7), (0.28, 25, 7), (0.4, 16, 7), (0.01, 4, 1)])
def test_there_is_room_for_the_share_and_no_more(share, num, room):
    none = jnp.zeros(num, jnp.int32)
    kind, index = kinds(Speculation(2, 3, 9.0, share), jnp.zeros(num), none, none)
    assert len(index) == room and int(jnp.sum(kind == PLANNED)) == room
