"""Measures speed, memory and compile time: parts of training that can go on for ever, and their rates in turns."""

import dataclasses
import importlib.metadata
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Wrapped

from goalax.agents import AGENTS
from goalax.core import buffer, normalization, rollout
from goalax.core.train import RUN_ONCE
from goalax.core.types import RunState
from goalax.flags import FlagError, flag
from goalax.host.config import Flags
from goalax.host.make import Run, make_run
from goalax.host.runs import PACKAGES

F = TypeVar("F", bound=Callable)
Step = Callable[[Any, jax.Array], tuple[Any, Any]]  # (carry, key) -> (carry, output)

CURVES = ("num_envs", "num_seeds", "batch_size", "episode_length", "max_replay_size", "h_dim", "n_hidden")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkFlags(Flags):
    """The flags of a run, and how to measure it."""

    num_devices: int | None = flag(1, "devices: each part is measured on one", low=1, high=1, scope="devices")
    seconds: float = flag(5.0, "measuring time of each part in each repeat, at least", above=0)
    repeats: int = flag(3, "times that every part is measured, in turns", low=1)
    out: str | None = flag(
        None,
        "JSON file for the results; a curve's CSV and PNG lie beside it (default: none, or CURVE.json)",
        aliases=["json"],
    )
    all_envs: bool = flag(False, "measure stepping alone, in all environments and in Brax's own with the same bodies")
    env_match: str = flag("", "regular expression for names; with --all_envs only those that match are measured")
    offline: bool = flag(False, "measure updates on a dataset, too: on what the buffer holds")
    profile: bool = flag(False, "show where the time of a train step goes: phases, kernels, roofline")
    trace: str | None = flag(
        None, "with --profile, directory in which the trace of a train step stays, as `xprof --logdir` reads it"
    )
    curve: str | None = flag(None, "measure training over the values of this flag, as JSON, CSV and PNG", valid=CURVES)
    values: str | None = flag(
        None, "values of the curve, with commas between them (default: a quarter to four times the run's own)"
    )


class Measured(Protocol):
    """What can go on for ever."""

    @property
    def work(self) -> float: ...  # of a round, whatever is counted
    def run(self, rounds: int) -> None: ...


def jitted(function: Callable) -> Wrapped:
    """A function of a run that is jitted, as what can be compiled ahead; those of the common loop are."""
    assert isinstance(function, Wrapped)
    return function


class Part:
    """A part of training that can go on for ever."""

    def __init__(self, run: Run, advance: Wrapped, state: Any, work: int, *rest: Any):
        """Compiles advance: (state, rounds, *rest) -> state, jitted; work: environment steps or updates of a round.

        A state of shapes only is compiled for as well, and set later.
        """
        started = time.perf_counter()
        self.advance = advance.lower(state, np.int32(1), *rest).compile(run.env.compiler_options)
        self.compile_seconds = time.perf_counter() - started
        self.state, self.work, self.rest = state, work, rest

    def run(self, rounds: int) -> None:
        self.state = jax.block_until_ready(self.advance(self.state, np.int32(rounds), *self.rest))

    @property
    def bytes(self) -> int:
        """Device memory that the program needs, its state included."""
        sizes = self.advance.memory_analysis()
        assert sizes is not None  # every backend of JAX counts them
        held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return held + sizes.temp_size_in_bytes


class Training(Part):
    """Training after the prefill; a round is an unroll with its updates."""

    def __init__(self, run: Run, key: jax.Array):
        """Compiles; holds no state before `start`. FlagError for an agent that another loop trains."""
        if not run.train.ahead:
            raise FlagError(f"--agent {run.config.agent} has a training loop of its own, without parts to measure.")
        if run.config.num_timesteps == 0:
            raise FlagError("--num_timesteps is 0; what is measured is training online, and with --offline on data.")
        sizes, shapes = run.sizes, jax.eval_shape(run.train.init, key)
        advance, updates = jitted(run.train.advance), np.int32(sizes.updates_per_unroll)
        super().__init__(run, advance, shapes, sizes.steps_per_unroll, updates, *run.mixed_in)
        self.key, self.prefill_unrolls = key, np.int32(sizes.prefill_unrolls)
        self.init, self.fit = (
            jitted(function).lower(argument).compile(RUN_ONCE | run.env.compiler_options)
            for function, argument in ((run.train.init, key), (run.train.fit, shapes))
        )

    def start(self) -> None:
        """Makes the state after the prefill."""
        self.state = None  # or there would be two of them for a while
        self.state = self.fit(self.advance(self.init(self.key), self.prefill_unrolls, np.int32(0), *self.rest[1:]))

    def stop(self) -> None:
        """Frees the state."""
        self.state = None


def env_only(run: Run, key: jax.Array) -> Part:
    """Environments under a uniformly random policy; a round is an unroll."""
    sizes = run.sizes
    lengths: dict[str, Any] = {"length": sizes.unroll_length}
    lengths |= {"episode_length": sizes.episode_length, "action_repeat": sizes.action_repeat}

    def policy(observed, goal, key):
        return jax.random.uniform(key, (sizes.num_envs, run.env.action_size), minval=-1.0)

    def unroll(envs, key):
        return rollout.unroll(run.env, rollout.memoryless(policy), envs, jnp.int32(0), key, **lengths)

    init = per_seed(run, lambda key: rollout.init(run.env, key, sizes.num_envs))
    envs = jax.jit(init, compiler_options=RUN_ONCE | run.env.compiler_options)(key)
    return loop(run, unroll, envs, key, sizes.steps_per_unroll)


