"""The command line that a whole run amounts to: the flags of its first call, and of the calls that resumed it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from goalax.agents import AGENTS
from goalax.flags import names_in, names_of, value_type
from goalax.host.config import Flags
from goalax.host.origin import command_line

OURS = (["training.py"], ["goalax", "train"])  # programs whose flags are known here
# What a call that resumes says of which run goes on, and where: nothing about what is trained.
WHICH = {"resume", "run_dir", "num_seeds", *names_in(Flags, {"seed", "name", "devices"})}
TRUTH = {"true", "false", "1", "0"}


def calls(content: Mapping[str, Any]) -> list[list[str]]:
    """The first call of a config.json, and those that resumed it; none where the first is not known."""
    parts = content.get("resumed")
    resumed = [part.get("command") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    found = [content.get("command"), *resumed]
    if not isinstance(found[0], list):
        return []
    return [[str(word) for word in call] for call in found if isinstance(call, list)]


def lines(content: Mapping[str, Any], agent: str) -> list[str]:
    """What a shell takes to train the same: one command line, or where flags are not known here, one for each call.

    Where a budget on a dataset was raised, the one command may draw other samples: they are drawn for an unroll's
    updates at once, and anew where the first call ended between two of these.
    """
    found = calls(content)
    if not found:
        return []
    programs = [list(itertools.takewhile(lambda word: not word.startswith("--"), call)) for call in found]
    one_each = [command_line(call) for call in found]
    if agent not in AGENTS or any(program not in OURS for program in programs):
        return one_each
    try:
        given = [by_name(call[len(program) :], agent) for call, program in zip(found, programs, strict=True)]
    except KeyError:  # a flag of another version
        return one_each
    flags = {name: words for name, words in given[0].items() if name not in ("resume", "run_dir")}
    for later in given[1:]:
        flags |= {name: words for name, words in later.items() if name not in WHICH}
    if not is_on(flags.get("log_wandb")):  # as where a later call logged no more: it would be refused
        flags.pop("wandb_mode", None)
    return [command_line([*programs[0], *itertools.chain.from_iterable(flags.values())])]


def is_on(words: Sequence[str] | None) -> bool:
    """Whether these words, or their absence, turn a flag on."""
    if not words or words[0].startswith("--no"):
        return False
    value = words[0].partition("=")[2] or (words[1] if len(words) > 1 else "true")
    return value.lower() in ("true", "1")


def by_name(argv: Sequence[str], agent: str) -> dict[str, list[str]]:
    """The words of each flag as they were given, the last ones count; KeyError for one that is not known here."""
    known, rest, found = names_of(Flags, AGENTS[agent].config), list(argv), dict[str, list[str]]()
    while rest:
        words = [rest.pop(0)]
        name, equals, _ = words[0].removeprefix("--").partition("=")
        name = name.replace("-", "_")
        field = known[name] if name in known else known[name.removeprefix("no_")]
        more = rest[:1] if value_type(field) is not bool else [word for word in rest[:1] if word.lower() in TRUTH]
        if not equals and more:
            words.append(rest.pop(0))
        found[field.name] = words
    return found
