"""Learning phases: the updates after an unroll, and those on a dataset, a preloaded ring in place of a run's own."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from goalax.core import buffer, contract, counting, normalization, sharding
from goalax.core.sizes import Sizes
from goalax.core.types import Agent, AgentState, Array, BufferState, Metrics, Needs, RunState, Spec

LABELLED = 10_000  # samples from which an agent infers its task where fine-tuning begins, as InFOM's code has it

HELD_OUT = 8  # batches that a validation averages over: noise of a third of one batch's, at less than most phases cost

# (agent, ring, choice, key) -> (agent, metrics)
Update = Callable[[AgentState, BufferState, buffer.Choice, Array], tuple[AgentState, Metrics]]
Source = TypeVar("Source")  # a ring, or two of them (`mixing`)
Drawn = TypeVar("Drawn")  # samples from there


class Offline(NamedTuple):
    """Training on a dataset, jitted; all but validate donate the state; seeds share the dataset, which stays."""

    fit: Callable[[RunState, BufferState], RunState]  # fixes the input statistics, from all that the dataset holds
    # (state, dataset, n, updates): n learning phases of so many updates, at most `sizes.updates_per_unroll`
    learn: Callable[[RunState, BufferState, int, int], RunState]
    # (state, another dataset): what updates on its samples would tell, means by name; changes and keeps nothing
    validate: Callable[[RunState, BufferState], Metrics]
    min_rows: int  # of episodes that the agent can draw from
    originals: bool  # whether it asks for the goals that episodes were asked for
    # (state, labelled dataset): from pre-training to fine-tuning; None for an agent that simply goes on
    switch: Callable[[RunState, BufferState], RunState] | None = None


def choices(
    ring: BufferState, key: Array, sizes: Sizes, needs: Needs, spec: Spec, max_episode_steps: int
) -> buffer.Choice:
    """Samples of all updates of a phase, [updates, B]: one big draw costs far less than many small ones."""
    shape = sizes.updates_per_unroll, sizes.batch_size
    drawn = buffer.choose(ring, key, math.prod(shape), needs, spec.discounting, max_episode_steps)
    return jax.tree.map(lambda leaf: leaf.reshape(shape), drawn)


def learn(
    update: Callable[[AgentState, Source, Drawn, Array], tuple[AgentState, Metrics]],
    state: RunState,
    ring: Source,
    drawn: Drawn,
    key: Array,
    updates: Array,
) -> RunState:
    """The state after the first `updates` of the samples that were drawn for a phase; consumes key."""
    keys = jax.random.split(key, jax.tree.leaves(drawn)[0].shape[0])

    def one(i: Array, carry: Any) -> Any:
        agent_state, sums = carry
        choice = jax.tree.map(lambda leaf: leaf[i], drawn)
        agent_state, metrics = update(agent_state, ring, choice, keys[i])
        terms = {"updates": jnp.ones(()), **metrics}
        return agent_state, {name: counting.added(sums[name], term) for name, term in terms.items()}

    agent_state, sums = jax.lax.fori_loop(0, updates, one, (state.agent, state.metric_sums))
    gradient_steps = counting.plus(state.gradient_steps, updates)
    return state._replace(agent=agent_state, metric_sums=sums, gradient_steps=gradient_steps)


def offline(
    update: Update, agent: Agent, spec: Spec, sizes: Sizes, normalize: bool, mesh: Mesh | None, num_seeds: int
) -> Offline:
    """The functions of a run for datasets; devices hold whole seeds, and each one all of the dataset."""
    needs = agent.needs

    def fit(state: RunState, data: BufferState) -> RunState:
        if not normalize:
            return state
        state_map, goal_map = normalization.fit(data.rows, spec)
        return state._replace(agent=state.agent._replace(state_map=state_map, goal_map=goal_map))

    def phase(state: RunState, data: BufferState, updates: Array) -> RunState:
        key, _, choice_key, update_key = jax.random.split(state.key, 4)
        # Its longest episode may be all of the file, so half of the search for its end is in vain: of a million rows a
        # CPU core draws the samples of an update in 0.2 ms either way.
        drawn = choices(data, choice_key, sizes, needs, spec, data.rows.reward.shape[0] - 1)
        return learn(update, state._replace(key=key), data, drawn, update_key, updates)

    def phases(state: RunState, data: BufferState, number: Array, updates: Array) -> RunState:
        return jax.lax.fori_loop(0, number, lambda _, state: phase(state, data, updates), state)

    def validate(state: RunState, data: BufferState) -> Metrics:
        # A stream of its own: learning takes the first four, and evaluation the fifth.
        choice_key, update_key = jax.random.split(jax.random.split(state.key, 6)[5])
        held_out = sizes._replace(updates_per_unroll=HELD_OUT)
        drawn = choices(data, choice_key, held_out, needs, spec, data.rows.reward.shape[0] - 1)
        keys = jax.random.split(update_key, HELD_OUT)
        whole = agent.due(state.agent) if agent.due else state.agent  # or delayed networks would tell of training
        found = jax.lax.map(lambda sample: update(whole, data, *sample)[1], (drawn, keys))
        return {f"validation/{name}": jnp.mean(values) for name, values in found.items()}

    def switch(state: RunState, data: BufferState) -> RunState:
        assert agent.switch is not None  # left out for others
        key, choice_key, switch_key = jax.random.split(state.key, 3)
        batch = buffer.sample(data, choice_key, LABELLED, spec, data.rows.reward.shape[0] - 1, needs)
        switched = agent.switch(state.agent, batch, switch_key)
        contract.require_state(state.agent, switched, "switch")
        return state._replace(agent=switched, key=key)

    fit_one, phases_one = sharding.within(mesh, fit), sharding.within(mesh, phases)
    switch_one = sharding.within(mesh, switch)
    validate_one = sharding.within(mesh, validate)
    if num_seeds > 1:
        named = None if mesh is None else sharding.SEED
        fit_one = jax.vmap(fit_one, in_axes=(0, None), spmd_axis_name=named)
        switch_one = jax.vmap(switch_one, in_axes=(0, None), spmd_axis_name=named)
        phases_one = jax.vmap(phases_one, in_axes=(0, None, None, None), spmd_axis_name=named)
        validate_one = jax.vmap(validate_one, in_axes=(0, None), spmd_axis_name=named)
    state, whole = sharding.placement(mesh, num_seeds), sharding.everywhere(mesh)
    fit_all = jax.jit(fit_one, donate_argnums=0, in_shardings=(state, whole), out_shardings=state)
    switch_all = jax.jit(switch_one, donate_argnums=0, in_shardings=(state, whole), out_shardings=state)
    learn_all = jax.jit(phases_one, donate_argnums=0, in_shardings=(state, *[whole] * 3), out_shardings=state)
    validate_all = jax.jit(validate_one, in_shardings=(state, whole), out_shardings=whole)

    def learn_by(state: RunState, data: BufferState, number: int, updates: int) -> RunState:
        return learn_all(state, data, np.int32(number), np.int32(updates))

    return Offline(
        fit_all,
        learn_by,
        validate_all,
        min_rows=needs.horizon + 1,
        originals=needs.original > 0,
        switch=switch_all if agent.switch else None,
    )
