"""make_train: the whole of training as pure functions of one pytree, RunState; the host only calls them."""

import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from goalax.core import buffer, contract, counting, goals, heap, mixing, normalization, rollout, sharding
from goalax.core import updates as updating
from goalax.core.command.base import Command, Scene
from goalax.core.sizes import Sizes
from goalax.core.types import Agent, AgentState, Array, BufferState, Env, Metrics, RunState, Spec, Transition

RUN_ONCE = {"xla_backend_optimization_level": 0}  # what runs once is not worth a long compilation


class Train(NamedTuple):
    """Training as pure functions, jitted; advance and fit donate the state that they get.

    A run is `state = fit(advance(init(key), sizes.prefill_unrolls, 0))`, then advance(state, n,
    sizes.updates_per_unroll) and evaluate(state) for as long as one likes.
    """

    init: Callable[[Array], RunState]  # (key): networks and environments, an empty buffer
    # (state, n, updates, *dataset): n unrolls, each followed by the updates; a dataset where `sizes.offline_rows`
    advance: Callable[..., RunState]
    fit: Callable[[RunState], RunState]  # fixes the input statistics, from what the buffer holds after the prefill
    # Means of training metrics and of fresh episodes under the policy's mode, a recording of some of these, and what
    # became of each.
    evaluate: Callable[[RunState], tuple[Metrics, rollout.Recording, rollout.Outcomes]]
    # (state of one seed, states [B, S], future states [B, S]) -> [B], how near the critic thinks each future is to an
    # agent that acts for it; None where the agent has no such critic.
    score: Callable[[RunState, Array, Array], Array] | None
    mode: Callable[[AgentState, Array, Array], Array]  # (agent, state [..., S], goal [..., G]) -> action, without noise
    compiler_options: dict[str, Any]  # what XLA must be told when it compiles any of these
    offline: updating.Offline | None = None  # the same on a dataset; None for another loop than this one
    ahead: bool = True  # compiled before the first step; advance of another loop than this one compiles by itself


def forget_metrics(state: RunState) -> RunState:
    """The state with its sums of training metrics at zero, as they are after an evaluation."""
    return state._replace(metric_sums=jax.tree.map(jnp.zeros_like, state.metric_sums))


def training_means(state: RunState) -> Metrics:
    """Means of the metrics of all updates since the last evaluation, `training/NAME`; nan where there was none."""
    updates = state.metric_sums["updates"].value
    training = {f"training/{name}": total.value / updates for name, total in state.metric_sums.items()}
    training.pop("training/updates")
    return training


def rebased(state: RunState) -> RunState:
    """The state with smaller numbers of rows, once they have grown so large that int32 might not hold them."""
    shift = buffer.excess_rows(state.buffer)
    envs = state.env._replace(episode_start=state.env.episode_start - shift)
    return state._replace(buffer=buffer.rebase(state.buffer, shift), env=envs)


