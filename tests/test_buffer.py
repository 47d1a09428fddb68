"""The trajectory ring: its goal law, and rows whose fields say where they belong, so that any misalignment shows."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy import stats

from goalax.core import buffer
from goalax.core.relabel.geometric import truncated_geometric
from goalax.core.types import Spec, Transition

GOLDEN = np.load(Path(__file__).parent / "golden" / "goal_law.npz")
GAMMA = 0.9
# States are (row, column): with this threshold a goal counts as reached from up to 3 rows away.
SPEC = Spec(state_size=2, goal_size=1, action_size=3, goal_indices=(0,), discounting=GAMMA, goal_reach_thresh=3.5)
UNROLL = 8
ENVS = 3

add = jax.jit(buffer.add)
sample = jax.jit(buffer.sample, static_argnums=(2, 3, 4))
steps_left = jax.jit(buffer.steps_left, static_argnums=3)


def law(gamma, left):
    weights = gamma ** np.arange(1, left + 1, dtype=float)
    return weights / weights.sum()


# ---- The goal law ----


@pytest.mark.parametrize(
    "gamma, left",
    [(1, 7), (1, 1000), (0.9, 7), (0.99, 100), (0.999, 1), (0.999, 1000), (0.5, 1), (0.5, 200), (1 - 1e-8, 1000)],
)
def test_goal_law_inverts_the_distribution(gamma, left):
    n = 1 << 16
    uniform = (np.arange(n) + 0.5) / n  # one in the middle of each of n cells: the counts can hardly deviate
    ahead = jax.jit(truncated_geometric, static_argnums=2)(uniform.astype(np.float32), jnp.full(n, left), gamma)
    assert ahead.dtype == jnp.int32
    assert ahead.min() >= 1 and ahead.max() <= left
    counts = np.bincount(np.asarray(ahead), minlength=left + 1)[1:]
    np.testing.assert_allclose(counts, n * law(gamma, left), atol=1.5)


def test_goal_law_equals_golden_values():
    gamma, left, expected = float(GOLDEN["discounting"]), int(GOLDEN["steps_left"]), GOLDEN["probability"]
    np.testing.assert_allclose(law(gamma, left), expected, rtol=1e-9)
    n = 1 << 17
    ahead = truncated_geometric(jax.random.uniform(jax.random.key(0), (n,)), jnp.full(n, left), gamma)
    counts = np.bincount(np.asarray(ahead), minlength=left + 1)[1:]
    assert stats.chisquare(counts, n * expected).pvalue > 1e-3


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99, 0.999])
def test_goal_law_at_the_ends_of_the_unit_interval(gamma):
    left = np.array([1, 2, 3, 10, 1000])
    least, most = np.float32(0), np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(truncated_geometric(jnp.full(5, least), left, gamma), 1)
    ahead = np.asarray(truncated_geometric(jnp.full(5, most), left, gamma))
    assert (ahead <= left).all()
    reachable = np.log1p(-float(most) * (1 - gamma ** left.astype(float))) / np.log(gamma)
    assert (ahead >= np.minimum(left, np.ceil(reachable - 0.1))).all()


# ---- Rows that say where they belong ----


def episode_starts(num_rows, lengths, seed=0):
    """[num_rows, ENVS] absolute row at which the episode of each row began; lengths: fewest and most rows of one."""
    rng = np.random.default_rng(seed)
    starts = np.zeros((num_rows, ENVS), np.int32)
    for column in range(ENVS):
        row = 0
        while row < num_rows:
            starts[row:, column] = row
            row += rng.integers(lengths[0], lengths[1] + 1)
    return starts


def rows_of(starts, first):
    """Transitions for absolute rows first, first + 1, ...; every field tells row and column, in another way each."""
    row, column = np.indices(starts.shape).astype(np.float32)
    row = row + first
    acted_last = np.zeros(starts.shape, bool)
    acted_last[:-2] = starts[2:] != starts[1:-1]  # the action that ended an episode belongs to the row before the last
    return Transition(
        state=np.stack([row, column], -1),
        goal=np.stack([starts * 1000 + column, row], -1).astype(np.float32),
        action=np.stack([-row, column + 0.5, row], -1),
        reward=row * 1000 + column,
        terminal=(acted_last & ((starts + column) % 2 == 1)).astype(np.float32),  # the others: time limits
        episode_start=starts,
    )


def fill(starts, max_rows):
    rows = rows_of(starts, 0)
    ring = buffer.init(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows), max_rows, UNROLL
    )
    for first in range(0, len(starts), UNROLL):
        ring = add(ring, jax.tree.map(lambda leaf, first=first: leaf[first : first + UNROLL], rows))
    return ring, rows


class Case:
    """A filled ring, one big batch drawn from it, and the truth about both from a numpy scan."""

    def __init__(self, num_rows, max_rows, lengths):
        self.starts = episode_starts(num_rows, lengths)
        self.ring, self.rows = fill(self.starts, max_rows)
        self.capacity = self.ring.rows.reward.shape[0]
        self.oldest = max(num_rows - self.capacity, 0)
        self.max_steps = lengths[1] - 1
        self.left = np.zeros(self.starts.shape, int)
        for row in range(num_rows - 2, -1, -1):
            same = self.starts[row] == self.starts[row + 1]
            self.left[row] = np.where(same, self.left[row + 1] + 1, 0)
        self.valid = (self.left > 0) & (np.arange(num_rows) >= self.oldest)[:, None]
        batch = sample(self.ring, jax.random.key(1), 1 << 16, SPEC, self.max_steps)
        self.batch = jax.tree.map(np.asarray, batch)
        self.row, self.column = self.batch.state.T.astype(int)
        self.ahead = (self.batch.future_state[:, 0] - self.row).astype(int)


CASES = {  # rows added, rows to hold, shortest and longest episode in rows
    "partial": (40, 64, (5, 12)),
    "full": (64, 64, (5, 12)),
    "wrapped": (64 * 3 + 24, 64, (5, 12)),
    "equal episodes": (160, 64, (11, 11)),
    "very short": (216, 64, (2, 4)),
    "one step": (96, 64, (2, 2)),
    "longer than the ring": (96, 32, (300, 400)),
    "rounded up": (96, 33, (5, 12)),
}
case_of = functools.cache(lambda name: Case(*CASES[name]))


@pytest.fixture(params=CASES)
def case(request):
    return case_of(request.param)


@pytest.mark.parametrize("max_rows, capacity", [(1, 8), (8, 8), (9, 16), (64, 64), (65, 72)])
def test_capacity_is_rounded_up_to_whole_unrolls(max_rows, capacity):
    row = jax.tree.map(lambda leaf: leaf[0], rows_of(episode_starts(8, (5, 5)), 0))
    ring = buffer.init(row, max_rows, UNROLL)
    assert ring.count == 0 and ring.count.dtype == jnp.int32
    for leaf, example in zip(ring.rows, row, strict=True):
        assert leaf.shape == (capacity, *example.shape) and leaf.dtype == example.dtype


def test_ring_holds_the_newest_rows(case):
    assert case.ring.count == len(case.starts)
    for row in range(case.oldest, len(case.starts)):
        for name, ring, rows in zip(Transition._fields, case.ring.rows, case.rows, strict=True):
            np.testing.assert_array_equal(ring[row % case.capacity], rows[row], err_msg=f"{name} of row {row}")


def test_steps_left_equals_a_scan(case):
    stored = np.arange(case.oldest, len(case.starts))
    row, column = (index.ravel().astype(np.int32) for index in np.meshgrid(stored, np.arange(ENVS), indexing="ij"))
    np.testing.assert_array_equal(steps_left(case.ring, row, column, case.max_steps), case.left[row, column])


def test_fields_of_a_sample_belong_to_its_row(case):
    batch, row, column = case.batch, case.row, case.column
    np.testing.assert_array_equal(batch.action, case.rows.action[row, column])
    np.testing.assert_array_equal(batch.goal, case.rows.goal[row, column])
    np.testing.assert_array_equal(batch.reward, row * 1000 + column)
    np.testing.assert_array_equal(batch.discount, np.float32(GAMMA) * (1 - case.rows.terminal[row, column]))


def test_next_state_is_the_row_after_in_the_same_episode(case):
    np.testing.assert_array_equal(case.batch.next_state, np.stack([case.row + 1, case.column], -1))
    np.testing.assert_array_equal(case.starts[case.row + 1, case.column], case.starts[case.row, case.column])


def test_future_lies_ahead_in_the_same_episode(case):
    batch = case.batch
    assert (case.ahead >= 1).all()
    assert (case.ahead <= case.left[case.row, case.column]).all()
    future = case.row + case.ahead
    np.testing.assert_array_equal(batch.future_state[:, 1], case.column)
    np.testing.assert_array_equal(case.starts[future, case.column], case.starts[case.row, case.column])
    np.testing.assert_array_equal(batch.future_action, case.rows.action[future, case.column])


def test_future_reward_says_whether_the_next_state_is_at_the_future_goal(case):
    np.testing.assert_array_equal(case.batch.future_reward, (case.ahead - 1 <= 3).astype(np.float32))


def test_every_row_with_a_stored_future_is_drawn_and_no_other(case):
    drawn = np.zeros(case.starts.shape, bool)
    drawn[case.row, case.column] = True
    np.testing.assert_array_equal(drawn, case.valid)
    assert not drawn[-1].any() and not drawn[: case.oldest].any()


@pytest.mark.parametrize("name", ["partial", "full", "wrapped", "equal episodes", "longer than the ring"])
def test_rows_are_drawn_uniformly(name):
    case = case_of(name)
    counts = np.zeros(case.starts.shape, int)
    np.add.at(counts, (case.row, case.column), 1)
    assert stats.chisquare(counts[case.valid]).pvalue > 1e-3


def test_rows_of_long_ways_are_drawn_uniformly_within_episodes():
    """Ways of 20 rows of episodes of 30 begin at any of the first ten, also where no candidate was one of these."""
    ring, _ = fill(episode_starts(120, (30, 30)), 120)
    row, column = buffer.draw(ring, jax.random.key(2), 1 << 14, horizon=20)
    counts = np.zeros((4, 30, ENVS), int)
    np.add.at(counts, (row // 30, row % 30, column), 1)
    assert not counts[:, 10:].any()
    for episode in counts:  # the last one is drawn less often
        assert episode.sum() > 300
        assert stats.chisquare(episode[:10].sum(axis=1)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["partial", "wrapped", "longer than the ring"])
def test_futures_follow_the_goal_law(name):
    case = case_of(name)
    left = case.left[case.row, case.column]
    for steps in np.unique(left[left > 1]):
        ahead = case.ahead[left == steps]
        expected = len(ahead) * law(GAMMA, steps)
        assert stats.chisquare(np.bincount(ahead, minlength=steps + 1)[1:], expected).pvalue > 1e-4, steps


def test_discount_is_zero_exactly_after_a_true_termination():
    case = case_of("wrapped")
    ended = (case.left[case.row, case.column] == 1) & (case.row + 1 < len(case.starts) - 1)  # else it may go on
    for_good = ended & ((case.starts[case.row, case.column] + case.column) % 2 == 1)
    assert 0.02 < for_good.mean() < ended.mean()
    np.testing.assert_array_equal(case.batch.discount, np.where(for_good, 0, np.float32(GAMMA)))


def test_different_keys_draw_different_batches():
    ring = case_of("wrapped").ring
    first, again, other = (sample(ring, jax.random.key(seed), 64, SPEC, 11) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.reward, again.reward)
    assert (first.reward != other.reward).mean() > 0.8


def test_vmap_over_rings_equals_each_alone():
    rings = [case_of(name).ring for name in ("full", "wrapped")]
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(lambda ring, key: buffer.sample(ring, key, 64, SPEC, 11))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *rings), keys
    )
    for i, (ring, key) in enumerate(zip(rings, keys, strict=True)):
        alone = sample(ring, key, 64, SPEC, 11)
        jax.tree.map(lambda both, one, i=i: np.testing.assert_allclose(both[i], one, rtol=1e-6), together, alone)


# ---- Cost ----


def results(jaxpr):
    """All values that a jaxpr computes, those of inner ones included."""
    for equation in jaxpr.eqns:
        yield from equation.outvars
        for inner in jaxprs_in_params(equation.params):
            yield from results(inner)


def test_sampling_costs_nothing_that_grows_with_the_ring():
    capacity, batch_size = 4096, 8
    row = jax.tree.map(lambda leaf: leaf[0], rows_of(episode_starts(8, (5, 5)), 0))
    ring = jax.eval_shape(lambda: buffer.init(row, capacity, UNROLL))
    key = jax.eval_shape(lambda: jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda ring, key: buffer.sample(ring, key, batch_size, SPEC, 1000))(ring, key)
    sizes = [value.aval.size for value in results(jaxpr.jaxpr)]
    assert len(sizes) > 50
    assert max(sizes) <= 16 * batch_size


def test_add_writes_in_place_when_the_ring_is_donated():
    rows = rows_of(episode_starts(UNROLL, (5, 5)), 0)
    ring = buffer.init(jax.tree.map(lambda leaf: leaf[0], rows), 4096, UNROLL)
    ring = jax.tree.map(jnp.array, ring)
    before = [leaf.unsafe_buffer_pointer() for leaf in ring.rows]
    after = jax.jit(buffer.add, donate_argnums=0)(ring, rows)
    assert all(leaf.is_deleted() for leaf in ring.rows)
    assert [leaf.unsafe_buffer_pointer() for leaf in after.rows] == before
    np.testing.assert_array_equal(after.rows.reward[:UNROLL], rows.reward)
    assert after.count == UNROLL and not np.any(after.rows.reward[UNROLL:])
