"""Reads a sweep file, in the format of `wandb sweep`: what it cannot mean is told in one sentence."""

import contextlib
import itertools
import math
import re
import reprlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalax.agents import AGENTS
from goalax.flags import FlagError, convert, names_of, normalize, value_type
from goalax.host.config import Flags, agent_in, flags_from, other_configs
from goalax.study import yaml_file

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

METRIC = {"name": "eval/episode_success", "goal": "maximize"}  # where the file names none
METHODS = ("grid", "random", "bayes")
SEARCH = {"program", "method", "metric", "parameters", "command"}  # what two equal sweeps have in common
KNOWN = SEARCH | {"name", "description", "project", "entity", "run_cap", "early_terminate"}
SPECS = {"value", "values", "min", "max", "distribution", "q"}
OWN = {"seed": "seed", "num_seeds": "seed", "exp_name": "exp_name"}  # a flag that a sweep sets -> from what parameter
LARGEST = 2**53  # limit of `min`, `max` and `q`; up to here floats hold whole numbers, and samplers do not overflow

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 80, 80


class SweepError(ValueError):
    """What is wrong with a sweep file, in one sentence."""


def read(path: Path) -> dict[str, Any]:
    """The content of a sweep file, numbers that YAML takes for text (1e-5) as numbers; SweepError if it is unusable."""
    try:
        sweep = yaml_file.load(path)
    except FlagError as error:
        raise SweepError(str(error)) from None
    try:
        return checked(sweep)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def checked(sweep: Any) -> dict[str, Any]:
    """A sweep as its file says it, with all that can be checked without knowing the values of flags."""
    if not isinstance(sweep, dict):
        what = "is empty" if sweep is None else f"holds {shown(sweep)}"
        raise SweepError(f"it {what}; a sweep file is a table with `method` and `parameters`.")
    if strange := [name for name in sweep if not _is_text(name)]:
        raise SweepError(f"it has the name {shown(strange[0])}; names are text.")
    if not isinstance(sweep.get("parameters"), dict) or not sweep["parameters"]:
        raise SweepError("it must have `parameters`, a table of flags.")
    if sweep.get("method") not in METHODS:
        raise SweepError(f"`method` is {shown(sweep.get('method'))}; choose from: {', '.join(METHODS)}.")
    for name in ("program", "name", "project", "entity", "description"):
        text = sweep.get(name)
        if text is not None and not (isinstance(text, str) if name == "description" else _is_text(text)):
            raise SweepError(f"`{name}` is {shown(text)}; it must be text.")
    command = sweep.get("command")
    if command is not None and not (isinstance(command, list) and all(_is_scalar(part) for part in command)):
        raise SweepError(f"`command` is {shown(command)}; it must be a list of words.")
    arguments(sweep)
    cap = sweep.get("run_cap")
    if cap is not None and (type(cap) is not int or cap < 1):
        raise SweepError(f"`run_cap` is {shown(cap)}; it must be a whole number of at least 1.")
    metric = METRIC if sweep.get("metric") is None else sweep["metric"]
    if not isinstance(metric, dict) or not _is_text(metric.get("name")):
        raise SweepError("`metric` must be a table with a `name`, which is text (and a `goal`).")
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise SweepError(f"the metric's `goal` is {shown(goal)}; choose from: minimize, maximize.")
    parameters = {}
    for name, spec in sweep["parameters"].items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            raise SweepError(f"`parameters` has {shown(name)}, which cannot be the name of a flag.")
        name = name.replace("-", "_")
        if name == "num_seeds":
            raise SweepError("`num_seeds` is no parameter of a sweep; list the seeds as `values` of `seed`.")
        parameters[name] = checked_spec(name, spec)
    sweep = {**sweep, "metric": {"name": metric["name"], "goal": goal}, "parameters": parameters}
    values = grid_values if sweep["method"] == "grid" else distribution
    for name, spec in parameters.items():
        values(name, spec)
    return sweep