@dataclasses.dataclass(frozen=True, eq=False)  # is static to jax.jit, by identity
class Loop:
    """One seed's training loop on the device: `init`, `advance`, `fit`, `evaluate` and `score` of `Train`."""

    env: Env
    eval_env: Env
    agent: Agent  # normalized, if inputs are
    spec: Spec
    sizes: Sizes
    normalize: bool
    command: Command | None = None  # law of the goals of episodes that collect; None: that of the environment

    def init(self, key: Array) -> RunState:
        key, agent_key, env_key = jax.random.split(key, 3)
        ring = buffer.init(row_of(self.spec, self.sizes.num_envs), self.sizes.max_replay_size, self.sizes.unroll_length)
        filled = self.sizes.prefill_unrolls * self.sizes.unroll_length
        stored = min(filled, len(ring.rows.reward)) if filled else None
        contract.require_horizon(self.agent.needs.horizon, self.sizes.max_episode_decisions, stored)
        agent_state = self.agent.init(agent_key)
        first = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], self._choices(ring, key)))
        updated, metrics = contract.pair(jax.eval_shape(self.update, agent_state, ring, first, key))
        contract.require_state(agent_state, updated)
        contract.require_scalars(metrics)
        self._require_actions(agent_state)
        memory = self._explore(agent_state).start(self.sizes.num_envs)
        return RunState(
            agent=agent_state,
            env=rollout.init(self.env, env_key, self.sizes.num_envs, memory, self._commands(ring)),
            buffer=ring,
            key=key,
            env_steps=counting.zero(),
            gradient_steps=counting.zero(),
            metric_sums={name: counting.empty() for name in ("updates", *metrics)},
        )

    def advance(self, state: RunState, unrolls: Array, updates: Array, *data: BufferState) -> RunState:
        state = rebased(state)
        # Loops of dynamic length: the host may cut training anywhere, and prefill too, with one compiled program.
        return jax.lax.fori_loop(0, unrolls, lambda _, state: self._train_step(state, updates, *data), state)

    def fit(self, state: RunState) -> RunState:
        if not self.normalize:
            return state
        filled = self.sizes.prefill_unrolls * self.sizes.unroll_length
        rows = jax.tree.map(lambda ring: ring[:filled], state.buffer.rows)
        state_map, goal_map = normalization.fit(rows, self.spec)
        return state._replace(agent=state.agent._replace(state_map=state_map, goal_map=goal_map))

    def evaluate(self, state: RunState) -> tuple[Metrics, rollout.Recording, rollout.Outcomes]:
        episodes, recording, outcomes = rollout.evaluate(
            self.eval_env,
            self._exploit(state.agent),
            # A stream of its own: train steps take the first four, and folding in 1 would give the second of them.
            jax.random.split(state.key, 5)[4],
            num_envs=self.sizes.num_eval_envs,
            episode_length=self.sizes.episode_length,
            action_repeat=self.sizes.action_repeat,
            recorded=self.sizes.recorded_episodes,
        )
        training = training_means(state)
        cells: goals.Cells | None = getattr(self.env, "cells", None)
        if cells is not None and isinstance(state.buffer, BufferState) and self.sizes.prefill_unrolls > 0:
            training["training/coverage"] = buffer.coverage(state.buffer, self.spec, cells)
        return {**training, **{f"eval/{name}": value for name, value in episodes.items()}}, recording, outcomes

    def score(self, state: RunState, observed: Array, future: Array) -> Array:
        assert self.agent.score is not None  # `make_train` leaves this function out for others
        return self.agent.score(state.agent, observed, future)

    def _require_actions(self, agent_state: AgentState) -> None:
        state, goal = jnp.zeros((2, self.spec.state_size)), jnp.zeros((2, self.spec.goal_size))
        for name, policy in (("act", self._explore(agent_state)), ("mode", self._exploit(agent_state))):
            action, _ = jax.eval_shape(policy.act, policy.start(2), state, goal, jax.random.PRNGKey(0))
            contract.require_action(name, action, 2, self.spec.action_size)

    def _explore(self, agent_state: AgentState) -> rollout.Policy:
        """What collects."""
        if (memory := self.agent.memory) is None:
            return rollout.memoryless(lambda observed, goal, key: self.agent.act(agent_state, observed, goal, key))
        start, act = memory.start, memory.act
        return rollout.Policy(
            functools.partial(act, agent_state), functools.partial(start, agent_state), reward=memory.reward
        )

    def _exploit(self, agent_state: AgentState) -> rollout.Policy:
        """What is evaluated."""
        if (memory := self.agent.memory) is None:
            return rollout.memoryless(lambda observed, goal, key: self.agent.mode(agent_state, observed, goal))
        start, mode = memory.start, memory.mode
        return rollout.Policy(
            lambda held, observed, goal, key: mode(agent_state, held, observed, goal),
            functools.partial(start, agent_state),
            memory.measures,
            memory.reward,
            memory.ended,
        )

    # Jitted, so that `init`, which needs the shapes of its metrics, and `advance` trace it only once.
    @functools.partial(jax.jit, static_argnums=0)
    def update(self, agent_state: AgentState, ring: Any, choice: buffer.Choice | mixing.Draw, key: Array):
        """(state of the agent, metrics) after one update; consumes key."""
        assert self.agent.update is not None  # those without are trained by another loop
        gather: Callable = mixing.gather if isinstance(choice, mixing.Draw) else buffer.gather
        batch = gather(ring, choice, self.spec, self.agent.needs)
        return self.agent.update(agent_state, sharding.divide(batch), key)

    def _train_step(self, state: RunState, updates: Array, *data: BufferState) -> RunState:
        key, unroll_key, choice_key, update_key = jax.random.split(state.key, 4)
        state = self._unroll(state._replace(key=key), unroll_key)
        ring = mixing.Rings(state.buffer, *data) if data else state.buffer
        return updating.learn(self.update, state, ring, self._choices(ring, choice_key), update_key, updates)

    def _unroll(self, state: RunState, key: Array) -> RunState:
        sizes = self.sizes
        envs, rows = rollout.unroll(
            self.env,
            self._explore(state.agent),
            state.env,
            state.buffer.count,
            key,
            length=sizes.unroll_length,
            episode_length=sizes.episode_length,
            action_repeat=sizes.action_repeat,
            commands=self._commands(state.buffer),
        )
        env_steps = counting.plus(state.env_steps, sizes.steps_per_unroll)
        return state._replace(env=envs, buffer=buffer.add(state.buffer, rows), env_steps=env_steps)

    def _commands(self, ring: BufferState) -> rollout.Commands | None:
        """The goals of fresh starts, where a law commands them."""
        if self.command is None:
            return None

        def achieved(key: Array, num: int) -> Array:
            return self.spec.goal_of(buffer.states(ring, key, num))

        scene = Scene(self.spec.goal_size, achieved, self.eval_env.sample_goal)
        return rollout.Commands(functools.partial(self.command.goals, scene), since=int(self.command.stored))

    def _choices(self, ring: BufferState | mixing.Rings, key: Array) -> Any:
        """Samples of all updates after an unroll, [updates, B]."""
        draw: Callable = mixing.choices if isinstance(ring, mixing.Rings) else updating.choices
        return draw(ring, key, self.sizes, self.agent.needs, self.spec, self.sizes.max_episode_decisions)


