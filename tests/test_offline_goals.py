"""Laws of goals of offline agents: golden rows, and the share of each kind by chi-square."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents import AGENTS
from goalax.agents.goal_values import GoalValueConfig, goal_reward
from goalax.core import buffer
from goalax.core.relabel.clipped import clipped_geometric
from goalax.core.types import Needs, Spec, Transition
from tests.helpers.offline import close, golden


def test_the_clipped_law_gives_the_golden_rows():
    """By inversion: the number in the middle of a step's share gives that step, or the last row."""
    g = golden("goal_sampling")
    inside = g["final"] > g["idx"]  # there, the last row is no goal; here it is, so each episode is one row longer
    row, last, k = (g[name][inside] for name in ("idx", "final", "geometric_offset"))
    ahead = clipped_geometric(jnp.asarray(1 - 0.9 ** (k - 0.5)), jnp.asarray(last - row, jnp.int32), 0.9)
    np.testing.assert_array_equal(row + ahead, g["geometric_goal"][inside])
    assert len(row) > 10


@pytest.mark.parametrize("left", [1, 4, 12])
def test_the_clipped_law_by_chi_square(left):
    uniform = jax.random.uniform(jax.random.key(3), (20_000,))
    ahead = np.asarray(clipped_geometric(uniform, jnp.full(20_000, left, jnp.int32), 0.9))
    expected = 0.1 * 0.9 ** np.arange(left)
    expected[-1] = 0.9 ** (left - 1)
    counts = np.bincount(ahead, minlength=left + 1)[1:]
    assert counts.sum() == 20_000 and len(counts) == left
    assert left == 1 or stats.chisquare(counts, 20_000 * expected).pvalue > 1e-4


def trajectories():
    """The golden file's rows as a dataset: the last row of each, which is no goal there, is left out."""
    g = golden("goal_sampling")
    lengths = g["rows_per_trajectory"] - 1
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = len(starts)
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    number = column(np.arange(rows))
    zero = 0 * number
    ring = Transition(number[..., None], number[..., None], zero[..., None], zero, zero, jnp.asarray(starts)[:, None])
    return buffer.BufferState(ring, jnp.int32(rows)), lengths, starts


def test_goals_of_a_file_by_chi_square():
    """Shares of current, trajectory and random goals, and rewards by equal rows, against the law that made the file."""
    data, lengths, starts = trajectories()
    g, num = golden("goal_sampling"), 60_000
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    config = GoalValueConfig(current_goals=float(g["p_cur"]), any_goals=1 - float(g["p_cur"] + (1 - 0.2) * 0.625))
    needs = config.needs(spec)
    np.testing.assert_allclose(needs.goals, (0.5, 0.2, 0.3), atol=1e-6)
    batch = buffer.sample(data, jax.random.key(0), num, spec, 20, needs)
    row, goal, wanted = (np.asarray(x[:, 0], int) for x in (batch.state, batch.future_state, batch.actor_state))
    np.testing.assert_array_equal(np.asarray(batch.same) > 0, row == goal)
    reward, discount = goal_reward(batch, 0.9)
    close(reward, np.where(row == goal, 0, -1))
    close(discount, np.where(row == goal, 0, 0.9))

    rows, ends = len(starts), starts + np.repeat(lengths, lengths) - 1
    for r in np.flatnonzero(ends > np.arange(rows)):
        left = ends[r] - r
        law = np.zeros(rows)
        law[r + 1 : ends[r] + 1] = 0.1 * 0.9 ** np.arange(left)
        law[ends[r]] = 0.9 ** (left - 1)
        expected = 0.5 * law + 0.3 / rows
        expected[r] += 0.2
        counts = np.bincount(goal[row == r], minlength=rows)
        assert stats.chisquare(counts, counts.sum() * expected / expected.sum()).pvalue > 1e-4
        counts = np.bincount(wanted[row == r], minlength=rows)
        later = np.arange(rows)[(np.arange(rows) > r) & (np.arange(rows) <= ends[r])]
        assert counts.sum() == counts[later].sum()
        assert left == 1 or stats.chisquare(counts[later]).pvalue > 1e-4
    # Both draws are independent: which goal the one is says nothing of the other.
    far, later = row == 0, np.arange(1, ends[0] + 1)
    table = [[np.sum(far & (goal == g) & (wanted == w)) for w in later] for g in range(rows)]
    assert stats.chi2_contingency(np.array(table)).pvalue > 1e-4


def test_subgoals_lie_on_the_way():
    data, _, starts = trajectories()
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    needs = AGENTS["hiql"].config(subgoal_steps=2, actor_any_goals=0.4).needs(spec)
    batch = buffer.sample(data, jax.random.key(1), 4000, spec, 20, needs)
    parts = batch.state, batch.actor_state, batch.subgoals.near, batch.subgoals.way
    row, wanted, near, way = (np.asarray(x[:, 0], int) for x in parts)
    end = np.array([np.flatnonzero(starts == starts[r])[-1] for r in row])
    np.testing.assert_array_equal(near, np.minimum(row + 2, end))
    ahead = (wanted > row) & (wanted <= end)  # any stored row may be one of these, too
    outside = ~ahead
    assert outside.mean() > 0.2
    np.testing.assert_array_equal(way[outside], np.minimum(row + 2, end)[outside])
    on_the_way = way[ahead] == np.minimum(row + 2, wanted)[ahead]
    assert on_the_way.mean() > 0.9 and (way[ahead] == np.minimum(row + 2, end)[ahead])[~on_the_way].all()


def test_who_asks_for_nothing_gets_nothing():
    data, _, _ = trajectories()
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    batch = buffer.sample(data, jax.random.key(1), 10, spec, 20, Needs())
    assert batch.same is None and batch.subgoals is None and batch.actor_state is None
