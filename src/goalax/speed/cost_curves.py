"""Cost curves: speed, memory and compile time of training over the values of one flag, as rows, CSV and PNG."""

import csv
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from goalax.flags import FlagError, check, convert
from goalax.host.make import make_run
from goalax.host.resolve import resolve
from goalax.speed.benchmark import BenchmarkFlags, Training, rate, spread
from goalax.whole import aside

FACTORS = (0.25, 0.5, 1, 2, 4)
COLUMNS = ("value", "steps_per_second", "min", "max", "updates_per_step", "program_mib", "compile_seconds", "gap")
PANELS = {  # -> axis label
    "steps_per_second": "steps/s, all seeds",
    "program_mib": "memory of the program in MiB",
    "compile_seconds": "compile time in s",
}


def curve_of(config: BenchmarkFlags) -> str:
    """The flag over whose values it is measured."""
    assert config.curve is not None  # or nobody would ask for a curve
    return config.curve


def values_of(config: BenchmarkFlags, agent_config: Any) -> list[int]:
    """The values to measure, in rising order; FlagError if they are no whole numbers, or of no flag of the agent."""
    if not (hasattr(agent_config, curve_of(config)) or hasattr(config, curve_of(config))):
        raise FlagError(f"--curve is {config.curve!r}, which --agent {config.agent} does not have.")
    if config.values is not None:
        return sorted({convert("values", text.strip(), int) for text in config.values.split(",")})
    curve = curve_of(config)
    owner = agent_config if hasattr(agent_config, curve) else resolve(config).config
    return sorted({max(1, round(factor * getattr(owner, curve))) for factor in FACTORS})


def device_bytes() -> int:
    """Memory of the device, or of the host where that is the device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measured_at(
    config: BenchmarkFlags, agent_config: Any, value: int, say: Callable[[str], None]
) -> tuple[Training, float]:
    """(what trains at this value, updates per step), compiled; FlagError or an error of XLA if it cannot be."""
    curve = curve_of(config)
    change: dict[str, Any] = {curve: value}
    if hasattr(agent_config, curve):
        agent_config = check(dataclasses.replace(agent_config, **change))
    else:
        config = check(dataclasses.replace(config, **change))
    run = make_run(config, agent_config)
    say(f"compiling {curve} {value:,}")
    train = Training(run, jnp.asarray(run.keys(run.config.seed)))
    if train.bytes > device_bytes():
        raise FlagError(f"It needs {train.bytes / 2**20:,.0f} MiB; there are {device_bytes() / 2**20:,.0f} MiB.")
    return train, run.sizes.updates_per_unroll / run.sizes.steps_per_unroll


def measure(config: BenchmarkFlags, agent_config: Any, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row per value with COLUMNS; one that cannot run has its reason as `gap`, and no speed. FlagError if none can.

    Programs take turns, as the load of a machine changes; only one of them holds its state at a time.

    Args:
      say: told what is measured, in short.
    """
    rows: dict[int, dict[str, Any]] = {}
    trains: dict[int, Training] = {}
    samples: dict[int, list[float]] = {}
    for value in values_of(config, agent_config):
        rows[value] = dict.fromkeys(COLUMNS) | {"value": value, "gap": ""}
        try:
            train, rows[value]["updates_per_step"] = measured_at(config, agent_config, value, say)
        except (FlagError, MemoryError, jax.errors.JaxRuntimeError) as error:
            rows[value]["gap"] = reason(error)
            continue
        trains[value], samples[value] = train, []
        rows[value] |= {"program_mib": train.bytes / 2**20, "compile_seconds": train.compile_seconds}
    for repeat in range(config.repeats):
        for value, train in trains.items():
            if rows[value]["gap"]:
                continue
            say(f"measuring {config.curve} {value:,}, {repeat + 1} of {config.repeats}")
            num_seeds = value if config.curve == "num_seeds" else config.num_seeds
            try:
                train.start()
                train.run(1)  # the first call is never measured
                samples[value].append(num_seeds * rate(train, config.seconds))
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                rows[value]["gap"] = reason(error)
            train.stop()
    if all(row["gap"] for row in rows.values()):
        raise FlagError(f"No value of --{config.curve} can run here; {min(rows):,}: {rows[min(rows)]['gap']}")
    for value in trains:
        if not rows[value]["gap"]:
            rates = spread(samples[value])
            rows[value] |= {"steps_per_second": rates["median"], "min": rates["min"], "max": rates["max"]}
    return list(rows.values())


def reason(error: Exception) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def save_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with aside(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: Sequence[dict[str, Any]], name: str, title: str, path: Path) -> None:
    """A panel per measure over the values of flag `name`; a gap is a dotted line with its reason."""
    from matplotlib.figure import Figure  # here, because it takes half a second, and only a curve is drawn

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    ran = [row for row in rows if not row["gap"]]
    at = [float(row["value"]) for row in ran]  # NumPy has no integers as large as those that a flag may ask for
    for axes, (column, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        axes.plot(at, [row[column] for row in ran], marker="o")
        if column == "steps_per_second":
            axes.fill_between(at, [row["min"] for row in ran], [row["max"] for row in ran], alpha=0.2, linewidth=0)
        for row in rows:
            if row["gap"]:
                axes.axvline(float(row["value"]), color="0.6", linestyle=":")
                words = row["gap"] if len(row["gap"]) <= 60 else row["gap"][:57] + "..."
                place = {"transform": axes.get_xaxis_transform(), "rotation": 90, "va": "bottom", "ha": "right"}
                axes.text(float(row["value"]), 0.02, words, fontsize=6, color="0.4", **place)
        axes.set(xscale="log", xlabel=name, ylabel=label, ylim=(0, None))
        axes.set_xticks([float(row["value"]) for row in rows], [f"{row['value']:,}" for row in rows])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium")
    with aside(path) as part:
        figure.savefig(part, format="png", dpi=120)
