"""Predicts, from the counts of a profile, what 1, 8 and 64 GPUs would do: a Markdown table. It measures nothing."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from goalax.flags import FlagError, flag, parse
from goalax.host.make import make
from goalax.host.memory import num_bytes
from goalax.speed.scale import Counts, Machine, counts_of, predict

ENVS, SEEDS, GPUS = (512, 4096, 65_536), (1, 8, 64), (1, 8, 64)


@dataclasses.dataclass(frozen=True)
class ScaleConfig:
    """What was counted."""

    profile: str = flag("benchmarks/cpu/profile_ant.json", "file of `goalax benchmark --profile --out FILE`")


def counted(path: str) -> Counts:
    """The counts of a profile, with the bytes that its run holds; FlagError if it is none."""
    try:
        (profile,) = json.loads(Path(path).read_text())["results"]
        flags = profile["flags"]
        if unlike := [name for name in ("num_seeds", "action_repeat") if flags[name] > 1]:
            raise FlagError(f"--profile is {path!r}, of a run with --{unlike[0]} above 1; it must be 1.")
        run = make(flags["env_name"], agent=flags["agent"], **profile["agent_flags"])
        state = jax.eval_shape(run.train.init, run.keys(0))
        rows = flags["max_replay_size"] / run.config.max_replay_size
        return counts_of(profile, rows * num_bytes(state.buffer) / run.sizes.num_envs, num_bytes(state.agent))
    except FlagError:
        raise
    except OSError as error:
        raise FlagError(f"--profile is {path!r}, which cannot be read: {error.strerror}.") from None
    except (KeyError, ValueError, TypeError):
        raise FlagError(
            f"--profile is {path!r}; it must be a file of `goalax benchmark --profile --out FILE`."
        ) from None


def table(counts: Counts) -> list[str]:
    """The predictions as Markdown, with what they assume."""
    machine = Machine()
    lines = ["| --num_envs | --num_seeds | GPUs | steps/s, all seeds | first bottleneck |", "|---|---|---|---|---|"]
    for num_envs in ENVS:
        for num_seeds in SEEDS:
            for num_gpus in GPUS:
                speed, bottleneck = predict(counts, num_envs, num_seeds, num_gpus, machine)
                shown = f"{speed:,.0f}" if speed else "does not run"
                lines.append(f"| {num_envs:,} | {num_seeds} | {num_gpus} | {shown} | {bottleneck} |")
    per_env = f"{counts.buffer_bytes / 1e6:.2f} MB of buffer per environment"
    update, physics = (
        f"{work['kernels']:,.0f} kernels, {work['flops'] / 1e6:,.1f} MFLOP, {work['bytes'] / 1e6:,.1f} MB"
        for work in (counts.update, counts.physics)
    )
    return [
        *lines,
        "",
        f"Counted: an update {update}; a step of {counts.num_envs} environments {physics}; {per_env};"
        f" {counts.updates_per_step:.4f} updates per step.",
        f"Assumed: {machine.flops / 1e12:g} TFLOP/s, {machine.bandwidth / 1e12:g} TB/s and {machine.memory / 1e9:g} GB"
        f" a GPU, {machine.launch * 1e6:g} us a kernel, {machine.node} GPUs a node,"
        f" {machine.link[0] / 1e9:g} GB/s and {machine.link[1] * 1e6:g} us an exchange within it,"
        f" {machine.network[0] / 1e9:g} GB/s and {machine.network[1] * 1e6:g} us between nodes.",
    ]


def main(argv: Sequence[str], prog: str = "scale.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Predicts the speed of 1, 8 and 64 GPUs from the counts of a profile."
        (config,) = parse(argv, ScaleConfig(), others={}, prog=prog, description=description)
        print("\n".join(table(counted(config.profile))))
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0
