"""Input normalisation as a wrapper of any agent: statistics of the prefill data, then frozen."""

from typing import NamedTuple

import jax.numpy as jnp

from goalax.core.types import Agent, AgentState, Array, Spec, Transition

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
    achieved goals alone would blow the goals up.)
    """
    indices = jnp.array(spec.goal_indices)
    mean = jnp.mean(rows.state, axis=(0, 1))
    spread = jnp.std(rows.state, axis=(0, 1))
    commanded = jnp.sqrt(jnp.mean((rows.goal - mean[indices].reshape(1, 1, -1)) ** 2, axis=(0, 1)))
    spread = spread.at[indices].max(commanded)
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

    def update(state: NormalizedState, batch, key):
        assert agent.update is not None  # `Loop` alone calls it
        batch = batch._replace(
            state=state.state_map(batch.state),
            next_state=state.state_map(batch.next_state),
            future_state=state.state_map(batch.future_state),
            goal=state.goal_map(batch.goal),
        )
        inner, metrics = agent.update(state.agent, batch, key)
        return state._replace(agent=inner), metrics

    def score(state: NormalizedState, observed, action, future_state, future_action):
        assert agent.score is not None
        return agent.score(state.agent, state.state_map(observed), action, state.state_map(future_state), future_action)

    return agent._replace(init=init, act=act, mode=mode, update=update, score=score if agent.score else None)
