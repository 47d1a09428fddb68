"""Command-line flags from frozen dataclasses: `flag` declares one, `parse` reads them all, errors are one sentence."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from src.registry import Registry, choices


class FlagError(ValueError):
    """What is wrong with a flag, its value, and what is valid, in one sentence."""


def flag(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    valid: Registry | Sequence[str] | None = None,
    aliases: Sequence[str] = (),
    positional: bool = False,
) -> Any:
    """A field of a config: its default, meaning, range (low and high included, above and below not) and choices.

    A positional one, of type `tuple[str, ...]`, takes all arguments that belong to no flag.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below}
    metadata |= {"valid": valid, "aliases": tuple(aliases), "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def value_type(field: dataclasses.Field) -> type:
    """int of `int | None`; the type itself otherwise."""
    args = [arg for arg in typing.get_args(field.type) if arg is not types.NoneType]
    return args[0] if args else field.type


def check(config: Any) -> Any:
    """The config with aliases of names resolved; FlagError if a value is out of range or no valid choice."""
    resolved = {}
    for field in dataclasses.fields(config):
        value, meta = getattr(config, field.name), field.metadata
        if value is None:
            continue
        if meta["valid"] is not None and value not in meta["valid"]:
            raise FlagError(f"--{field.name} is {value!r}; choose from: {choices(value, list(meta['valid']))}.")
        if isinstance(meta["valid"], Registry):
            resolved[field.name] = meta["valid"].resolve(value)
        limits = [
            ("low", "at least", lambda v, limit: v >= limit),
            ("above", "greater than", lambda v, limit: v > limit),
            ("high", "at most", lambda v, limit: v <= limit),
            ("below", "less than", lambda v, limit: v < limit),
        ]
        given = [(words, meta[name], holds) for name, words, holds in limits if meta[name] is not None]
        if not all(holds(value, limit) for _, limit, holds in given):
            valid = " and ".join(f"{words} {limit:g}" for words, limit, _ in given)
            raise FlagError(f"--{field.name} is {value}; it must be {valid}.")
    return dataclasses.replace(config, **resolved)


def convert(name: str, text: str, kind: type) -> Any:
    """The value of a flag, or FlagError. Whole numbers may be written 10_000_000 or 1e7."""
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int and not text.lstrip("+-").replace("_", "").isdigit():
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(number)
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError, OverflowError):
        nouns = {int: "a whole number", float: "a finite number", bool: "true or false"}
        raise FlagError(f"--{name} is {text!r}; it must be {nouns[kind]}.") from None


def names_of(*configs: Any) -> dict[str, dataclasses.Field]:
    """Every spelling of every flag (without dashes, with underscores) of configs or config classes."""
    fields = [field for config in configs for field in dataclasses.fields(config) if not field.metadata["positional"]]
    return {name: field for field in fields for name in (field.name, *field.metadata["aliases"])}


def normalize(argv: Sequence[str], configs: Sequence[Any], others: dict[str, type]) -> list[str]:
    """The arguments as `--name=value` or bare booleans, checked, then those of no flag; FlagError if nothing takes one.

    Args:
      others: agent name -> its config class, to say whose flag a foreign one is.
    """
    known = names_of(*configs)
    takes_words = any(field.metadata["positional"] for config in configs for field in dataclasses.fields(config))
    result, words, rest = [], [], list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            if not takes_words:
                raise FlagError(f"Unexpected argument {token!r}; flags are written --name value.")
            words.append(token)
            continue
        name, equals, text = token[2:].partition("=")
        name = name.replace("-", "_")
        negated = name.startswith("no_") and name not in known
        field = known.get(name.removeprefix("no_") if negated else name)
        if field is None or (negated and value_type(field) is not bool):
            owners = [agent for agent, other in others.items() if name in names_of(other)]
            if owners:
                raise FlagError(f"--{name} is a flag of --agent {' or '.join(owners)}, not of the agent chosen here.")
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join('--' + other for other in near)}?" if near else "--help lists all flags."
            raise FlagError(f"Unknown flag --{name}; {hint}")
        if value_type(field) is bool:
            if not equals and rest and rest[0].lower() in ("true", "false", "1", "0"):
                text, equals = rest.pop(0), "="
            value = convert(name, text, bool) if equals else True
            value = value != negated
            bare = f"--{field.name}" if value else f"--no_{field.name}"
            result.append(bare if field.type is bool else f"--{field.name}={value}")
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise FlagError(f"--{name} needs a value.")
            text = rest.pop(0)
        result.append(f"--{field.name}={convert(name, text, value_type(field))}")
    return result + words


def as_tyro(config: Any) -> type:
    """The flags of a config instance as the dataclass that tyro reads: its values as defaults, meanings, choices."""
    fields = []
    for field in dataclasses.fields(config):
        meta, default = field.metadata, getattr(config, field.name)
        words = meta["help"] if meta["valid"] is None else f"{meta['help']}: {', '.join(meta['valid'])}"
        aliases = [f"--{alias}" for alias in meta["aliases"]]
        hint = "" if default in (None, ()) else f"(default: {default})"
        metavar = field.name.upper() if meta["positional"] else None
        argument = tyro.conf.arg(help=words, aliases=aliases, help_behavior_hint=hint, metavar=metavar)
        kind = tyro.conf.Positional[field.type] if meta["positional"] else field.type
        fields.append((field.name, Annotated[kind, argument], dataclasses.field(default=default)))
    return dataclasses.make_dataclass(type(config).__name__, fields, frozen=True)


def parse(argv: Sequence[str], *configs: Any, others: dict[str, type], prog: str, description: str) -> list[Any]:
    """Reads the arguments into one checked instance of every config; --help prints the flags and exits.

    Args:
      configs: instances of frozen dataclasses of `flag`s; their values are the defaults.
      others: agent name -> its config class, to say whose flag a foreign one is.

    Raises:
      FlagError: an unknown flag, a flag of another agent, a value of the wrong kind, out of range or no valid choice.
    """
    if not {"--help", "-h"} & set(argv):
        argv = normalize(argv, configs, others)
    parts = [(type(config).__name__, tyro.conf.OmitArgPrefixes[as_tyro(config)]) for config in configs]
    flags = dataclasses.make_dataclass("Flags", parts, frozen=True)
    parsed = tyro.cli(flags, args=list(argv), prog=prog, description=description, use_underscores=True)
    values = [dataclasses.asdict(getattr(parsed, type(config).__name__)) for config in configs]
    return [check(dataclasses.replace(config, **value)) for config, value in zip(configs, values, strict=True)]