def one_update(run: Run, key: jax.Array, trained: RunState) -> tuple[Step, Any]:
    """(step, carry): one update of a trained state on one batch; the output of a step are metrics."""
    sizes, spec, make = run.sizes, run.spec, AGENTS[run.config.agent].make
    assert make is not None  # `Training` refuses what has a loop of its own
    agent = make(run.agent_config, spec)
    agent = normalization.normalized(agent, spec) if run.config.normalize_observations else agent
    learn = agent.update
    assert learn is not None  # as every agent of the common loop has
    law = (sizes.batch_size, spec, sizes.max_episode_decisions, agent.needs)

    def update(carry, key):
        state, rows = carry
        state, metrics = learn(state, rows, key)
        return (state, rows), metrics

    batch = jax.jit(per_seed(run, lambda ring, key: buffer.sample(ring, key, *law)))(trained.buffer, key)
    return update, (trained.agent, batch)


def updates_only(run: Run, key: jax.Array, trained: RunState) -> Part:
    """Updates of a trained state on one batch; a round is one update."""
    update, carry = one_update(run, key, trained)
    return loop(run, update, carry, key, 1)


class Learning:
    """Updates on a dataset, with the samples that they draw: on what a state holds. A round is a phase of them."""

    def __init__(self, run: Run, trained: RunState):
        """Compiles, which makes the first round."""
        assert run.train.offline is not None  # `Training` refuses what has none
        self.learn, self.work = run.train.offline.learn, run.sizes.updates_per_unroll
        self.state, self.data = jax.tree.map(jnp.copy, (trained, trained.buffer))
        if run.config.num_seeds > 1:  # a dataset is one for all seeds
            self.data = jax.tree.map(lambda leaf: leaf[0], self.data)
        started = time.perf_counter()
        self.run(1)
        self.compile_seconds = time.perf_counter() - started

    def run(self, rounds: int) -> None:
        self.state = jax.block_until_ready(self.learn(self.state, self.data, rounds, self.work))


def loop(run: Run, step: Step, carry: Any, key: jax.Array, work: int) -> Part:
    """The part that repeats a step; it keeps the last output, or XLA would cut work."""
    output = jax.tree.map(jnp.zeros_like, jax.eval_shape(per_seed(run, step), carry, key)[1])

    def body(_, state):
        carry, _, key = state
        key, step_key = jax.random.split(key)
        return *step(carry, step_key), key

    advance = per_seed(run, lambda state, rounds: jax.lax.fori_loop(0, rounds, body, state), (0, None))
    state = jax.tree.map(jnp.copy, (carry, output, key))  # others use the originals, and these are donated
    return Part(run, jax.jit(advance, donate_argnums=0), state, work)


def per_seed(run: Run, function: F, in_axes: int | Sequence[int | None] = 0) -> F:
    """The function of one seed as that of all seeds of a run."""
    return jax.vmap(function, in_axes) if run.config.num_seeds > 1 else function


def rate(part: Measured, seconds: float) -> float:
    """Work per second, measured for at least so many seconds."""
    rounds, elapsed, started = 0, 0.0, time.perf_counter()
    while elapsed < seconds:
        more = 1 + int(rounds * (seconds - elapsed) / elapsed) if rounds else 1
        part.run(more)
        rounds, elapsed = rounds + more, time.perf_counter() - started
    return rounds * part.work / elapsed


def sample(parts: Mapping[str, Measured], config: BenchmarkFlags, updates_per_step: float) -> dict[str, float]:
    """Rates of all parts, taken in turn because the load of a machine changes, and the limit that two of them set."""
    rates = {name: config.num_seeds * rate(part, config.seconds) for name, part in parts.items()}
    seconds_per_step = 1 / rates["env_only"] + updates_per_step / rates["updates_only"]
    return {**rates, "limit": 1 / seconds_per_step, "efficiency": rates["end_to_end"] * seconds_per_step}


def measure(config: BenchmarkFlags, agent_config: Any) -> dict[str, Any]:
    """Rates of all parts, compile times and memory of one run. FlagError as in `make_run`."""
    run = make_run(config, agent_config)
    key = jnp.asarray(run.keys(run.config.seed))
    train = Training(run, key)
    train.start()
    parts: dict[str, Part | Learning] = {"env_only": env_only(run, key), "end_to_end": train}
    parts["updates_only"] = updates_only(run, key, train.state)
    if config.offline:
        parts["offline_updates"] = Learning(run, train.state)
    for part in parts.values():
        part.run(1)  # the first call is never measured
    updates_per_step = run.sizes.updates_per_unroll / run.sizes.steps_per_unroll
    samples = [sample(parts, config, updates_per_step) for _ in range(config.repeats)]
    return {
        **flags_of(run),
        "updates_per_step": updates_per_step,
        **{name: spread([rates[name] for rates in samples]) for name in samples[0]},
        "compile_seconds": {name: part.compile_seconds for name, part in parts.items()},
        "bytes": memory(train),
    }


def flags_of(run: Run) -> dict[str, Any]:
    return {"flags": dataclasses.asdict(run.config), "agent_flags": dataclasses.asdict(run.agent_config)}


def spread(values: list[float]) -> dict[str, Any]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values), "samples": values}


def memory(train: Training) -> dict[str, int]:
    """Bytes; peaks are those of the process so far, and a CPU has none for the device."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    buffer_size = sum(leaf.nbytes for leaf in jax.tree.leaves(train.state.buffer))
    sizes = {"host_peak": host, "device_peak": peak, "buffer": buffer_size, "program": train.bytes}
    return {name: size for name, size in sizes.items() if size is not None}


def machine() -> dict[str, Any]:
    versions = {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in PACKAGES}}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device, "cores": cores, "load_average": os.getloadavg()[0], "versions": versions}
