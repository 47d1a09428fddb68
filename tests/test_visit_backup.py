"""The temporal back-up of first visits: distributions that come later, and goals that no way led to at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.agents.first_visits import Times, VisitHead
from goalax.core.types import Batch, Needs, Spec, Visit
from goalax.flags import FlagError
from goalax.learning import survival
from tests.helpers.chain import trained

WINDOW = 12


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def told(size=5, bins=WINDOW):
    return normal(0, size) - 2, normal(1, size, bins)


def masses(survival_at):
    """Of each bin, and of later than the last one."""
    return np.concatenate([-np.diff(survival_at, axis=1), survival_at[:, -1:]], axis=1)


@pytest.mark.parametrize("steps", [1, 3, WINDOW, 40])
def test_what_takes_longer_comes_as_much_later(steps):
    """With a bin for every step: the probabilities of all times, moved."""
    now, logits = told()
    edges = survival.time_edges(WINDOW, 0)
    before = np.exp(survival.log_survival(now, logits))
    found = np.asarray(survival.later_by(now, logits, edges, steps))
    assert found.shape == (5, WINDOW + 1) and np.all(found[:, : min(steps, WINDOW) + 1] == 1)
    # What is there now comes in the step after as many as it takes longer, with what has a first visit in step 0.
    np.testing.assert_allclose(found[:, steps + 1 :], before[:, 1 : max(1, WINDOW + 1 - steps)], rtol=1e-6)


@pytest.mark.parametrize("bins", [3, 5, 9])
def test_bins_of_several_steps_move_between_their_edges(bins):
    edges = np.array(survival.time_edges(200, bins))
    now, logits = normal(0, 5) - 2, normal(1, 5, len(edges) - 1)
    before = np.asarray(survival.log_survival(now, logits))
    found = np.asarray(survival.later_by(now, logits, tuple(edges), 2))
    wanted = [np.interp(edges - 2, edges, row) for row in before]
    np.testing.assert_allclose(found, np.where(edges <= 2, 1, np.exp(wanted)), rtol=1e-4)
    assert np.all(masses(found) >= -1e-6)


def test_cross_entropy_is_that_of_numpy_and_least_where_both_are_alike():
    now, logits = told()
    edges = survival.time_edges(WINDOW, 0)
    wanted = survival.later_by(normal(2, 5), normal(3, 5, WINDOW), edges, 2)
    p = masses(np.exp(np.asarray(survival.log_survival(now, logits), np.float64)))
    found = survival.cross_entropy(now, logits, wanted)
    np.testing.assert_allclose(found, -np.sum(masses(np.asarray(wanted, np.float64)) * np.log(p), axis=1), rtol=1e-4)

    at_least = jnp.full(5, -30.0), logits  # nothing is there now, as of what comes later
    own = jnp.exp(survival.log_survival(*at_least))
    slope = jax.grad(lambda logits: jnp.sum(survival.cross_entropy(at_least[0], logits, own)))(logits)
    np.testing.assert_allclose(slope, 0, atol=1e-5)


@pytest.mark.parametrize("bins", [0, 5])
def test_cross_entropy_of_what_was_seen_is_its_likelihood(bins):
    edges = survival.time_edges(WINDOW, bins)
    steps, reached = jnp.array([1, 2, 7, 11, WINDOW]), jnp.array([1.0, 1, 1, 1, 0])
    now, logits = told(5, len(edges) - 1)
    seen = survival.negative_log_likelihood(now, logits, edges, steps, reached, jnp.full(5, WINDOW))
    index = np.searchsorted(edges, np.asarray(steps), side="right") - 1
    alone = (np.arange(len(edges))[None] <= index[:, None]).astype(np.float32)  # all of it in the bin of the visit
    np.testing.assert_allclose(survival.cross_entropy(now, logits, jnp.asarray(alone)), seen, rtol=1e-5)


def test_the_back_up_is_of_what_was_not_reached_and_goes_on():
    head = VisitHead(None, 4, 0.99, WINDOW, "window", survival.time_edges(WINDOW, 0), (), 2)
    steps, reached, discount = jnp.array([3, WINDOW, WINDOW]), jnp.array([1.0, 0, 0]), jnp.array([0.9, 0.9, 0.0])
    none = jnp.zeros((3, 0))
    visit = Visit(none, steps, reached, jnp.full(3, 20), jnp.zeros(3), none, none)
    times, later = (Times(normal(i, 3) - 2, normal(i + 1, 3, WINDOW), none) for i in (0, 4))

    def one(i, *more):
        pick = partial(jax.tree.map, lambda leaf: leaf[i : i + 1])
        return head.loss(pick(times), pick(visit), *map(pick, more))

    for i in (0, 2):  # what was reached, and what ends
        assert one(i, later, discount) == one(i)
    wanted = survival.later_by(later.now, later.hazards, head.edges, 2)
    expected = survival.cross_entropy(times.now, times.hazards, wanted)[1]
    np.testing.assert_allclose(one(1, later, discount), expected, rtol=1e-6)
    assert abs(one(1) - expected) > 0.1
    slopes = jax.grad(lambda later: head.loss(times, visit, later, discount))(later)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes)), "what it aims at is a constant"


def test_a_law_of_censoring_is_refused_where_nothing_is_censored():
    make, config = AGENTS["srl"].make, AGENTS["srl"].config
    with pytest.raises(
        FlagError, match=r"^--censor is episode; it means nothing with --visit_backup, --time_bins 0 an"
    ):
        make(config(visit_backup=True, censor="episode"), Spec(2, 2, 1, (0, 1), 0.9, 0.5))
    AGENTS["srl"].make(config(visit_backup=True, censor="episode", time_bins=9), Spec(2, 2, 1, (0, 1), 0.9, 0.5))
    separates = AGENTS["chronosrl"].config(visit_backup=True, censor="episode")
    assert AGENTS["chronosrl"].make(separates, Spec(2, 2, 1, (0, 1), 0.9, 0.5)).needs.within


LENGTH, MIDDLE = 8, 4  # of a way of one-hot states, and where one sort of episode ends and the other begins


def two_ways(key, size, needs: Needs):
    """Samples of episodes from the first state to the middle, and from the middle to the last one, where they stay;
    before, every action goes on. Half of the goals are those that the episode came to, half are any state."""
    start_key, ahead_key, goal_key = jax.random.split(key, 3)
    start = jax.random.randint(start_key, (size,), 0, LENGTH)
    end = jnp.where(start < MIDDLE, MIDDLE, LENGTH - 1)
    future = jnp.minimum(start + 1 + jax.random.randint(ahead_key, (size,), 0, LENGTH), end)
    goal = jnp.where(jnp.arange(size) % 2, jax.random.randint(goal_key, (size,), 0, LENGTH), future)
    reached = (goal >= start) & (goal <= end)
    states = [jax.nn.one_hot(state, LENGTH) for state in (start, jnp.minimum(start + 1, LENGTH - 1), goal)]
    zero, still = jnp.zeros(size), jnp.zeros((size, 1))
    visit = Visit(
        10.0 * goal[:, None],
        jnp.where(reached, goal - start, needs.within),
        1.0 * reached,
        end - start,
        zero,
        jnp.zeros((size, 0)),
        jnp.zeros((size, 0)),
    )
    here, then, later = states
    return Batch(here, still, then, later, later, still, zero, zero, zero + 0.9, visit=visit)


# What shapes the distances of ChronoSRL blurs them here, where all states are equally far apart.
ALONE = {"occupancy_weight": 0.0, "time_weight": 0.0, "separation_weight": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags"), [("tmd_visits", {}), ("chronosrl", ALONE), ("srl", {})])
def test_two_ways_that_nobody_went_on_after_one_another_become_one(name, flags):
    """Without the back-up the last state is out of the window of the first one; with it as far away as it is."""
    spec = Spec(LENGTH, LENGTH, 1, tuple(range(LENGTH)), 0.9, goal_reach_thresh=0.5, max_decisions=16)

    def steps_to_the_end(visit_backup):
        """What is expected from every state, in steps."""
        sizes = {"h_dim": 64, "head_dim": 64, "critic_lr": 1e-3, "action_chunk": 1, **flags}
        agent = AGENTS[name].make(AGENTS[name].config(**sizes, visit_backup=visit_backup), spec)
        state = trained(agent, two_ways)
        states = jnp.eye(LENGTH)
        return -np.asarray(agent.score(state, states, jnp.broadcast_to(states[-1], states.shape)))

    one_way, both = steps_to_the_end(False), steps_to_the_end(True)
    true = np.array([sum(0.999**t for t in range(LENGTH - k)) for k in range(LENGTH - 1)] + [0])  # the visit's, too
    never = sum(0.999**t for t in range(16))
    np.testing.assert_allclose(one_way[:MIDDLE], never, rtol=0.05)
    np.testing.assert_allclose(one_way[MIDDLE:], true[MIDDLE:], atol=0.5)
    np.testing.assert_allclose(both, true, atol=0.5)
