"""Compares the speed of --agent ppo with Brax's trainer called directly, in turns; takes the flags of training.py."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from goalax.agents.brax.callbacks import Reports
from goalax.agents.brax.flags import PPOConfig
from goalax.agents.brax.trainer import train_by_brax
from goalax.flags import FlagError, flag
from goalax.host.cache import enable_compilation_cache
from goalax.host.config import Flags, read_flags
from goalax.host.make import make_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkFlags(Flags):
    """The flags of a run, and how to measure it."""

    agent: str = flag("ppo", "algorithm", valid=("ppo",))
    rounds: int = flag(12, "times that both are measured, in turns", low=1)
    phases: int = flag(10, "learning phases of each in a round", low=1)


def seconds(function: Callable, *args: Any) -> tuple[np.ndarray, Any]:
    """Wall clock and processor time of a call, [2], and what it returns."""
    started = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*args))
    return np.subtract((time.perf_counter(), time.process_time()), started), result


def measure(config: BenchmarkFlags, agent_config: PPOConfig) -> np.ndarray:
    """Brax's time over ours in every round, printed as they come: [rounds, 2], wall clock and processor time.

    FlagError as in `make_run`.
    """
    run = make_run(config, agent_config)
    steps = config.phases * run.sizes.steps_per_unroll

    def train(report):
        # Brax waits for the device before it calls back.
        normalize = run.config.normalize_observations
        train_by_brax(run.env, run.sizes, agent_config, normalize, config.phases, progress_fn=lambda *_: report(None))

    brax, state, ratios = Reports(train), run.train.init(jax.random.PRNGKey(config.seed)), []
    for number in range(config.rounds + 1):
        theirs, _ = seconds(next, brax)
        ours, state = seconds(run.train.advance, state, config.phases, 0)
        if number > 0:  # the first round compiles
            ratios.append(theirs / ours)
            speeds = f"Brax {steps / theirs[0]:,.0f} steps/s, ours {steps / ours[0]:,.0f} steps/s"
            print(f"{speeds}, ratio {ratios[-1][0]:.3f}, of processor time {ratios[-1][1]:.3f}", flush=True)
    return np.array(ratios)


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "benchmark_ppo.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        config, agent_config = read_flags(argv, (BenchmarkFlags(), PPOConfig()), prog=prog)
        ratios = measure(config, agent_config)
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    for name, values in zip(("wall clock", "processor time"), ratios.T, strict=True):
        print(f"{name}: median ratio {np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})")
    return 0
