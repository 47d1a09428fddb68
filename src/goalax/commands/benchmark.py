"""Measures the speed of a run, part by part, against the limit that its parts set; takes the flags of training.py."""

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from goalax.agents import AGENTS
from goalax.envs import ENVS
from goalax.envs.control import TASKS
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.places import writable
from goalax.speed import cost_curves, roofline
from goalax.speed.benchmark import BenchmarkFlags, machine, measure
from goalax.speed.roofline import Kernels
from goalax.speed.stepping import measure_env
from goalax.whole import aside

UNITS = {
    **{"env_only": "steps/s", "updates_only": "updates/s", "end_to_end": "steps/s", "limit": "steps/s"},
    "offline_updates": "updates/s",
}
Mode = Callable[[BenchmarkFlags, Any], list[dict[str, Any]]]  # (config, agent_config) -> results


def show(result: dict[str, Any]) -> None:
    """Prints one result as a table."""
    table = Table("", "median", "min", "max", "", "compiled in", title=title(result))
    for name in (name for name in (*UNITS, "efficiency") if name in result):
        numbers = [f"{result[name][key]:{',.0f' if name in UNITS else '.3f'}}" for key in ("median", "min", "max")]
        seconds = result["compile_seconds"].get(name)
        table.add_row(name, *numbers, UNITS.get(name, "of the limit"), f"{seconds:.1f} s" if seconds else "")
    table.caption = ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in result["bytes"].items())
    Console().print(table)


def title(result: dict[str, Any]) -> str:
    return "{agent} on {env_name}, {num_envs} environments".format(**result["flags"])


def measure_run(config: BenchmarkFlags, agent_config: Any) -> list[dict[str, Any]]:
    """The one result of `measure`, printed."""
    result = measure(config, agent_config)
    show(result)
    return [result]


def measure_envs(config: BenchmarkFlags, agent_config: Any) -> list[dict[str, Any]]:
    """Speeds of all environments, printed as they come. FlagError if none is meant."""
    try:
        names = [name for name in ENVS if name not in TASKS and re.search(config.env_match, name)]
    except re.error as error:
        raise FlagError(f"--env_match is {config.env_match!r}; it must be a regular expression ({error}).") from None
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


def measure_profile(config: BenchmarkFlags, agent_config: Any) -> list[dict[str, Any]]:
    """The one result of `roofline.profile`, printed."""
    result = roofline.profile(config, agent_config)
    phases = Table("", "ms", "share", "kernels", "us per kernel", title=f"One train step of {title(result)}")
    for name, seconds in result["seconds"].items():
        share = seconds["median"] / result["seconds"]["train step"]["median"]
        kernels = kernels_of(result["phases"], roofline.ROWS[name])
        cells = f"{1e3 * seconds['median']:,.1f}", f"{share:.0%}", f"{kernels:,}"
        phases.add_row(name, *cells, f"{1e6 * seconds['median'] / max(1, kernels):.2f}")
    programs = Table("", *result["programs"], title="One update, and one physics step of all environments")
    for label, cell in PROGRAM_ROWS.items():
        programs.add_row(label, *(cell(program) for program in result["programs"].values()))
    machine_table = Table("limit of the machine", "median", "min", "max", "")
    for name, rates in result["limits"].items():
        unit = "GB/s" if name == "memory" else "GFLOP/s"
        machine_table.add_row(name, *(f"{rates[key] / 1e9:,.1f}" for key in ("median", "min", "max")), unit)
    for table in (phases, programs, machine_table):
        Console().print(table)
    return [result]


PROGRAM_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "time": lambda program: f"{1e6 * program['seconds']['median']:,.0f} us",
    "MFLOP by XLA": lambda program: f"{program['flops'] / 1e6:,.2f}",
    "MFLOP of matrix products": lambda program: f"{program['matmul_flops'] / 1e6:,.2f}",
    "MB of its kernels by XLA": lambda program: f"{program['bytes'] / 1e6:,.2f}",
    "MB in and out": lambda program: f"{program['bytes_in_and_out'] / 1e6:,.2f}",
    "FLOP per byte by XLA": lambda program: f"{program['flops'] / program['bytes']:.2f}",
    "kernels": lambda program: f"{kernels_of(program['kernels'], program['kernels']):,}",
    "most of them": lambda program: ", ".join(f"{kind['kernels']:,} {name}" for name, kind in top(program["kernels"])),
    "us per kernel": lambda program: (
        f"{1e6 * program['seconds']['median'] / kernels_of(program['kernels'], program['kernels']):.2f}"
    ),
    "GFLOP/s in matrix products": lambda program: f"{program['matmul_flops_per_second']['median'] / 1e9:,.2f}",
    "of the matmul peak": lambda program: f"{program['of_matmul_peak']['median']:.1%}",
}


