"""The search that a sweep file asks for, in the format of `wandb sweep` but without its server, and the runs so far."""

import dataclasses
import json
import math
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from goalax.study.sweep_file import KNOWN, SEARCH, SweepError, distribution, grid_values, read
from goalax.whole import aside

__all__ = ["Job", "SweepError", "begun", "grid", "ignored", "load", "read", "runs_of", "save", "suggest"]

MAX_RUNS = 10_000  # of a grid that no count limits: more is a mistake in the file
STATES = ("waiting", "running", "stopped", "finished", "failed", "ended early")
ENDED = ("finished", "failed", "ended early")


@dataclasses.dataclass
class Job:
    """One program of a sweep: runs that differ by their seed only."""

    number: int
    parameters: dict[str, Any]  # without the seed
    seeds: list[int]
    state: str = "waiting"  # one of STATES
    values: list[float] = dataclasses.field(default_factory=list)  # of the metric, one per seed
    reason: str = ""  # of a failure, or the signal that ended its program
    code: int | None = None  # exit code of its program, once it ended; an older sweep.json does not say it
    evaluations: int = 0  # of a job that was ended early
    name: str = ""  # `exp_name` of its runs, which no others have; empty before its start, and in an older sweep.json
    older: list[str] = dataclasses.field(default_factory=list)  # of such a file: what was there before its start


def ignored(sweep: dict[str, Any]) -> list[str]:
    """Names of settings that change what wandb's server does, and nothing here."""
    return [str(name) for name in sweep if name not in KNOWN]


def runs_of(sweep: dict[str, Any], count: int | None) -> int:
    """How many runs a sweep may take, its `run_cap` and a `count` included; SweepError if nothing says so."""
    limits = [limit for limit in (count, sweep.get("run_cap")) if limit is not None]
    if sweep["method"] == "grid":
        size = math.prod(length(grid_values(name, spec)) for name, spec in sweep["parameters"].items())
        if size > MAX_RUNS and not limits:
            words = f"{size:,}" if size < 10**30 else "more than 10^30"  # Python refuses to write very long numbers
            raise SweepError(f"the grid has {words} runs; --count must say how many of them.")
        limits.append(size)
    if not limits:
        raise SweepError(f"--count must say how many runs the method {sweep['method']} may take (or `run_cap`).")
    return min(limits)


def length(values: Any) -> int:
    """`len`, of ranges of any length."""
    return values.stop - values.start if isinstance(values, range) else len(values)


def begun(jobs: Sequence[Job]) -> list[Job]:
    """Jobs without the last ones that were never started: another count may share their seeds out otherwise."""
    kept = list(jobs)
    while kept and kept[-1].state == "waiting":
        kept.pop()
    return kept


def run_of(parameters: dict[str, Any], seed: int) -> Hashable:
    """What is equal of equal runs, in whatever order a file has their parameters."""
    return frozenset(parameters.items()), seed


def grid(sweep: dict[str, Any], count: int | None, earlier: Sequence[Job] = ()) -> list[Job]:
    """Jobs of all combinations, or of the first `count`; consecutive seeds of a combination share a job.

    The runs of `earlier` jobs, whose numbers are 0, 1, 2, ..., are left out, and are part of the count.
    """
    names = sorted(sweep["parameters"], key=lambda name: name == "seed")  # the seed varies fastest
    columns = [grid_values(name, sweep["parameters"][name]) for name in names]
    size = math.prod(map(length, columns))
    limit = size if count is None else min(size, count)
    known = {run_of(job.parameters, seed) for job in earlier for seed in job.seeds}
    room = limit - len(known)
    jobs: list[Job] = []
    for number in range(limit):
        if room <= 0:
            break
        parameters, rest = {}, number
        for name, values in zip(reversed(names), reversed(columns), strict=True):  # the last varies fastest
            rest, index = divmod(rest, length(values))
            parameters[name] = values[index]
        seed = parameters.pop("seed", 0)
        parameters = {name: parameters[name] for name in names if name != "seed"}
        if run_of(parameters, seed) in known:
            continue
        room -= 1
        if jobs and jobs[-1].parameters == parameters and jobs[-1].seeds[-1] + 1 == seed:
            jobs[-1].seeds.append(seed)
        else:
            jobs.append(Job(len(earlier) + len(jobs), parameters, [seed]))
    return jobs