def arguments(sweep: dict[str, Any]) -> list[str]:
    """The arguments that `command` has beside its ${...} after the program.

    SweepError if they would be lost: without a program, or because the sweep sets their flag itself.
    """
    command = [str(part) for part in sweep.get("command") or ["${program}"]]
    if "${program}" in command:
        given = [part for part in command[command.index("${program}") + 1 :] if not part.startswith("${")]
        for part in given:
            name = part.partition("=")[0].removeprefix("--").replace("-", "_")
            if part.startswith("--") and name in OWN:
                raise SweepError(
                    f"`command` has {shown(part)}; a sweep sets this flag from the parameter `{OWN[name]}`."
                )
        return given
    if lost := [part for part in command if part.startswith("--")]:
        raise SweepError(f"`command` has {shown(lost[0])}, but no ${{program}} before it.")
    return []


def checked_spec(name: str, spec: Any) -> dict[str, Any]:
    """What a parameter may be, of the types that it must have; a `value` or `values` in the type of the flag."""
    if not isinstance(spec, dict):
        raise SweepError(f"`{name}` is {shown(spec)}; it needs a `value`, `values`, or `min` and `max`.")
    if unknown := [key for key in spec if key not in SPECS]:
        raise SweepError(f"`{name}` has `{_bare(unknown[0])}`; only {', '.join(sorted(SPECS))} are understood.")
    ways = [[key for key in keys if key in spec] for keys in (("value",), ("values",), ("min", "max"))]
    given = [keys[0] for keys in ways if keys]
    if len(given) > 1:
        raise SweepError(f"`{name}` has both `{given[0]}` and `{given[1]}`; one of them says what it may be.")
    spec, kind = dict(spec), number_kind(name)
    for key in {"min", "max", "q"} & spec.keys():
        spec[key] = number(f"{name}` has the `{key}`", spec[key], kind if key != "q" else None)
    if "min" in spec and "max" in spec and spec["min"] > spec["max"]:
        raise SweepError(f"`{name}` has a `min` of {spec['min']} above its `max` of {spec['max']}.")
    if "q" in spec and (spec["q"] <= 0 or spec.get("distribution") != "q_uniform"):
        raise SweepError(f"`{name}` has the `q` {spec['q']}; it must be above 0, and the distribution q_uniform.")
    if "values" in spec:
        values = spec["values"]
        if not isinstance(values, list) or not values:
            raise SweepError(f"`{name}` has the `values` {shown(values)}; they must be a list.")
        unique = {repr(typed): typed for typed in (constant(name, value, kind) for value in values)}
        spec["values"] = list(unique.values())  # the same run twice would be the same directory twice
    if "value" in spec:
        spec["value"] = constant(name, spec["value"], kind)
    return spec


def constant(name: str, value: Any, kind: type | None) -> Any:
    """A value of a flag; text that stands for a number, as `kind` if the flag is one."""
    if not _is_scalar(value) and (value is not None or name == "seed"):
        raise SweepError(f"`{name}` has the value {shown(value)}; it must be {_noun(name)}.")
    if isinstance(value, str) and kind is not None:
        with contextlib.suppress(FlagError):  # whoever checks flags says it better
            value = convert(name, value, kind)
    if name == "seed" and type(value) is not int:
        raise SweepError(f"`seed` has the value {shown(value)}; it must be a whole number.")
    return value


def number(what: str, value: Any, kind: type | None) -> int | float:
    """A limit as a number: YAML reads 1e-5 as text. `kind` is the type of its flag, if that is a number."""
    if isinstance(value, str):
        with contextlib.suppress(FlagError):
            value = convert("", value, float)
    if type(value) not in (int, float) or not (isinstance(value, int) or math.isfinite(value)):
        raise SweepError(f"`{what} {shown(value)}; it must be a finite number.")
    if abs(value) > LARGEST:
        raise SweepError(f"`{what} {shown(value)}; numbers up to 2^53 = {LARGEST:,} are understood.")
    return int(value) if kind is int and float(value).is_integer() else value


def number_kind(name: str) -> type | None:
    """int or float if the flag of this name is a number, of whichever agent."""
    tables = [names_of(Flags), *(names_of(config) for config in other_configs().values())]
    kinds = {value_type(fields[name]) for fields in tables if name in fields}
    if not kinds or not kinds <= {int, float}:
        return None
    return float if float in kinds else int


