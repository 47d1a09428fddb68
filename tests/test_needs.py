"""What agents may ask of the buffer: chunks, goal mixes, way-points, first visits; against loops over made-up rings."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents import AGENTS
from goalax.agents.chunks import Plan, chunked, of_decisions
from goalax.core import buffer, visits
from goalax.core.relabel import RELABEL
from goalax.core.types import Agent, Needs, Spec, Transition

GOLDEN = np.load(Path(__file__).parent / "golden" / "frontier.npz")
SPEC = Spec(state_size=2, goal_size=2, action_size=1, goal_indices=(0, 1), discounting=0.9, goal_reach_thresh=0.7)
LENGTHS = ([9, 5, 12, 7, 8], [6, 11, 6, 5, 13], [20, 21])  # rows of the episodes of each environment, one column each


def ring(capacity=30, unroll=5, rows=40):
    """A ring that has wrapped, and all rows that were ever written: episodes of LENGTHS, every second terminates."""
    rng = np.random.default_rng(0)
    starts, terminal = np.zeros((rows, 3), np.int32), np.zeros((rows, 3), np.float32)
    for column, lengths in enumerate(LENGTHS):
        begin = 0
        for number, length in enumerate(lengths):
            starts[begin : begin + length, column] = begin
            if number % 2 and begin + length - 2 < rows:
                terminal[begin + length - 2, column] = 1
            begin += length
    state = np.cumsum(rng.normal(0, 0.4, (rows, 3, 2)), axis=0).astype(np.float32)
    action = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3, 1)
    goal = np.roll(state, -3, axis=0)  # mostly reached three rows later
    everything = Transition(state, goal, action, rng.normal(size=(rows, 3)).astype(np.float32), terminal, starts)
    state_of = buffer.init(jax.tree.map(lambda leaf: leaf[0], everything), capacity, unroll)
    for i in range(0, rows, unroll):
        state_of = buffer.add(state_of, jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i : i + unroll]), everything))
    return state_of, everything


def drawn(needs, num=3000, seed=0):
    """The choice and the batch of many samples, and the absolute row of each."""
    stored, everything = ring()
    choice = buffer.choose(stored, jax.random.key(seed), num, needs, SPEC.discounting, 20)
    batch = buffer.gather(stored, choice, SPEC, needs)
    slot = np.asarray(choice.slot)
    row = np.where(slot < 10, slot + 30, slot)  # 40 rows in 30 slots: the first ten were overwritten
    return choice, jax.tree.map(np.asarray, batch), row, np.asarray(choice.column), everything


def last_row(everything, row, column):
    starts = everything.episode_start[:, column]
    return np.flatnonzero(starts == starts[row])[-1]


def test_the_sample_itself_is_in_its_own_environment():
    choice, batch, _, column, _ = drawn(Needs(goals=(0.0, 0.5, 0.5), same=True))
    slot, own = choice.future_slot == choice.slot, choice.future_column == column
    assert (slot & ~own).any()
    np.testing.assert_array_equal(batch.same > 0, slot & own)


@pytest.mark.parametrize("horizon", [2, 3])
def test_chunks_are_whole(horizon):
    _, batch, row, column, everything = drawn(Needs(horizon=horizon))
    ends = [last_row(everything, r, c) for r, c in zip(row, column, strict=True)]
    assert (np.array(ends) - row >= horizon).all()
    for h in range(horizon):
        np.testing.assert_array_equal(batch.path.action[:, h], everything.action[row + h, column])
        np.testing.assert_array_equal(batch.path.discount[:, h], 0.9 * (1 - everything.terminal[row + h, column]))
    for h in range(horizon + 1):
        np.testing.assert_array_equal(batch.path.state[:, h], everything.state[row + h, column])
    long = of_decisions(batch)
    np.testing.assert_array_equal(long.action, np.concatenate(list(np.moveaxis(batch.path.action, 1, 0)), axis=1))
    np.testing.assert_array_equal(long.next_state, batch.path.state[:, -1])
    np.testing.assert_allclose(long.discount, batch.path.discount.prod(axis=1), rtol=1e-6)
    way = np.linalg.norm(batch.path.state[:, 1:] - batch.future_state[:, None], axis=2) < SPEC.goal_reach_thresh
    np.testing.assert_array_equal(long.future_reward, way.any(axis=1))  # passed on the way is reached, too
    assert (long.future_reward != batch.future_reward).any() and (long.future_reward != way[:, -1]).any()


def test_chunks_of_an_episode_that_is_too_short_stay_in_its_last_state():
    """Episodes have 5 to 21 rows: 12 more fit behind few of them, and most samples begin a shorter one."""
    horizon = 12
    _, batch, row, column, everything = drawn(Needs(horizon=horizon))
    left = np.array([last_row(everything, r, c) for r, c in zip(row, column, strict=True)]) - row
    assert (left > 0).all() and (left < horizon).any() and (left >= horizon).any()
    for h in range(horizon + 1):
        there = row + np.minimum(h, left), column
        np.testing.assert_array_equal(batch.path.state[:, h], everything.state[there])
    for h in range(horizon):
        there = row + np.minimum(h, left - 1), column
        np.testing.assert_array_equal(batch.path.action[:, h], everything.action[there])
        np.testing.assert_array_equal(batch.path.discount[:, h], 0.9 * (1 - everything.terminal[there]))
        np.testing.assert_array_equal(batch.path.stored[:, h], h < left)


def test_shares_of_goals():
    needs = Needs(goals=(0.5, 0.2, 0.3), actor_goals=(0.0, 1.0, 0.0))
    choice, batch, _, column, _ = drawn(needs, 20_000)
    now = (batch.future_state == batch.state).all(axis=1)
    assert abs(now.mean() - 0.2) < 0.02  # and the odd random goal
    elsewhere = np.asarray(choice.future_column) != column
    assert abs(elsewhere.mean() - 0.3 * 2 / 3) < 0.02  # two of three random goals are of another environment
    np.testing.assert_array_equal(batch.actor_state, batch.state)
    cells = np.unique(np.asarray(choice.future_slot)[elsewhere], return_counts=True)[1]
    assert stats.chisquare(cells).pvalue > 1e-4 and len(cells) == 30


def test_waypoints_lie_on_the_way():
    halfway = lambda uniform, ahead: jnp.maximum(ahead // 2, 1)  # noqa: E731
    choice, batch, row, column, everything = drawn(Needs(waypoint=halfway))
    ahead = (np.asarray(choice.future_slot) - np.asarray(choice.slot)) % 30
    np.testing.assert_array_equal(batch.waypoint.steps, np.maximum(ahead // 2, 1))
    np.testing.assert_array_equal(batch.waypoint.state, everything.state[row + batch.waypoint.steps, column])
    np.testing.assert_array_equal(batch.waypoint.terminal, everything.terminal[row + batch.waypoint.steps - 1, column])
    there = np.linalg.norm(batch.waypoint.state - batch.future_state, axis=1) < SPEC.goal_reach_thresh
    np.testing.assert_array_equal(batch.waypoint.reached, there)
    assert (there & (batch.waypoint.terminal > 0)).any() and (there != batch.future_reward).any()


def test_waypoints_lie_before_the_goal_that_was_drawn():
    """Of a mix: of the state itself it is the next row, of any stored state as far as the end of the episode."""
    needs = Needs(goals=(0.0, 1.0, 0.0), waypoint=lambda uniform, ahead: ahead)
    assert (drawn(needs)[1].waypoint.steps == 1).all()
    needs = needs._replace(goals=(0.0, 0.0, 1.0))
    _, batch, row, column, everything = drawn(needs)
    ends = np.array([last_row(everything, r, c) for r, c in zip(row, column, strict=True)])
    np.testing.assert_array_equal(batch.waypoint.steps, ends - row)


@pytest.mark.parametrize("name", RELABEL)
def test_laws_stay_inside_the_episode(name):
    left = jnp.asarray(np.random.default_rng(0).integers(1, 30, 1000), jnp.int32)
    ahead = RELABEL[name](0.9)(jax.random.uniform(jax.random.key(0), (1000,)), left)
    assert ahead.dtype == jnp.int32 and bool(jnp.all((ahead >= 1) & (ahead <= left)))


@pytest.mark.parametrize("name, weights", [("geometric", 0.9 ** np.arange(6)), ("uniform", np.ones(6))])
def test_laws_are_what_they_are_called(name, weights):
    ahead = RELABEL[name](0.9)(jax.random.uniform(jax.random.key(1), (20_000,)), jnp.full(20_000, 6))
    counts = np.bincount(np.asarray(ahead), minlength=7)[1:]
    assert stats.chisquare(counts, counts.sum() * weights / weights.sum()).pvalue > 1e-4
    assert (RELABEL["final"](0.9)(jnp.zeros(3), jnp.array([1, 5, 9])) == jnp.array([1, 5, 9])).all()


@pytest.mark.parametrize(("goals", "original"), [((1.0, 0.0, 0.0), 0), ((0.3, 0.2, 0.5), 0), ((0.3, 0.2, 0.5), 0.5)])
def test_first_visits_equal_a_loop(goals, original):
    within, bins = 8, (0, 1, 2, 4, 8)
    _, batch, row, column, everything = drawn(Needs(goals=goals, within=within, bins=bins, original=original), 400)
    assert (batch.future_state == batch.goal)[400 - int(400 * original) :].all()
    for i, (r, c) in enumerate(zip(row, column, strict=True)):
        last = last_row(everything, r, c)
        dist = np.linalg.norm(everything.state[r : last + 1, c] - batch.future_state[i], axis=1)
        found = [k for k in range(min(len(dist), within + 1)) if dist[k] < SPEC.goal_reach_thresh]
        ends = everything.terminal[last - 1, c] * (last - r <= within)
        visit = jax.tree.map(lambda leaf, i=i: leaf[i], batch.visit)
        assert visit.reached == bool(found) and visit.steps == (found[0] if found else within)
        assert visit.left == last - r and visit.terminates == ends
        for k in range(len(bins) - 1):
            steps = [a for a in range(max(bins[k], 1), bins[k + 1]) if a < len(dist) or ends]
            inside = [np.mean(dist[a] < SPEC.goal_reach_thresh / 2.0 ** np.arange(3)) for a in steps if a < len(dist)]
            assert visit.observed[k] == bool(steps)
            np.testing.assert_allclose(visit.occupancy[k], sum(inside) / max(len(steps), 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.visit.goal, batch.future_state)


def test_original_goals_are_the_commanded_ones_of_the_last_samples():
    """They replace what a state achieves and nothing else, for future rewards too; other samples are as they were."""
    spec = SPEC._replace(goal_size=1, goal_indices=(1,))
    stored, _ = ring()
    stored = stored._replace(rows=stored.rows._replace(goal=stored.rows.goal[..., 1:]))
    needs = Needs((0.5, 0.2, 0.3), within=8, horizon=2)
    choice = buffer.choose(stored, jax.random.key(0), 40, needs, spec.discounting, 20)
    asked = buffer.gather(stored, choice, spec, needs._replace(original=0.3))
    plain = buffer.gather(stored, choice, spec, needs)
    for a, b in zip(jax.tree.leaves(asked), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a[:28], b[:28])
    for name in ("state", "action", "next_state", "goal", "reward", "discount"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(plain, name))
    np.testing.assert_array_equal(
        asked.future_state[28:], jnp.stack([asked.state[:, 0], asked.goal[:, 0]], axis=1)[28:]
    )
    np.testing.assert_array_equal(asked.visit.goal, asked.future_state[:, 1:])
    there = lambda state: jnp.abs(state[28:, 1] - asked.goal[28:, 0]) < spec.goal_reach_thresh  # noqa: E731
    assert 0 < there(asked.next_state).sum() < 12
    np.testing.assert_array_equal(asked.future_reward[28:], there(asked.next_state))
    np.testing.assert_array_equal(asked.path.future_reward[28:, 1], there(asked.path.state[:, 2]))


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_golden_chunks(horizon):
    """Of a ring of one environment that holds the golden rows, where the last one of an episode takes no action."""
    names = ("in/episode", "in/action", "out/chunk", "out/valid", "out/target_entropy")
    g = {name: GOLDEN[f"ac_crl/chunk{horizon}/{name}"] for name in names}
    episode, num = g["in/episode"], len(g["in/episode"])
    starts = np.array([np.flatnonzero(episode == e)[0] for e in episode])
    wide = lambda x: jnp.asarray(x)[:, None]  # noqa: E731
    number = np.arange(num, dtype=np.float32)
    zero = wide(0 * number)
    state = wide(np.stack([number, number], axis=1))
    rows = Transition(state, state, wide(g["in/action"]), zero, zero, wide(starts))
    ring = buffer.BufferState(rows, jnp.int32(num))
    choice = buffer.choose(ring, jax.random.key(0), 2000, Needs(horizon=horizon), 0.9, num)
    batch = buffer.gather(ring, choice, SPEC._replace(action_size=2), Needs(horizon=horizon))
    left = np.array([np.flatnonzero(episode == e)[-1] for e in episode]) - np.arange(num)
    row = np.asarray(choice.slot)
    whole = left[row] >= horizon
    assert set(row[whole]) == set(np.flatnonzero(left >= horizon)) and g["out/valid"][row[whole]].all()
    chunk = batch.action if horizon == 1 else of_decisions(batch).action
    np.testing.assert_allclose(chunk[whole], g["out/chunk"][row[whole]], rtol=1e-6)

    entry = AGENTS["crl"]
    spec = SPEC._replace(action_size=2)
    agent = entry.make(entry.config(action_chunk=horizon, h_dim=8, n_hidden=1, repr_dim=4), spec)
    _, metrics = agent.update(agent.init(jax.random.key(1)), batch, jax.random.key(2))
    target = metrics["entropy"] - metrics["alpha_loss"]  # whose temperature is 1 at first
    np.testing.assert_allclose(target, g["out/target_entropy"], rtol=1e-4)


@pytest.mark.parametrize("name, within", [("srl/labels", 6), ("chronosrl/occupancy_labels", 8)])
def test_golden_labels(name, within):
    episode, achieved, goal = (GOLDEN[f"{name}/in/{part}"] for part in ("episode", "achieved", "goal"))
    edges = GOLDEN[f"{name}/in/edges"] if "chrono" in name else ()
    starts = np.array([np.flatnonzero(episode == e)[0] for e in episode])
    left = np.array([np.flatnonzero(episode == e)[-1] for e in episode]) - np.arange(12)
    terminal = np.zeros(12)
    if "chrono" in name:  # stored with the action that led into the last row
        ends = GOLDEN[f"{name}/in/terminates"]
        terminal[:-1] = ends[:-1] * (left[:-1] == 1)
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    rows = Transition(column(achieved), column(goal), column(0 * terminal), *map(column, (terminal, terminal, starts)))
    spec = SPEC._replace(goal_reach_thresh=float(GOLDEN[f"{name}/in/radius"]))
    known = np.flatnonzero(left > 0)  # the last row of an episode is never drawn
    slot = jnp.asarray(known, jnp.int32)
    bins = tuple(int(edge) for edge in edges)
    args = 0 * slot, slot, jnp.asarray(left[known], jnp.int32), jnp.asarray(goal[known], jnp.float32)
    visit = visits.find(rows, *args, spec, within, bins)
    if "chrono" not in name:
        np.testing.assert_array_equal(visit.reached > 0, GOLDEN[f"{name}/out/event"][known])
        np.testing.assert_array_equal(visit.steps, GOLDEN[f"{name}/out/tau"][known])
    else:
        # There, what lies past the twelve rows is never observed; here, it is known to be nothing after a termination.
        inside = known[:, None] + np.array(bins)[None, 1:] <= 12
        np.testing.assert_allclose(
            np.where(inside, visit.occupancy, 0),
            np.where(inside, GOLDEN[f"{name}/out/occupancy"][known], 0),
            atol=1e-6,
        )
        np.testing.assert_array_equal(visit.observed * inside, GOLDEN[f"{name}/out/mask"][known] * inside)


def test_a_chunk_is_taken_action_by_action():
    """A made-up agent whose chunk number k is [10 k, 10 k + 1, 10 k + 2], k being its state."""

    def mode(state, observed, goal):
        return jnp.tile(10.0 * state + jnp.arange(3.0), (len(observed), 1))

    agent = Agent(lambda key: None, lambda state, observed, goal, key: mode(state, observed, goal), mode, None)
    agent = chunked(agent, horizon=3, action_size=1)
    memory, nothing, taken = agent.memory.start(0.0, 2), jnp.zeros((2, 1)), []
    assert isinstance(memory, Plan)
    for k in range(7):
        action, memory = agent.memory.mode(jnp.float32(k), memory, nothing, nothing)
        taken.append(action[:, 0])
    np.testing.assert_array_equal(np.stack(taken)[:, 0], [0, 1, 2, 30, 31, 32, 60])
    memory = memory._replace(taken=memory.taken.at[1].set(0))  # a fresh episode in one of them
    action, _ = agent.memory.act(jnp.float32(7), memory, nothing, nothing, None)
    np.testing.assert_array_equal(action[:, 0], [61, 70])
    np.testing.assert_array_equal(agent.mode(jnp.float32(2), nothing, nothing), [[20.0], [20.0]])
