"""Input normalisation as a wrapper of any agent: statistics of the prefill data, then frozen."""

from typing import NamedTuple

import jax.numpy as jnp

from goalax.core import contract
from goalax.core.types import Agent, AgentState, Array, Memory, Spec, Transition

SMALLEST_SPREAD = 1e-3  # a coordinate that varies less than this is constant and keeps its unit


class Affine(NamedTuple):
    """x -> (x - mean) / spread, per coordinate."""

    mean: Array
    spread: Array

    def __call__(self, x: Array) -> Array:
        lead = (1,) * (x.ndim - 1)
        return (x - self.mean.reshape(*lead, -1)) / self.spread.reshape(*lead, -1)


class NormalizedState(NamedTuple):
    agent: AgentState
    state_map: Affine
    goal_map: Affine


def fit(rows: Transition, spec: Spec) -> tuple[Affine, Affine]:
    """Maps for states and goals from rows with leaves [T, N, ...].

    Goal coordinates share one map in state and goal: its spread is the larger one of achieved and commanded goals
    around the mean achieved goal. (An ant explores 1 m around its start while goals lie 10 m away; the spread of
    achieved goals alone would blow the goals up.) A coordinate that varies in neither keeps its unit: the distance
    between the two constants would be all that an actor sees of a commanded goal, and it never trains on that.
    """
    indices = jnp.array(spec.goal_indices, jnp.int32)
    mean = jnp.mean(rows.state, axis=(0, 1))
    spread = jnp.std(rows.state, axis=(0, 1))
    commanded = jnp.sqrt(jnp.mean((rows.goal - mean[indices].reshape(1, 1, -1)) ** 2, axis=(0, 1)))
    constant = (spread[indices] < SMALLEST_SPREAD) & (jnp.std(rows.goal, axis=(0, 1)) < SMALLEST_SPREAD)
    spread = spread.at[indices].max(jnp.where(constant, 0.0, commanded))
    spread = jnp.where(spread < SMALLEST_SPREAD, 1.0, spread)
    return Affine(mean, spread), Affine(mean[indices], spread[indices])


def normalized(agent: Agent, spec: Spec) -> Agent:
    """The agent, fed with normalised states and goals; until statistics are set the maps change nothing."""

    def identity(size: int) -> Affine:
        return Affine(jnp.zeros(size), jnp.ones(size))

    def init(key):
        return NormalizedState(agent.init(key), identity(spec.state_size), identity(spec.goal_size))

    def act(state: NormalizedState, observed, goal, key):
        return agent.act(state.agent, state.state_map(observed), state.goal_map(goal), key)

    def mode(state: NormalizedState, observed, goal):
        return agent.mode(state.agent, state.state_map(observed), state.goal_map(goal))

    def normal(state: NormalizedState, batch):
        of_state = state.state_map
        batch = batch._replace(
            state=of_state(batch.state),
            next_state=of_state(batch.next_state),
            future_state=of_state(batch.future_state),
            goal=state.goal_map(batch.goal),
        )
        # What the agent asks for beside; visits are numbers of steps, found in the units of the environment.
        if batch.actor_state is not None:
            batch = batch._replace(actor_state=of_state(batch.actor_state))
        if batch.path is not None:
            batch = batch._replace(path=batch.path._replace(state=of_state(batch.path.state)))
        if batch.waypoint is not None:
            batch = batch._replace(waypoint=batch.waypoint._replace(state=of_state(batch.waypoint.state)))
        if batch.subgoals is not None:
            near, way = (of_state(state) for state in batch.subgoals)
            batch = batch._replace(subgoals=batch.subgoals._replace(near=near, way=way))
        return batch

    def update(state: NormalizedState, batch, key):
        assert agent.update is not None  # `Loop` alone calls it
        inner, metrics = contract.pair(agent.update(state.agent, normal(state, batch), key))
        return state._replace(agent=inner), metrics

    def switch(state: NormalizedState, batch, key):
        assert agent.switch is not None
        return state._replace(agent=agent.switch(state.agent, normal(state, batch), key))

    def due(state: NormalizedState):
        assert agent.due is not None
        return state._replace(agent=agent.due(state.agent))

    def score(state: NormalizedState, observed, future_state):
        assert agent.score is not None
        return agent.score(state.agent, state.state_map(observed), state.state_map(future_state))

    def remember(memory: Memory) -> Memory:
        def start(state: NormalizedState, num_envs):
            return memory.start(state.agent, num_envs)

        def act(state: NormalizedState, held, observed, goal, key):
            return memory.act(state.agent, held, state.state_map(observed), state.goal_map(goal), key)

        def mode(state: NormalizedState, held, observed, goal):
            return memory.mode(state.agent, held, state.state_map(observed), state.goal_map(goal))

        return memory._replace(start=start, act=act, mode=mode)

    return agent._replace(
        init=init,
        act=act,
        mode=mode,
        update=update,
        score=score if agent.score else None,
        memory=remember(agent.memory) if agent.memory else None,
        switch=switch if agent.switch else None,
        due=due if agent.due else None,
    )