def kernels_of(groups: Mapping[str, Kernels], names: Iterable[str]) -> int:
    return sum(groups[name]["kernels"] for name in names if name in groups)


def top(kinds: Mapping[str, Kernels]) -> list[tuple[str, Kernels]]:
    return sorted(kinds.items(), key=lambda item: -item[1]["kernels"])[:3]


def measure_curve(config: BenchmarkFlags, agent_config: Any) -> list[dict[str, Any]]:
    """The rows of a cost curve, printed, and saved as CSV and PNG."""
    rows = cost_curves.measure(config, agent_config, lambda words: print(words, file=sys.stderr, flush=True))
    print(" ".join(f"{column:>16}" for column in cost_curves.COLUMNS))
    for row in rows:
        cells = [f"{value:,.4g}" if isinstance(value, float) else str(value or "") for value in row.values()]
        print(" ".join(f"{cell:>16}" for cell in cells))
    where = f"{config.agent} on {config.env_name}, {machine()['device']}"
    path = output(config)
    assert path is not None  # a curve has one
    cost_curves.save_csv(rows, path.with_suffix(".csv"))
    cost_curves.draw(rows, cost_curves.curve_of(config), where, path.with_suffix(".png"))
    return rows


def output(config: BenchmarkFlags) -> Path | None:
    """The file for the results, if any; FlagError if it cannot be written or its name is taken by another."""
    name = config.out or (f"{config.curve}.json" if config.curve else None)
    if name and config.curve and Path(name).suffix != ".json":
        raise FlagError(f"--out is {name!r}; with --curve it must end in .json: CSV and PNG lie beside it.")
    if not name:
        return None
    for suffix in (".csv", ".png") if config.curve else ():
        writable("out", str(Path(name).with_suffix(suffix)))
    return writable("out", name)


def mode(config: BenchmarkFlags) -> Mode:
    """What the flags ask for; FlagError if they ask for two things."""
    asked: dict[str, Mode] = {"all_envs": measure_envs, "profile": measure_profile, "curve": measure_curve}
    names = [name for name in asked if getattr(config, name)]
    if len(names) > 1:
        raise FlagError(f"--{names[0]} and --{names[1]} are two measurements; give one of them.")
    if config.env_match and not config.all_envs:
        raise FlagError("--env_match is that of --all_envs; give both.")
    if config.offline and names and names != ["curve"]:
        raise FlagError(f"--offline is that of a run; --{names[0]} has none.")
    if config.values is not None and not config.curve:
        raise FlagError("--values are those of a --curve; name its flag.")
    if config.trace is not None:
        if not config.profile:
            raise FlagError("--trace is that of a --profile; give both.")
        os.makedirs(config.trace, exist_ok=True)  # now, not after minutes of measuring
    return asked[names[0]] if names else measure_run


def start() -> None:
    """What it does first where it is a program of its own."""
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would take no time to compile


def main(argv: Sequence[str], prog: str = "benchmark.py") -> int:
    """Runs a command line; returns the exit code."""
    defaults = BenchmarkFlags(num_timesteps=2**31 - 1)  # no run is too short to be measured
    path = None
    try:
        config, agent_config = read_flags(argv, (defaults, AGENTS[defaults.agent].config()), prog=prog)
        path, measured = output(config), mode(config)
        results = measured(config, agent_config)
        if path:
            content = {"machine": machine(), "command": [prog, *argv], "results": results}
            with aside(path) as part:
                part.write_text(json.dumps(content, indent=2) + "\n")
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, say
        print(f"{prog}: {error.filename or path or 'a file'} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    return 0
