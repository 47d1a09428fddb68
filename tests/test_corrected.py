"""What correctors correct of plans that are followed, and what is collected for them."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents.correctors import Corrector, latest
from goalax.agents.distillation import Decisions, acting, collect
from goalax.agents.mppi import Plan
from goalax.agents.speculation import EXTENDED, FOLLOWED, Speculation, beginning, decision, is_old
from tests.helpers import toy
from tests.helpers.planning import normal, plane


def itself(state, goal):
    return state, goal


def test_only_old_plans_are_corrected_and_predictions_stay_those_of_the_plan():
    planner, rules, kinds = plane(2), Speculation(2, 4, 9.0, 1.0), []

    def correct(history):
        z, expected, action = latest(*history)
        return action + 10 * (z - expected)

    policy, key = acting(planner, rules, None, itself, Corrector(correct, 3)), jax.random.PRNGKey(0)
    memory, same, past = policy.start(3), beginning(planner, rules, 3), []
    act = jax.jit(lambda memory, state, goal: policy.act(memory, state, goal, None))
    decide = jax.jit(lambda held, state, goal: decision(planner, rules, None, held, state, goal, key, False))
    for t in range(5):
        state, nothing = 0.1 * normal(t, 3, 2), jnp.zeros((3, 0))
        action, memory = act(memory, state, nothing)
        same, step = decide(same, state, nothing)
        jax.tree.map(np.testing.assert_array_equal, memory.held, same)
        old = np.asarray(is_old(step.kind))
        expected = np.where(old[:, None], step.planned + 10 * (step.z - step.expected), step.planned)
        np.testing.assert_allclose(action, expected, rtol=1e-5)
        if not old[0]:
            np.testing.assert_array_equal(step.expected, step.z)
        past = [*past, step][-3:]
        np.testing.assert_array_equal(memory.history.length, [len(past)] * 3)
        for name in ("z", "expected"):
            of_past = np.stack([getattr(each, name) for each in past], axis=1)
            np.testing.assert_array_equal(getattr(memory.history, name)[:, : len(past)], of_past)
        np.testing.assert_array_equal(memory.history.action[:, len(past) - 1], step.planned)  # the plan's own
        kinds += [int(step.kind[0])]
        assert old.all() == (t % 4 > 0)
    assert FOLLOWED in kinds and EXTENDED in kinds


def test_what_is_too_far_off_and_has_no_room_is_not_corrected():
    """Of two that miss there is room for one; no corrector has seen what the other one sees."""
    planner, rules = plane(2), Speculation(2, 4, 0.5, 0.5)
    policy, nothing = (
        acting(planner, rules, None, itself, Corrector(lambda h: h.action[:, 0] + 7, 1)),
        jnp.zeros((2, 0)),
    )
    memory, state = policy.start(2), jnp.zeros((2, 2))
    for _ in range(2):  # there is room for one a decision
        _, memory = policy.act(memory, state, nothing, None)
    action, memory = policy.act(memory, jnp.array([[3.0, 0.0], [2.0, 0.0]]), nothing, None)
    np.testing.assert_array_equal(memory.held.plans, [2, 1])
    assert float(jnp.abs(action).max()) < 7 and not memory.corrected[1]
    expected = memory.held.expected
    action, memory = policy.act(memory, expected, nothing, None)
    assert float(action[:, 0].min()) > 6 and memory.corrected.tolist() == [2, 1]


def test_corrected_decisions_are_counted():
    planner, rules = plane(2), Speculation(2, 3, 9.0, 1.0)
    for corrector, expected in ((None, 0.0), (Corrector(lambda history: history.action[:, 0], 1), 2 / 3)):
        policy = acting(planner, rules, None, itself, corrector)
        act, memory = jax.jit(lambda memory, state, p=policy: p.act(memory, state, state[:, :0], None)), policy.start(2)
        for t in range(6):
            _, memory = act(memory, normal(t, 2, 2))
        metrics = policy.measures(memory)
        np.testing.assert_allclose(metrics["plans_per_decision"], [1 / 3] * 2)
        np.testing.assert_allclose(metrics["corrected_per_decision"], [expected] * 2)


def test_what_is_collected_are_decisions_with_what_a_new_plan_would_do():
    """In `toy`, which moves as the planner says; an environment that has died decides nothing any more."""
    env, planner, rules = toy.Toy(), plane(2), Speculation(2, 3, 9.0, 1.0)
    inputs = lambda state, goal: (2 * state, goal)  # noqa: E731
    key = jax.random.PRNGKey(0)
    found, made, old = collect(env, planner, rules, None, inputs, key, num_envs=4, decisions=7, action_repeat=1)
    assert made.all()
    np.testing.assert_array_equal(old, np.tile(np.array([0, 1, 1, 0, 1, 1, 0], bool)[:, None], (1, 4)))
    found = Decisions(*map(np.asarray, found))
    # The teacher's plans begin at 0.1 to the right of what is, the old ones are two steps in, or the prior's.
    np.testing.assert_allclose(found.teacher, found.z / 100 + np.array([0.1, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.action[2, :, 1], 0.5)
    start = np.asarray(found.z[0])
    np.testing.assert_allclose(found.action[1], start / 100 + np.array([0.2, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.expected[1], start + 0.3 * found.action[0], rtol=1e-5)
    np.testing.assert_array_equal(found.expected[::3], found.z[::3])  # those of new plans
    np.testing.assert_allclose(found.z[1] - found.z[0], 0.6 * found.action[0], rtol=1e-4, atol=1e-5)
    far = plane(2)._replace(prior=lambda agent, z: jnp.ones_like(z) * jnp.array([9.0, 0.0])[None])
    _, made, old = collect(env, far, rules, None, inputs, key, num_envs=4, decisions=40, action_repeat=1)
    ended = np.sum(made, axis=0)
    assert (ended < 39).all() and not (old & ~made).any()
    np.testing.assert_array_equal(made, np.arange(40)[:, None] < ended[None])


def test_the_teacher_may_be_the_mean_of_the_search():
    env, planner, rules = toy.Toy(), plane(2), Speculation(2, 3, 9.0, 1.0)

    def drawn(agent, z, mean, key, explore):
        plans = planner.plan(agent, z, mean, key, explore)
        return Plan(plans.actions, 0 * plans.mean + 0.25)

    key, sizes = jax.random.PRNGKey(0), {"num_envs": 2, "decisions": 3, "action_repeat": 1}
    search = planner._replace(plan=drawn)
    found, _, _ = collect(env, search, rules, None, itself, key, **sizes, smooth=True)
    action, _, _ = collect(env, search, rules, None, itself, key, **sizes)
    np.testing.assert_array_equal(found.teacher, np.full((3, 2, 2), 0.25))
    assert np.abs(np.asarray(action.teacher) - 0.25).min() > 0
    np.testing.assert_array_equal(found.action, action.action)  # what is executed is the same
