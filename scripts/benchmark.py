"""Measures the speed of a run, part by part, against the limit that its parts set; takes the flags of training.py."""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from envs import ENVS
from src import buffer, normalization, rollout
from src.agents import AGENTS
from src.flags import FlagError, flag
from src.runs import PACKAGES
from src.train import spec_of
from utils import Config, Run, make_run, read_flags

BRAX_NAMES = {  # of the same bodies, in the same surroundings
    "reacher": "reacher",
    "cheetah": "halfcheetah",
    "pusher_easy": "pusher",
    "pusher_hard": "pusher",
    "pusher_reacher": "pusher",
    "ant": "ant",
    "ant_random_start": "ant",
    "humanoid": "humanoid",
}
UNITS = {"env_only": "steps/s", "updates_only": "updates/s", "end_to_end": "steps/s", "limit": "steps/s"}


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(Config):
    """The flags of a run, and how to measure it."""

    seconds: float = flag(5.0, "measuring time of each part in each repeat, at least", above=0)
    repeats: int = flag(3, "times that every part is measured, in turns", low=1)
    out: str | None = flag(None, "JSON file for the results", aliases=["json"])
    all_envs: bool = flag(False, "measure stepping alone, in all environments and in Brax's own with the same bodies")
    env_match: str = flag("", "regular expression for names; with --all_envs only those that match are measured")


class Part:
    """A part of training that can go on for ever."""

    def __init__(self, advance: Callable, state: Any, work: int, *rest: Any):
        """Compiles advance: (state, rounds, *rest) -> state, jitted; work: environment steps or updates of a round."""
        started = time.perf_counter()
        self.advance = advance.lower(state, np.int32(1), *rest).compile()
        self.compile_seconds = time.perf_counter() - started
        self.state, self.work, self.rest = state, work, rest

    def run(self, rounds: int) -> None:
        self.state = jax.block_until_ready(self.advance(self.state, np.int32(rounds), *self.rest))


def end_to_end(run: Run, key: jax.Array) -> Part:
    """Training after the prefill; a round is an unroll with its updates."""
    sizes, updates = run.sizes, np.int32(run.sizes.updates_per_unroll)
    part = Part(run.train.advance, run.train.init(key), sizes.steps_per_unroll, updates)
    part.state = run.train.fit(part.advance(part.state, np.int32(sizes.prefill_unrolls), np.int32(0)))
    return part


def env_only(run: Run, key: jax.Array) -> Part:
    """Environments under a uniformly random policy; a round is an unroll."""
    sizes = run.sizes
    lengths = dict(length=sizes.unroll_length, episode_length=sizes.episode_length, action_repeat=sizes.action_repeat)

    def policy(observed, goal, key):
        return jax.random.uniform(key, (sizes.num_envs, run.env.action_size), minval=-1.0)

    def unroll(envs, key):
        return rollout.unroll(run.env, policy, envs, jnp.int32(0), key, **lengths)

    envs = jax.jit(per_seed(run, lambda key: rollout.init(run.env, key, sizes.num_envs)))(key)
    return loop(run, unroll, envs, key, sizes.steps_per_unroll)


def brax_only(run: Run, key: jax.Array) -> Part:
    """As env_only, in Brax's own environment with the same body, and with Brax's wrappers and data collection."""
    from brax.envs import get_environment
    from brax.envs.wrappers import training
    from brax.training import acting

    sizes = run.sizes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that its engines are in maintenance
        env = get_environment(BRAX_NAMES[run.config.env_name], backend=run.env.backend, n_frames=run.env._n_frames)
    env = training.wrap(env, sizes.episode_length, sizes.action_repeat)

    def policy(observed, key):
        return jax.random.uniform(key, (sizes.num_envs, env.action_size), minval=-1.0), {}

    def unroll(state, key):
        return acting.generate_unroll(env, state, policy, key, sizes.unroll_length)

    return loop(run, unroll, jax.jit(env.reset)(jax.random.split(key, sizes.num_envs)), key, sizes.steps_per_unroll)


