"""Tests that what an agent does not ask for costs nothing: its program is the one without."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from goalax.agents import AGENTS
from goalax.core import buffer
from goalax.core.relabel.geometric import geometric
from goalax.core.sharding import look_up
from goalax.core.types import Batch, Needs
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.rings import filled_ring

toy.register()


def plain_batch(ring, choice, spec):
    """The batch of contrastive RL and nothing else, as it was before agents could ask for more."""

    def take(leaf, slot, column):
        return leaf.at[slot, column].get(mode="promise_in_bounds")

    def at(rows, column, slot, next_slot, future_slot):
        future = take(rows.state, future_slot, column), take(rows.action, future_slot, column)
        return jax.tree.map(lambda leaf: take(leaf, slot, column), rows), take(rows.state, next_slot, column), *future

    slots = choice.slot, choice.next_slot, choice.future_slot
    row, next_state, future_state, future_action = look_up(at, ring.rows, choice.column, *slots)
    reached = spec.reached(next_state, spec.goal_of(future_state))
    discount = spec.discounting * (1 - row.terminal)
    return Batch(
        row.state, row.action, next_state, row.goal, future_state, future_action, row.reward, reached, discount
    )


def spec_of():
    run = make_run(*read_flags(toy.TINY))
    return run.spec._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,))


def lowered(function, *args):
    return jax.jit(function).lower(*args).as_text()


PLAIN = [name for name, entry in AGENTS.items() if entry.make]


@pytest.mark.parametrize(
    "name", [name if name == "crl" else pytest.param(name, marks=pytest.mark.slow) for name in PLAIN]
)
def test_an_agent_without_needs_has_the_program_of_before(name):
    spec, entry = spec_of(), AGENTS[name]
    small = {"h_dim": 8, "n_hidden": 1, "repr_dim": 16}
    known = {field.name for field in dataclasses.fields(entry.config)}
    agent = entry.make(entry.config(**{key: value for key, value in small.items() if key in known}), spec)
    if agent.needs._replace(law=None) != Needs() or agent.memory is not None:
        assert name not in ("crl", "tmd", "sac", "td3", "cmd", "qrl", "c_tec", "gcbc"), "it never asked for more"
        pytest.skip("it asks for more")
    ring = filled_ring(0)
    state, key = agent.init(jax.random.PRNGKey(0)), jax.random.PRNGKey(1)
    choice = buffer.choose(ring, key, 8, agent.needs, spec.discounting, 5)

    def update(state, ring, choice, key):
        return agent.update(state, buffer.gather(ring, choice, spec, agent.needs), key)

    def plain(state, ring, choice, key):
        return agent.update(state, plain_batch(ring, choice, spec), key)

    plain.__name__ = plain.__qualname__ = "update"
    assert lowered(update, state, ring, choice, key) == lowered(plain, state, ring, choice, key)


def test_drawing_for_no_needs_is_drawing_by_the_geometric_law():
    ring, key = filled_ring(0), jax.random.PRNGKey(1)

    def choose(needs):
        return lowered(lambda ring, key: buffer.choose(ring, key, 8, needs, 0.9, 5), ring, key)

    assert choose(Needs()) == choose(Needs(law=geometric(0.9)))
    assert choose(Needs()) != choose(Needs(goals=(0.9, 0.0, 0.1)))


def test_commanded_goals_change_the_program():
    """Lowering the whole of `advance`."""

    def program(*flags):
        run = make_run(*read_flags([*toy.TINY, *flags]))
        count = jax.ShapeDtypeStruct((), jnp.int32)
        state = jax.eval_shape(run.train.init, run.keys(0))
        return run.train.advance.lower(state, count, count).as_text()

    assert program() != program("--commanded_goals", "achieved")