def grid_values(name: str, spec: dict[str, Any]) -> Sequence[Any]:
    """All that a parameter may be in a grid; a range may be too long for a list."""
    kind = spec.get("distribution")
    if "value" in spec and kind in (None, "constant"):
        return [spec["value"]]
    if "values" in spec and kind in (None, "categorical"):
        return spec["values"]
    low, high = spec.get("min"), spec.get("max")
    if type(low) is int and type(high) is int and kind in (None, "int_uniform"):
        return range(low, high + 1)
    raise SweepError(f"`{name}` needs a `value`, `values`, or whole numbers `min` and `max` for the method grid.")


def distribution(name: str, spec: dict[str, Any]) -> "BaseDistribution | None":
    """The Optuna distribution of a parameter; None for a constant."""
    from optuna import distributions as optuna  # here, because a grid needs none

    kind = spec.get("distribution")
    if "value" in spec and kind in (None, "constant"):
        return None
    if "values" in spec and kind in (None, "categorical"):
        return optuna.CategoricalDistribution(spec["values"])
    low: Any = spec.get("min")  # whatever is in the file
    high: Any = spec.get("max")
    kinds: dict[str, Callable[[], BaseDistribution]] = {
        "int_uniform": lambda: optuna.IntDistribution(low, high),
        "uniform": lambda: optuna.FloatDistribution(low, high),
        "q_uniform": lambda: optuna.FloatDistribution(low, high, step=spec.get("q", 1)),
        "log_uniform_values": lambda: optuna.FloatDistribution(low, high, log=True),
    }
    whole = type(low) is int and type(high) is int
    kind = ("int_uniform" if whole else "uniform") if kind is None else kind
    if low is None or high is None or kind not in list(kinds) or (kind == "int_uniform" and not whole):
        raise SweepError(
            f"`{name}` needs `values`, or numbers `min` and `max` with a distribution of {', '.join(kinds)}"
            " (of which int_uniform is for whole numbers)."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of a `q` that does not divide the range
            return kinds[kind]()
    except (ValueError, ArithmeticError) as error:
        raise SweepError(f"`{name}` has no such distribution: {str(error).rstrip('.')}.") from None


def read_flags(argv: list[str]) -> Flags:
    """`config.read_flags` for any number of command lines: the same but for --help, and a hundred times faster."""
    agent = agent_in(argv, Flags().agent)
    configs = Flags(), AGENTS[agent].config()
    known = names_of(*configs)
    values: dict[str, Any] = {"agent": agent}
    for word in normalize(argv, configs, other_configs()):
        name, equals, text = word[2:].partition("=")
        if not equals:
            values[name.removeprefix("no_") if name not in known else name] = name in known
        else:
            kind = value_type(known[name])
            absent = text == "None" and kind is not known[name].type  # as training reads it, and wandb writes null
            values[name] = None if absent else convert(name, text, kind)
    return flags_from(values)[0]


def without(argv: Sequence[str], name: str) -> list[str]:
    """A command line without a flag and its value, which is no boolean."""
    kept, value = list[str](), False
    for word, following in itertools.pairwise([*argv, "--"]):
        spelled, equals, _ = word.partition("=")
        meant = spelled.replace("-", "_") == f"__{name}"
        lacking = meant and not equals and following.startswith("--")  # which whoever reads the line will say
        if not value and (lacking or not meant):
            kept.append(word)
        value = not value and meant and not equals and not lacking
    return kept


def extremes(name: str, spec: dict[str, Any], method: str) -> Sequence[Any]:
    """The values of a parameter that must be valid if all are: of a range only its ends, or points close to them."""
    if method == "grid":
        values = grid_values(name, spec)
        return [values[0], values[-1]] if isinstance(values, range) else values
    found: Any = distribution(name, spec)
    if found is None:
        return [spec["value"]]
    if hasattr(found, "choices"):
        return list(found.choices)
    inside = 0 if found.step is not None else 1e-6 * (found.high - found.low)  # 1 is never drawn between 0.9 and 1
    return [found.low + inside, found.high - inside]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, bool | int | float) and (
        abs(value) <= LARGEST or (type(value) is float and math.isfinite(value))
    )


def _noun(name: str) -> str:
    return "a whole number" if name == "seed" else "a finite number, text of one line, true, false or null"


def shown(value: Any) -> str:
    """What is in a file, on one line of sensible length."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        return "a very long number"


def _bare(key: Any) -> str:
    return key if _is_text(key) else shown(key)