def updates_only(run: Run, key: jax.Array, trained: Any) -> Part:
    """Updates of a trained state on one batch; a round is one update."""
    sizes, spec = run.sizes, spec_of(run.env, run.config.discounting)
    agent = AGENTS[run.config.agent].make(run.agent_config, spec)
    agent = normalization.normalized(agent, spec) if run.config.normalize_observations else agent
    law = (sizes.batch_size, spec, sizes.max_episode_decisions)

    def update(carry, key):
        state, metrics = agent.update(*carry, key)
        return (state, carry[1]), metrics

    batch = jax.jit(per_seed(run, lambda ring, key: buffer.sample(ring, key, *law)))(trained.buffer, key)
    return loop(run, update, (trained.agent, batch), key, 1)


def loop(run: Run, step: Callable, carry: Any, key: jax.Array, work: int) -> Part:
    """The part that repeats step: (carry, key) -> (carry, output); it keeps the last output, or XLA would cut work."""
    output = jax.tree.map(jnp.zeros_like, jax.eval_shape(per_seed(run, step), carry, key)[1])

    def body(_, state):
        carry, _, key = state
        key, step_key = jax.random.split(key)
        return *step(carry, step_key), key

    advance = per_seed(run, lambda state, rounds: jax.lax.fori_loop(0, rounds, body, state), (0, None))
    state = jax.tree.map(jnp.copy, (carry, output, key))  # others use the originals, and these are donated
    return Part(jax.jit(advance, donate_argnums=0), state, work)


def per_seed(run: Run, function: Callable, in_axes: Any = 0) -> Callable:
    return jax.vmap(function, in_axes) if run.config.num_seeds > 1 else function


def rate(part: Part, seconds: float) -> float:
    """Work per second, measured for at least so many seconds."""
    rounds, elapsed, started = 0, 0.0, time.perf_counter()
    while elapsed < seconds:
        more = 1 + int(rounds * (seconds - elapsed) / elapsed) if rounds else 1
        part.run(more)
        rounds, elapsed = rounds + more, time.perf_counter() - started
    return rounds * part.work / elapsed


def sample(parts: dict[str, Part], config: BenchmarkConfig, updates_per_step: float) -> dict[str, float]:
    """Rates of all parts, taken in turn because the load of a machine changes, and the limit that two of them set."""
    rates = {name: config.num_seeds * rate(part, config.seconds) for name, part in parts.items()}
    seconds_per_step = 1 / rates["env_only"] + updates_per_step / rates["updates_only"]
    return {**rates, "limit": 1 / seconds_per_step, "efficiency": rates["end_to_end"] * seconds_per_step}


def measure(config: BenchmarkConfig, agent_config: Any) -> dict[str, Any]:
    """Rates of all parts, compile times and memory of one run. FlagError as in `make_run`."""
    run = make_run(config, agent_config)
    if not run.train.ahead:
        raise FlagError(f"--agent {run.config.agent} has a training loop of its own, which has no parts to measure.")
    keys = jnp.stack([jax.random.PRNGKey(config.seed + index) for index in range(config.num_seeds)])
    key = keys if config.num_seeds > 1 else keys[0]
    train = end_to_end(run, key)
    parts = {"env_only": env_only(run, key), "updates_only": updates_only(run, key, train.state), "end_to_end": train}
    for part in parts.values():
        part.run(1)  # the first call is never measured
    updates_per_step = run.sizes.updates_per_unroll / run.sizes.steps_per_unroll
    samples = [sample(parts, config, updates_per_step) for _ in range(config.repeats)]
    return {
        "flags": dataclasses.asdict(run.config),
        "agent_flags": dataclasses.asdict(agent_config),
        "updates_per_step": updates_per_step,
        **{name: spread([rates[name] for rates in samples]) for name in samples[0]},
        "compile_seconds": {name: part.compile_seconds for name, part in parts.items()},
        "bytes": memory(train.state.buffer),
    }


