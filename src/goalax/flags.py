"""Command-line flags from frozen dataclasses: `flag` declares one, `parse` reads them all, errors are one sentence."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, overload

from goalax.registry import Registry
from goalax.words import choices, shown


class Flagged(Protocol):
    """A frozen dataclass of `flag`s."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


C = TypeVar("C", bound=Flagged)
D = TypeVar("D", bound=Flagged)
V = TypeVar("V")  # the type of a flag

# What a flag is about, and so what may change when a run is resumed and what makes two runs different:
#   training  what is trained; fixed, and compared
#   replay    the same, of agents that learn from a buffer
#   budget    how long: may change on resume, and is compared
#   seed      fixed; runs that differ in it only are one group
#   name      fixed; tells groups apart only where nothing else does
#   devices   where it runs: may change, and says nothing about what is trained
#   host      what is written and shown: the same
Scope = Literal["training", "replay", "budget", "seed", "name", "devices", "host"]
FREE: frozenset[Scope] = frozenset({"budget", "devices", "host"})  # a resumed run may change them
COMPARED: frozenset[Scope] = frozenset({"training", "replay", "budget"})  # runs that differ in them are different


class FlagError(ValueError):
    """What is wrong with a flag, its value, and what is valid, in one sentence."""


def flag(
    default: V,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    valid: Collection[str] | None = None,
    aliases: Sequence[str] = (),
    most: float | None = None,
    positional: bool = False,
    scope: Scope = "training",
    divided: bool = False,
    before: Any = None,
) -> V:
    """A field of a config: its default, meaning, range (low and high included, above and below not) and choices.

    Args:
      most: no number may be larger, although nothing forbids it, because memory would not do, or the run would never
        end; None: a billion, for a whole number without `high`.
      positional: of type `tuple[str, ...]`, it takes all arguments that belong to no flag.
      scope: what it is about, see `Scope`.
      divided: a size that the devices which share a seed must divide.
      before: what a run did whose version had no such flag; None: the default.
    """
    metadata: dict[str, Any] = {"help": help, "low": low, "high": high, "above": above, "below": below}
    metadata |= {"valid": valid, "aliases": tuple(aliases), "positional": positional}
    metadata |= {"scope": scope, "divided": divided, "most": most, "before": before}
    return dataclasses.field(default=default, metadata=metadata)


def filled(config: type[Flagged], name: str) -> Any:
    """The field `name` of a config class, for a subclass in which it is never None: all of it but the default."""
    return dataclasses.field(metadata=config.__dataclass_fields__[name].metadata)


def before_flags(config: Flagged | type[Flagged]) -> dict[str, Any]:
    """What runs did whose versions lacked flags of a config or config class, where that is not the default."""
    fields = {field.name: field.metadata["before"] for field in dataclasses.fields(config)}
    return {name: value for name, value in fields.items() if value is not None}


def names_in(config: Flagged | type[Flagged], scopes: Collection[Scope]) -> tuple[str, ...]:
    """The flags of a config or config class that are about one of these, in their order."""
    return tuple(field.name for field in dataclasses.fields(config) if field.metadata["scope"] in scopes)


def value_type(field: dataclasses.Field[Any]) -> type:
    """int of `int | None`; the type itself otherwise."""
    args = [arg for arg in typing.get_args(field.type) if arg is not types.NoneType]
    kind = args[0] if args else field.type
    assert isinstance(kind, type)  # not its name: no module with flags postpones its annotations
    return kind


NOUNS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def checked_type(field: dataclasses.Field[Any], value: Any) -> Any:
    """A value from Python, a config.json or a sweep file as the type of its flag; FlagError if it is of another one.

    A whole number may stand for a float, a float without a fraction (1e7) for a whole number, and a whole number for a
    text of the choices that reads like it; nothing else is converted, so that "false" is not true.
    """
    kind = value_type(field)
    if value is None and kind is not field.type:
        return None
    if field.metadata["positional"]:
        return tuple(value)
    if kind is float and type(value) is int and abs(value) < 1e300:  # a longer one is too large for it
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)
    if kind is str and type(value) is int and str(value) in (field.metadata["valid"] or ()):
        value = str(value)
    if type(value) is kind and (not isinstance(value, float) or math.isfinite(value)):
        return value
    raise FlagError(f"--{field.name} is {shown(value)}; it must be {NOUNS[kind]}.")


def check(config: C) -> C:
    """The config with aliases of names resolved; FlagError if a value is of a wrong type, out of range or no choice."""
    resolved: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, meta = checked_type(field, getattr(config, field.name)), field.metadata
        if value is None:
            continue
        resolved[field.name] = value
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
            raise FlagError(f"--{field.name} is {shown(value)}; it must be {valid}.")
        most = meta["most"]
        if most is None and meta["high"] is None and value_type(field) is int:
            most = 1e9
        if most is not None and value > most:
            raise FlagError(f"--{field.name} is {shown(value)}; it must be at most {most:,.0f}.")
    return dataclasses.replace(config, **resolved)


