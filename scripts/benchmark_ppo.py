#!/usr/bin/env python
"""Compares the speed of --agent ppo with Brax's trainer called directly, in turns; takes the flags of training.py."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.agents.ppo import PPOConfig
from src.callbacks import Reports
from src.flags import FlagError, flag
from src.ppo import train_by_brax
from utils import Config, enable_compilation_cache, make_run, read_flags


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(Config):
    """The flags of a run, and how to measure it."""

    agent: str = flag("ppo", "algorithm", valid=("ppo",))
    rounds: int = flag(12, "times that both are measured, in turns", low=1)
    phases: int = flag(10, "learning phases of each in a round", low=1)


def seconds(function: Callable, *args: Any) -> tuple[np.ndarray, Any]:
    """Wall clock and processor time of a call, [2], and what it returns."""
    started = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*args))
    return np.subtract((time.perf_counter(), time.process_time()), started), result


def measure(config: BenchmarkConfig, agent_config: PPOConfig) -> np.ndarray:
    """Brax's time over ours in every round, printed as they come: [rounds, 2], wall clock and processor time.

    FlagError as in `make_run`.
    """
    run = make_run(config, agent_config)
    steps = config.phases * run.sizes.steps_per_unroll

    def train(report):
        # Brax waits for the device before it calls back.
        train_by_brax(run.env, run.config, agent_config, config.phases, progress_fn=lambda *_: report(None))

    brax, state, ratios = Reports(train), run.train.init(jax.random.PRNGKey(config.seed)), []
    for number in range(config.rounds + 1):
        theirs, _ = seconds(next, brax)
        ours, state = seconds(run.train.advance, state, config.phases, 0)
        if number > 0:  # the first round compiles
            ratios.append(theirs / ours)
            speeds = f"Brax {steps / theirs[0]:,.0f} steps/s, ours {steps / ours[0]:,.0f} steps/s"
            print(f"{speeds}, ratio {ratios[-1][0]:.3f}, of processor time {ratios[-1][1]:.3f}", flush=True)
    return np.array(ratios)


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        config, agent_config = read_flags(argv, (BenchmarkConfig(), PPOConfig()), prog="benchmark_ppo.py")
        ratios = measure(config, agent_config)
    except FlagError as error:
        print(f"benchmark_ppo.py: {error}", file=sys.stderr)
        return 2
    for name, values in zip(("wall clock", "processor time"), ratios.T, strict=True):
        print(f"{name}: median ratio {np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})")
    return 0


if __name__ == "__main__":
    enable_compilation_cache()
    sys.exit(main(sys.argv[1:]))