def row_of(spec: Spec, num_envs: int) -> Transition:
    """Shapes of a row of the buffer."""

    def entry(*size: int, dtype: Any = jnp.float32) -> Any:  # a shape, in the place of an array
        return jax.ShapeDtypeStruct((num_envs, *size), dtype)

    return Transition(
        state=entry(spec.state_size),
        goal=entry(spec.goal_size),
        action=entry(spec.action_size),
        reward=entry(),
        terminal=entry(),
        episode_start=entry(dtype=jnp.int32),
    )


def make_train(
    env: Env,
    eval_env: Env,
    agent: Agent,
    spec: Spec,
    sizes: Sizes,
    normalize: bool,
    num_seeds: int = 1,
    mesh: Mesh | None = None,
    command: Command | None = None,
) -> Train:
    """The functions of one run.

    Args:
      env, eval_env: of equal state, goal and action sizes.
      agent: the algorithm.
      spec: that of env.
      sizes: see there.
      normalize: feed the agent inputs normalised with the statistics of the prefill.
      num_seeds: with more than one, every function is `vmap`ped: keys, states and metrics get a leading axis.
      mesh: the devices (`sharding.make_mesh`); None for one.
      command: law of the goals of episodes that collect (`core.command`); None: that of the environment.
    """
    if normalize:
        agent = normalization.normalized(agent, spec)
    loop = Loop(env, eval_env, agent, spec, sizes, normalize, command)
    shared = int(sizes.offline_rows > 0)
    functions = sharding.on_devices(mesh, num_seeds, loop.init, loop.advance, loop.fit, loop.evaluate, shared)
    score = jax.jit(loop.score) if agent.score else None
    offline = updating.offline(loop.update, agent, spec, sizes, normalize, mesh, num_seeds)
    return Train(*functions, score=score, mode=agent.mode, compiler_options=env.compiler_options, offline=offline)


def compile_train(train: Train, key: Array, *data: BufferState) -> Train:
    """The functions compiled for the shapes of `key`, and `data` of advance; slow, or fast with a filled cache.

    One after the other on fewer than four cores: each needs up to 0.9 GB while it compiles, and XLA by itself keeps a
    second core half busy; else side by side.
    """
    state = jax.eval_shape(train.init, key)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def compiled(lowered: Any, options: dict) -> Any:
        program = lowered.compile(options | train.compiler_options)
        heap.trim()  # or what the compiler held would still be there as the next one takes its own
        return program

    with ThreadPoolExecutor(min(4, max(1, cores // 2))) as pool:  # one is traced while others compile

        def start(options: dict, function: Any, *args: Any) -> Future:
            return pool.submit(compiled, function.lower(*args), options)

        programs = [
            start({}, train.advance, state, count, count, *data),
            start({}, train.evaluate, state),
            start(RUN_ONCE, train.init, key),
            start(RUN_ONCE, train.fit, state),
        ]
        advance, evaluate, init, fit = (program.result() for program in programs)

    def advance_by(state: RunState, unrolls: int, updates: int, *data: BufferState) -> RunState:
        return advance(state, np.int32(unrolls), np.int32(updates), *data)

    return train._replace(init=init, advance=advance_by, fit=fit, evaluate=evaluate)
