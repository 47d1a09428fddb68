"""The search that a sweep file asks for, in the format of `wandb sweep` but without its server, and the runs so far."""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

METRIC = {"name": "eval/episode_success", "goal": "maximize"}  # where the file names none
METHODS = ("grid", "random", "bayes")
KNOWN = {"program", "method", "metric", "parameters", "command", "name", "description", "project", "entity"}
SPECS = {"value", "values", "min", "max", "distribution", "q"}


class SweepError(ValueError):
    """What is wrong with a sweep file, in one sentence."""


@dataclasses.dataclass
class Job:
    """One program of a sweep: runs that differ by their seed only."""

    number: int
    parameters: dict[str, Any]  # without the seed
    seeds: list[int]
    state: str = "waiting"  # waiting, running, stopped, finished, failed
    values: list[float] = dataclasses.field(default_factory=list)  # of the metric, one per seed
    reason: str = ""  # of a failure


def read(path: Path) -> dict[str, Any]:
    """The content of a sweep file; SweepError if it cannot be used."""
    try:
        sweep = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SweepError(f"{path} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SweepError(f"{path} is no YAML{f' in line {mark.line + 1}' if mark else ''}.") from None
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict) or not sweep["parameters"]:
        raise SweepError(f"{path} must have `parameters`, a table of flags.")
    if sweep.get("method") not in METHODS:
        raise SweepError(f"{path}: `method` is {sweep.get('method')!r}; choose from: {', '.join(METHODS)}.")
    metric = sweep.setdefault("metric", METRIC)
    if not isinstance(metric, dict) or not metric.get("name"):
        raise SweepError(f"{path}: `metric` must have a `name` (and a `goal`).")
    if metric.setdefault("goal", "minimize") not in ("minimize", "maximize"):
        raise SweepError(f"{path}: the metric's `goal` is {metric['goal']!r}; choose from: minimize, maximize.")
    for name, spec in sweep["parameters"].items():
        if not isinstance(spec, dict):
            raise SweepError(f"{path}: `{name}` needs a `value`, `values`, or `min` and `max`.")
        if unknown := sorted(spec.keys() - SPECS, key=str):
            raise SweepError(f"{path}: `{name}` has `{unknown[0]}`; only {', '.join(sorted(SPECS))} are understood.")
        if sweep["method"] == "grid":
            grid_values(name, spec)
        else:
            distribution(name, spec)
    return sweep


def ignored(sweep: dict[str, Any]) -> list[str]:
    """Names of settings that change what wandb's server does, and nothing here."""
    return [str(name) for name in sweep if name not in KNOWN]


def arguments(sweep: dict[str, Any]) -> list[str]:
    """The arguments that `command` has beside its ${...} after the program."""
    command = [str(part) for part in sweep.get("command") or ["${program}"]]
    after = command[command.index("${program}") + 1 :] if "${program}" in command else []
    return [part for part in after if not part.startswith("${")]


def grid_values(name: str, spec: dict[str, Any]) -> list[Any]:
    if "value" in spec:
        return [spec["value"]]
    if isinstance(spec.get("values"), list) and spec["values"]:
        return spec["values"]
    low, high = spec.get("min"), spec.get("max")
    if (
        type(low) is int
        and type(high) is int
        and low <= high
        and spec.get("distribution", "int_uniform") == "int_uniform"
    ):
        return list(range(low, high + 1))
    raise SweepError(f"`{name}` needs a `value`, `values`, or whole numbers `min` and `max` for the method grid.")


def distribution(name: str, spec: dict[str, Any]) -> "BaseDistribution | None":
    """The Optuna distribution of a parameter; None for a constant."""
    from optuna import distributions as optuna  # here, because a grid needs none

    if "value" in spec:
        return None
    if isinstance(spec.get("values"), list) and spec["values"]:
        return optuna.CategoricalDistribution(spec["values"])
    low: Any = spec.get("min")  # whatever is in the file
    high: Any = spec.get("max")
    numbers = all(type(limit) in (int, float) for limit in (low, high))
    whole = type(low) is int and type(high) is int
    kinds: dict[str, Callable[[], BaseDistribution]] = {
        "int_uniform": lambda: optuna.IntDistribution(low, high),
        "uniform": lambda: optuna.FloatDistribution(low, high),
        "q_uniform": lambda: optuna.FloatDistribution(low, high, step=spec.get("q", 1)),
        "log_uniform_values": lambda: optuna.FloatDistribution(low, high, log=True),
    }
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in kinds or not numbers:
        raise SweepError(
            f"`{name}` needs `values`, or numbers `min` and `max` with a distribution of {', '.join(kinds)}."
        )
    try:
        return kinds[kind]()
    except ValueError as error:
        raise SweepError(f"`{name}` has no such distribution: {str(error).rstrip('.')}.") from None


def grid(sweep: dict[str, Any], count: int | None) -> list[Job]:
    """Jobs of all combinations, or of the first `count`; consecutive seeds of a combination share a job."""
    names = sorted(sweep["parameters"], key=lambda name: name == "seed")  # the seed varies fastest
    columns = [grid_values(name, sweep["parameters"][name]) for name in names]
    jobs: list[Job] = []
    for combination in itertools.islice(itertools.product(*columns), count):
        parameters = dict(zip(names, combination, strict=True))
        seed = parameters.pop("seed", 0)
        if jobs and jobs[-1].parameters == parameters and jobs[-1].seeds[-1] + 1 == seed:
            jobs[-1].seeds.append(seed)
        else:
            jobs.append(Job(len(jobs), parameters, [seed]))
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
    states = {"finished": optuna.trial.TrialState.COMPLETE, "failed": optuna.trial.TrialState.FAIL}
    for job in jobs:
        known = {**job.parameters, "seed": job.seeds[0]}
        trial = optuna.trial.create_trial(
            params={name: known[name] for name in spaces},
            distributions=spaces,
            value=job.values[0] if job.values else None,
            state=states.get(job.state, optuna.trial.TrialState.RUNNING),
        )
        study.add_trial(trial)
    parameters = {name: spec["value"] for name, spec in specs.items() if "value" in spec} | study.ask(spaces).params
    seed = parameters.pop("seed", 0)
    return Job(len(jobs), {name: parameters[name] for name in specs if name != "seed"}, [seed])


def save(path: Path, sweep: dict[str, Any], jobs: list[Job]) -> None:
    """All of the sweep in one JSON file, which is replaced as a whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"sweep": sweep, "jobs": [dataclasses.asdict(job) for job in jobs]}, indent=1) + "\n")
    part.replace(path)


def load(path: Path, sweep: dict[str, Any]) -> list[Job]:
    """The jobs of an earlier call, none if there was none; SweepError if it searched for something else."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        jobs = [Job(**job) for job in content["jobs"]]
    except (ValueError, KeyError, TypeError):
        raise SweepError(f"{path} cannot be read; choose another --out.") from None
    if content["sweep"] != sweep:
        raise SweepError(f"{path.parent} holds a sweep over something else; choose another --out.")
    return jobs
