"""A chain of states with known distances, for tests of agents that learn distances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.core.sizes import samples_of
from goalax.core.types import Batch, Needs, Spec, Visit, Waypoint

LENGTH, DISCOUNTING = 8, 0.9  # of the chain


def chain_agent(name, **flags):
    spec = Spec(LENGTH, LENGTH, 1, tuple(range(LENGTH)), DISCOUNTING, goal_reach_thresh=0.5)
    return AGENTS[name].make(AGENTS[name].config(**flags), spec)


def chain_batch(key, size, needs=Needs()):  # noqa: B008
    """Samples of a one-way chain of one-hot states: every action goes on, and the end is absorbing."""
    start_key, ahead_key, action_key, way_key = jax.random.split(key, 4)
    start = jax.random.randint(start_key, (size,), 0, LENGTH)
    ahead = 1 + jnp.floor(jnp.log(jax.random.uniform(ahead_key, (size,))) / jnp.log(DISCOUNTING)).astype(int)
    states = [jnp.minimum(start + steps, LENGTH - 1) for steps in (0, 1, ahead)]
    here, then, later = (jax.nn.one_hot(state, LENGTH) for state in states)
    action, other = jax.random.uniform(action_key, (2, size, 1), minval=-1)
    zero = jnp.zeros(size)
    batch = Batch(here, action, then, later, later, other, zero, zero, zero + DISCOUNTING)
    if needs.waypoint is not None:
        steps = needs.waypoint(jax.random.uniform(way_key, (size,)), ahead)
        way = jax.nn.one_hot(jnp.minimum(start + steps, LENGTH - 1), LENGTH)
        batch = batch._replace(waypoint=Waypoint(way, steps, zero, jnp.all(way == later, axis=1).astype(jnp.float32)))
    if needs.within:  # half of the goals are any state, behind as well
        asked = jnp.arange(size) >= size - samples_of(needs.original, size)
        goal = jnp.where((jnp.arange(size) % 2) | asked, jax.random.randint(way_key, (size,), 0, LENGTH), states[2])
        reached = (goal >= start) & (goal - start < needs.within)
        visit = Visit(
            goal[:, None] * 10.0,
            jnp.where(reached, goal - start, needs.within),
            reached.astype(jnp.float32),
            jnp.full(size, needs.within),
            zero,
            jnp.zeros((size, 0)),
            jnp.zeros((size, 0)),
        )
        batch = batch._replace(visit=visit, future_state=jax.nn.one_hot(goal, LENGTH))
    return batch


def trained(agent, batch_of):
    """The state of an agent after 1,500 updates on what batch_of(key, size, needs) gives."""
    # conftest.py leaves out what would make these updates fast.
    fast = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}

    @partial(jax.jit, compiler_options=fast)
    def train(state, key):
        def step(state, key):
            batch_key, key = jax.random.split(key)
            return agent.update(state, batch_of(batch_key, 128, agent.needs), key)[0], None

        return jax.lax.scan(step, state, jax.random.split(key, 1500))[0]

    return train(agent.init(jax.random.PRNGKey(0)), jax.random.PRNGKey(1))


def chain_distances(name, flags):
    """Of all pairs of states: what the trained agent takes for their distance, and the steps from one to the other."""
    agent = chain_agent(name, h_dim=64, critic_lr=1e-3, **flags)
    state = trained(agent, chain_batch)
    here, there = (axis.ravel() for axis in np.meshgrid(np.arange(LENGTH), np.arange(LENGTH), indexing="ij"))
    return -np.asarray(agent.score(state, np.eye(LENGTH)[here], np.eye(LENGTH)[there])), there - here
