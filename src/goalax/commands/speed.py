"""Measures the speeds that the documents give, in turns, and adds them to those of other hours: `scripts/speed.py`."""

import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from goalax.agents import AGENTS
from goalax.flags import FlagError, flag, parse
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.host.places import writable
from goalax.speed.benchmark import BenchmarkFlags, Training, env_only, machine, rate, sample, updates_only
from goalax.study import markdown
from goalax.whole import aside

# The sizes of JaxGCRL's own scripts, so that its speeds can stand beside these.
SIZES = (
    "--num_envs 64 --episode_length 257 --batch_size 256 --unroll_length 62 --utd_ratio 0.0161 --h_dim 256 --n_hidden 2"
)
VARIANTS = ("", "--use_ln False", "--policy_delay 2")  # beside the run as it is; JaxGCRL has no LayerNorm by default
COLUMNS = ("steps/s", "share of the limit", *(f"`{flags}`" for flags in VARIANTS[1:]), "peak memory", "hours measured")


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """What is measured, and where it is kept."""

    env_names: str = flag("reacher,ant", "environments, with commas between them")
    seconds: float = flag(2.0, "measuring time of each part in each repeat, at least", above=0)
    repeats: int = flag(3, "times that every part is measured, in turns", low=1)
    keep: str = flag("benchmarks/cpu/speed.json", "JSON file that every call adds its samples to")
    out: str = flag("docs/performance.md", "Markdown file whose table is replaced")
    tables: bool = flag(False, "write the table from what is kept, and measure nothing")


def flags_of(env_name: str, others: str) -> tuple[BenchmarkFlags, Any]:
    """The flags of a run that is measured; FlagError if they cannot be."""
    defaults = BenchmarkFlags(num_timesteps=2**31 - 1)  # no run is too short to be measured
    argv = ["--env_name", env_name, *others.split()]
    return read_flags(argv, (defaults, AGENTS[defaults.agent].config()))


def measure(env_name: str, config: SpeedConfig, sizes: str = SIZES) -> list[dict[str, Any]]:
    """A row of rates per repeat: those of all parts of the run as it is, and end to end of every variant."""
    trains: dict[str, Training] = {}
    parts: dict[str, Any] = {}
    for variant in VARIANTS:
        flags, agent_flags = flags_of(env_name, f"{sizes} {variant}")
        run = make_run(flags, agent_flags)
        key = jnp.asarray(run.keys(0))
        trains[variant] = Training(run, key)
        trains[variant].start()
        if not variant:
            plain, per_step = flags, run.sizes.updates_per_unroll / run.sizes.steps_per_unroll
            parts = {"env_only": env_only(run, key), "updates_only": updates_only(run, key, trains[""].state)}
            parts["end_to_end"] = trains[""]
    plain = dataclasses.replace(plain, seconds=config.seconds)
    for part in (*parts.values(), *trains.values()):
        part.run(1)  # the first call is never measured
    rows = []
    for _ in range(config.repeats):
        rates = sample(parts, plain, per_step)
        rows.append({**rates, **{variant: rate(trains[variant], config.seconds) for variant in VARIANTS[1:]}})
    return rows


# A process begins with the largest resident set of the one that started it, so that a small one must do that.
WATCH = """
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:], stdout=2).pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_memory(env_name: str, sizes: str = SIZES) -> int:
    """Largest resident set of a short training with a cold compilation cache, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*sizes.split(), "--num_timesteps", "80000", "--num_evals", "1", "--vis_length", "0"]
        command = [sys.executable, "-m", "goalax", "train", "--env_name", env_name, *flags]
        cold = {**os.environ, "XDG_CACHE_HOME": folder}
        cold.pop("JAX_COMPILATION_CACHE_DIR", None)
        watch = [sys.executable, "-c", WATCH, *command]
        done = subprocess.run(watch, cwd=folder, env=cold, capture_output=True, text=True)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise FlagError(f"{' '.join(command[1:])} ended with {done.returncode}: {' '.join(last)}")
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def span(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median with smallest and largest."""
    return f"{show(statistics.median(values))} ({show(min(values))} to {show(max(values))})"


def table(calls: Sequence[dict[str, Any]]) -> str:
    """One row per environment and machine, over all calls that measured it."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for call in calls:
        versions = call["machine"]["versions"]
        where = f"{call['processor']}, {call['machine']['cores']} of its cores, jax {versions['jax']}"
        for env_name in call["results"]:
            groups.setdefault((env_name, where), []).append(call)
    rows = []
    for (env_name, where), group in groups.items():
        samples = [rates for call in group for rates in call["results"][env_name]["samples"]]

        def cell(name: str, samples: Sequence[dict[str, Any]] = samples) -> str:
            ratios = [rates[name] / rates["end_to_end"] for rates in samples]
            return span(ratios, lambda ratio: f"{ratio:.2f}")

        memory = [call["results"][env_name]["peak_bytes"] / 2**20 for call in group]
        rows.append(
            [
                f"`{env_name}`",
                where,
                span([rates["end_to_end"] for rates in samples], lambda rate: f"{rate:,.0f}"),
                span([rates["efficiency"] for rates in samples], lambda share: f"{share:.2f}"),
                *(cell(variant) for variant in VARIANTS[1:]),
                f"{max(memory):,.0f} MiB",
                ", ".join(sorted({call["hour"] for call in group})),
            ]
        )
    return markdown.table(("environment", "machine", *COLUMNS), rows)


def kept(path: Path) -> list[dict[str, Any]]:
    """What other calls have added to a file; FlagError if it is none that they wrote."""
    try:
        calls = json.loads(path.read_text())
        if not isinstance(calls, list):
            raise TypeError
        table(calls).encode()  # what it would not do is told before minutes of measuring
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, ZeroDivisionError):
        raise FlagError(f"--keep is {str(path)!r}; it must be a file that scripts/speed.py wrote.") from None
    return calls


def require_place(path: Path) -> None:
    """FlagError if a document is no text, or has no place for the table."""
    try:
        markdown.replace(path.read_text(), "speed", "speed.py", "")
    except UnicodeDecodeError:
        raise FlagError(f"--out is {str(path)!r}; it must be a file of text.") from None


def processor() -> str:
    """The name of the processor, as Linux has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def main(argv: Sequence[str], prog: str = "speed.py", sizes: str = SIZES) -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Measures the speeds that the documents give, and adds them to those of other hours."
        (config,) = parse(argv, SpeedConfig(), others={}, prog=prog, description=description)
        keep, out = Path(config.keep), Path(config.out)
        if config.tables and not keep.exists():
            raise FlagError(f"--keep is {config.keep!r}; there is no such file to write the table from.")
        calls = kept(keep) if keep.exists() else []
        require_place(out)  # what is wrong is told before minutes of measuring
        writable("keep", config.keep)
        writable("out", config.out)
        names = config.env_names.split(",")
        for name in names:
            flags_of(name, sizes)
        if not config.tables:
            hour = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H h")
            call = {"hour": hour, "machine": machine(), "processor": processor(), "command": [prog, *argv]}
            call["results"] = {
                name: {"samples": measure(name, config, sizes), "peak_bytes": peak_memory(name, sizes)}
                for name in names
            }
            calls.append(call)
            with aside(keep) as part:
                part.write_text(json.dumps(calls, indent=2) + "\n")
        text = markdown.replace(out.read_text(), "speed", "speed.py", table(calls))
        with aside(out) as part:
            part.write_text(text)
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{prog}: {error.filename or 'a file'} cannot be read or written: {error.strerror}.", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    return 0