def set_in(configs: tuple[C, D], values: Mapping[str, Any], others: Mapping[str, type[Flagged]]) -> tuple[C, D]:
    """Checked copies of two configs with some flags set, by name or alias: what `parse` is for Python callers.

    Raises:
      FlagError: as `parse`.
    """
    known = names_of(*configs)
    for name in values:
        if name not in known:
            raise unknown(name, known, others)
    given = {known[name].name: value for name, value in values.items()}
    first, second = configs
    return with_values(first, given), with_values(second, given)


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """A checked copy of a config with those of the values that are of its flags, by name."""
    own = {field.name for field in dataclasses.fields(config)}
    return check(dataclasses.replace(config, **{name: value for name, value in values.items() if name in own}))


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
        raise FlagError(f"--{name} is {text!r}; it must be {NOUNS[kind]}.") from None


def names_of(*configs: Flagged | type[Flagged]) -> dict[str, dataclasses.Field[Any]]:
    """Every spelling of every flag (without dashes, with underscores) of configs or config classes."""
    fields = [field for config in configs for field in dataclasses.fields(config) if not field.metadata["positional"]]
    return {name: field for field in fields for name in (field.name, *field.metadata["aliases"])}


def unknown(name: str, known: Collection[str], others: Mapping[str, type[Flagged]]) -> FlagError:
    """What to say of a flag that nothing takes; others: agent name -> its config class, to say whose flag it is."""
    if owners := [agent for agent, other in others.items() if name in names_of(other)]:
        return FlagError(f"--{name} is a flag of --agent {' or '.join(owners)}, not of the agent chosen here.")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join('--' + other for other in near)}?" if near else "--help lists all flags."
    return FlagError(f"Unknown flag --{name}; {hint}")


def normalize(argv: Sequence[str], configs: Sequence[Flagged], others: Mapping[str, type[Flagged]]) -> list[str]:
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
            if not takes_words or token.startswith("-"):
                raise FlagError(f"Unexpected argument {token!r}; flags are written --name value.")
            words.append(token)
            continue
        name, equals, text = token[2:].partition("=")
        name = name.replace("-", "_")
        if not name.isprintable():
            raise FlagError(f"Unexpected argument {token!r}; flags are written --name value.")
        negated = name.startswith("no_") and name not in known
        field = known.get(name.removeprefix("no_") if negated else name)
        if field is None or (negated and value_type(field) is not bool):
            raise unknown(name, known, others)
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


def as_tyro(config: Flagged) -> type[Flagged]:
    """The flags of a config instance as the dataclass that tyro reads: its values as defaults, meanings, choices."""
    import tyro  # here and below, because only those who parse need it

    fields: list[Any] = []
    for field in dataclasses.fields(config):
        meta, default = field.metadata, getattr(config, field.name)
        words = meta["help"] if meta["valid"] is None else f"{meta['help']}: {', '.join(meta['valid'])}"
        aliases = [f"--{alias}" for alias in meta["aliases"]]
        hint = "" if default in (None, ()) else f"(default: {default})"
        metavar = field.name.upper() if meta["positional"] else None
        argument = tyro.conf.arg(help=words, aliases=aliases, help_behavior_hint=hint, metavar=metavar)
        marks = (tyro.conf.Positional, argument) if meta["positional"] else (argument,)
        fields.append((field.name, Annotated[field.type, *marks], dataclasses.field(default=default)))
    return dataclasses.make_dataclass(type(config).__name__, fields, frozen=True)


@overload
def parse(
    argv: Sequence[str], config: C, /, *, others: Mapping[str, type[Flagged]], prog: str, description: str
) -> tuple[C]: ...
@overload
def parse(
    argv: Sequence[str], config: C, other: D, /, *, others: Mapping[str, type[Flagged]], prog: str, description: str
) -> tuple[C, D]: ...
def parse(
    argv: Sequence[str], *configs: Flagged, others: Mapping[str, type[Flagged]], prog: str, description: str
) -> tuple[Any, ...]:
    """Reads the arguments into one checked instance of every config; --help prints the flags and exits, and so does
    tyro's own --tyro-print-completion SHELL with a completion script.

    Args:
      configs: instances of frozen dataclasses of `flag`s; their values are the defaults.
      others: agent name -> its config class, to say whose flag a foreign one is.

    Raises:
      FlagError: an unknown flag, a flag of another agent, a value of the wrong kind, out of range or no valid choice.
    """
    import tyro

    completion = next((index for index, word in enumerate(argv) if word.startswith("--tyro-")), len(argv))
    if {"--help", "-h"} & set(argv):
        argv = ["--help"]  # whatever else is there
    elif completion < len(argv):
        argv = argv[completion:]
        if not {"bash", "zsh", "tcsh"} & set(argv[1:]):
            raise FlagError(f"{argv[0]} needs a shell: bash, zsh or tcsh.")
    else:
        argv = normalize(argv, configs, others)
    parts = [(type(config).__name__, Annotated[as_tyro(config), tyro.conf.OmitArgPrefixes]) for config in configs]
    flags = dataclasses.make_dataclass("Flags", parts, frozen=True)
    parsed: Any = tyro.cli(flags, args=list(argv), prog=prog, description=description, use_underscores=True)
    values = [dataclasses.asdict(getattr(parsed, type(config).__name__)) for config in configs]
    return tuple(check(dataclasses.replace(config, **value)) for config, value in zip(configs, values, strict=True))