def measure_env(config: BenchmarkConfig, agent_config: Any, name: str, num_envs: int) -> dict[str, Any]:
    """Steps per second of one environment, of Brax's own where there is one, and their ratio, in turns."""
    run = make_run(dataclasses.replace(config, env_name=name, num_envs=num_envs, num_seeds=1), agent_config)
    key = jax.random.PRNGKey(config.seed)
    measured = {"steps": env_only, "brax": brax_only} if name in BRAX_NAMES else {"steps": env_only}
    parts = {part: make(run, key) for part, make in measured.items()}
    for part in parts.values():
        part.run(1)
    samples = [{part: rate(parts[part], config.seconds) for part in parts} for _ in range(config.repeats)]
    rates = {part: spread([one[part] for one in samples]) for part in parts}
    if "brax" in parts:
        rates["ratio"] = spread([one["steps"] / one["brax"] for one in samples])
    return {"env_name": name, "backend": run.config.backend, "num_envs": num_envs, **rates}


def spread(values: list[float]) -> dict[str, Any]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values), "samples": values}


def memory(ring: Any) -> dict[str, int]:
    """Bytes; peaks are those of the process so far, and a CPU has none for the device."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    sizes = {"host_peak": host, "device_peak": peak, "buffer": sum(leaf.nbytes for leaf in jax.tree.leaves(ring))}
    return {name: size for name, size in sizes.items() if size is not None}


def machine() -> dict[str, Any]:
    versions = {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in PACKAGES}}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"
    return {"device": device, "cores": os.cpu_count(), "load_average": os.getloadavg()[0], "versions": versions}


def show(result: dict[str, Any]) -> None:
    """Prints one result as a table."""
    table = Table("", "median", "min", "max", "", "compiled in")
    table.title = "{agent} on {env_name}, {num_envs} environments".format(**result["flags"])
    for name in (*UNITS, "efficiency"):
        numbers = [f"{result[name][key]:{',.0f' if name in UNITS else '.3f'}}" for key in ("median", "min", "max")]
        seconds = result["compile_seconds"].get(name)
        table.add_row(name, *numbers, UNITS.get(name, "of the limit"), f"{seconds:.1f} s" if seconds else "")
    table.caption = ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in result["bytes"].items())
    Console().print(table)


def measure_envs(config: BenchmarkConfig, agent_config: Any) -> list[dict[str, Any]]:
    """Speeds of all environments, printed as they come. FlagError if none is meant."""
    names = [name for name in ENVS if re.search(config.env_match, name)]
    if not names:
        raise FlagError(f"--env_match is {config.env_match!r}; it must match the name of an environment.")
    line, results = "{:24}{:>12}{:>14}{:>12}{:>12}{:>8}  {}".format, []
    print(line("", "backend", "environments", "steps/s", "Brax's own", "ratio", "min to max"))
    for name, num_envs in itertools.product(names, (64, 512)):
        result = measure_env(config, agent_config, name, num_envs)
        results.append(result)
        words = ["", "", ""]
        if "brax" in result:
            ratio = "{median:.2f}|{min:.2f} to {max:.2f}".format(**result["ratio"])
            words = [f"{result['brax']['median']:,.0f}", *ratio.split("|")]
        print(line(name, result["backend"], num_envs, f"{result['steps']['median']:,.0f}", *words), flush=True)
    return results


def measure_run(config: BenchmarkConfig, agent_config: Any) -> list[dict[str, Any]]:
    """The one result of `measure`, printed."""
    result = measure(config, agent_config)
    show(result)
    return [result]


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    defaults = BenchmarkConfig(num_timesteps=2**31 - 1)  # no run is too short to be measured
    try:
        config, agent_config = read_flags(argv, (defaults, AGENTS[defaults.agent].config()), prog="benchmark.py")
        if config.out and not Path(config.out).absolute().parent.is_dir():
            raise FlagError(f"--out is {config.out!r}; it must be a file in a directory that exists.")
        results = (measure_envs if config.all_envs else measure_run)(config, agent_config)
    except FlagError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    if config.out:
        Path(config.out).write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would take no time to compile
    sys.exit(main(sys.argv[1:]))