def suggest(sweep: dict[str, Any], jobs: list[Job]) -> Job:
    """The next job of a random or Bayesian search: a function of the jobs so far, so that a sweep can be resumed.

    Bayes is the tree-structured Parzen estimator (Bergstra et al., 2011); a job that runs counts as a bad one, so that
    parallel jobs differ.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    specs = sweep["parameters"]
    spaces = {name: space for name, spec in specs.items() if (space := distribution(name, spec)) is not None}
    seed = len(jobs)
    sampler: optuna.samplers.BaseSampler
    if sweep["method"] == "bayes":
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    else:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction=sweep["metric"]["goal"], sampler=sampler)
    known_states = optuna.trial.TrialState
    states = {"finished": known_states.COMPLETE, "failed": known_states.FAIL, "ended early": known_states.PRUNED}
    for job in jobs:
        known = {**job.parameters, "seed": job.seeds[0]}
        trial = optuna.trial.create_trial(
            params={name: known[name] for name in spaces},
            distributions=spaces,
            value=job.values[0] if job.state == "finished" else None,
            intermediate_values={job.evaluations: job.values[0]} if job.state == "ended early" and job.values else {},
            state=states.get(job.state, optuna.trial.TrialState.RUNNING),
        )
        study.add_trial(trial)
    return job_of(sweep, len(jobs), study.ask(spaces).params)


def job_of(sweep: dict[str, Any], number: int, sampled: dict[str, Any]) -> Job:
    """The job of a number with sampled parameters, and those that have one value."""
    specs = sweep["parameters"]
    parameters = {name: spec["value"] for name, spec in specs.items() if "value" in spec} | sampled
    seed = parameters.pop("seed", 0)
    return Job(number, {name: parameters[name] for name in specs if name != "seed"}, [int(seed)])


def search(sweep: dict[str, Any]) -> dict[str, Any]:
    """What a sweep searches, without its names and how many runs it may take."""
    return {name: value for name, value in sweep.items() if name in SEARCH}


def save(path: Path, sweep: dict[str, Any], jobs: list[Job], token: str | None = None) -> None:
    """All of the sweep in one JSON file, which is replaced as a whole; OSError names it.

    token: of the study that hosts share, which has numbered the jobs; None where there is none.
    """
    content = {"sweep": search(sweep), "study": token, "jobs": [dataclasses.asdict(job) for job in jobs]}
    with aside(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path, sweep: dict[str, Any], shared: bool = False, token: str | None = None) -> list[Job]:
    """The jobs of an earlier call, none if there was none; SweepError if it searched for something else.

    Numbers are 0, 1, 2, ...; of a search that hosts share, they are those that this one took of the study of `token`.

    A job that the file says is running was left by a call that was killed: it is stopped.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        earlier, jobs = search(content["sweep"]), [Job(**job) for job in content["jobs"]]
        study = content.get("study")  # an older file does not say it, nor does a study of that time have one
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SweepError(f"{path} cannot be read; choose another --out.") from None
    if earlier != search(sweep):
        raise SweepError(f"{path.parent} holds a sweep over something else; choose another --out.")
    if jobs and study != token:
        raise SweepError(f"{path.parent} holds runs of another search, by its --storage; choose another --out.")
    names = sweep["parameters"].keys() - {"seed"}
    numbers = [job.number for job in jobs]
    counted = numbers == list(range(len(jobs)))
    if shared:
        counted = all(type(n) is int and n >= 0 for n in numbers) and len({*numbers}) == len(numbers)
    if not (counted and all(sound(job, names) for job in jobs)):
        raise SweepError(f"{path} cannot be read; choose another --out.")
    for job in jobs:
        if job.state == "running":
            job.state = "stopped"
    return jobs


def sound(job: Job, names: set[str]) -> bool:
    """Whether a job from a file is of the types that it must have."""
    lists = all(isinstance(part, list) for part in (job.seeds, job.values, job.older))
    if not lists or not isinstance(job.parameters, dict) or not isinstance(job.reason, str):
        return False
    if not isinstance(job.name, str) or not job.name.isprintable():  # it goes into a command line
        return False
    if not all(value is None or isinstance(value, str | int | float) for value in job.parameters.values()):
        return False
    seeds = bool(job.seeds) and all(type(seed) is int for seed in job.seeds)
    values = all(type(value) in (int, float) for value in job.values)
    complete = len(job.values) == len(job.seeds) if job.state == "finished" else job.state in STATES
    counts = type(job.evaluations) is int and (job.code is None or type(job.code) is int)
    return counts and job.parameters.keys() == names and seeds and values and complete
