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


def seconds(function: Callable, *args: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return time.perf_counter() - started, result


def measure(config: BenchmarkConfig, agent_config: PPOConfig) -> list[tuple[float, float]]:
    """Environment steps per second of both in every round, printed as they come: Brax's, ours. FlagError as in
    `make_run`."""
    run = make_run(config, agent_config)
    steps = config.phases * run.sizes.steps_per_unroll

    def train(report):
        # Brax waits for the device before it calls back.
        train_by_brax(run.env, run.config, agent_config, config.phases, progress_fn=lambda *_: report(None))

    brax, state, speeds = Reports(train), run.train.init(jax.random.PRNGKey(config.seed)), []
    for number in range(config.rounds + 1):
        theirs, _ = seconds(next, brax)
        ours, state = seconds(run.train.advance, state, config.phases, 0)
        if number > 0:  # the first round compiles
            speeds.append((steps / theirs, steps / ours))
            print(
                f"Brax {steps / theirs:,.0f} steps/s, ours {steps / ours:,.0f} steps/s, {theirs / ours:.3f}", flush=True
            )
    return speeds


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        config, agent_config = read_flags(argv, (BenchmarkConfig(), PPOConfig()), prog="benchmark_ppo.py")
        ratios = [ours / theirs for theirs, ours in measure(config, agent_config)]
    except FlagError as error:
        print(f"benchmark_ppo.py: {error}", file=sys.stderr)
        return 2
    print(f"ours / Brax: median {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return 0


if __name__ == "__main__":
    enable_compilation_cache()
    sys.exit(main(sys.argv[1:]))
