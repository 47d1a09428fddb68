"""Flags of runs that lie in directories: read again, resumed with others, and set beside those of today."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goalax.agents import AGENTS
from goalax.flags import FREE, FlagError, before_flags, check, names_of
from goalax.host import runs
from goalax.host.config import Flags, algorithm_of, read_flags

Stored = tuple[Flags, Any]  # flags of a run, flags of its agent


def completed(flags: Mapping[str, Any], agent_flags: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All flags of a config.json: under today's names, and of those that its version did not have what it did, mostly
    their default. Of an agent that is not known here they are as they are."""
    agent = flags["agent"]
    known: list[Any] = [Flags(), *([AGENTS[agent].config()] if agent in AGENTS else [])]
    both = []
    for config, stored in itertools.zip_longest(known, (flags, agent_flags)):
        names = {} if config is None else names_of(config)
        defaults = {} if config is None else {**vars(config), **before_flags(config)}
        both.append({**defaults, **{names[name].name if name in names else name: stored[name] for name in stored}})
    return both[0], both[1]


def read_run(directory: Path) -> Stored:
    """(flags of a run, flags of its agent) in a run directory; FlagError if they cannot be read."""
    stored = runs.read_config(directory)
    try:
        run_flags, agent_flags = completed(*stored)  # its version may have called them otherwise
        flags = check(Flags(**run_flags))
        return flags, check(algorithm_of(flags).config(**agent_flags))
    except FlagError as error:
        raise FlagError(f"The run {directory} cannot be made again: {error}") from None
    except (KeyError, TypeError, ValueError):
        version = runs.version_of(directory)
        raise FlagError(f"The run {directory} was written by {version}, which has other flags.") from None


def differing(one: Stored, other: Stored) -> list[str]:
    """Names of the flags in which two runs differ, of those that `--resume` cannot change."""
    names = [field.name for field in dataclasses.fields(Flags) if field.metadata["scope"] not in FREE | {"seed"}]
    found = [name for name in names if getattr(one[0], name) != getattr(other[0], name)]
    if one[0].agent == other[0].agent:
        names = [field.name for field in dataclasses.fields(one[1])]
        found += [name for name in names if getattr(one[1], name) != getattr(other[1], name)]
    return found


def read_resumed_flags(argv: Sequence[str], flags: Flags, directories: Sequence[Path]) -> Stored:
    """The flags of the run in the first directory, changed by those given now.

    Args:
      flags: what argv says by itself.
      directories: one for each seed.

    Raises:
      FlagError: flags that are given would change the training, or seeds were trained with different ones.
    """
    stored, stored_agent = first = read_run(directories[0])
    for directory in directories[1:]:
        if unlike := differing(first, read_run(directory)):
            raise FlagError(
                f"{directory} was trained with another --{unlike[0]} than {directories[0]}: resume each alone."
            )
    stored = dataclasses.replace(stored, num_seeds=flags.num_seeds)
    given, given_agent = read_flags(argv, (stored, stored_agent))
    changed = differing((given, given_agent), (stored, stored_agent))
    changed += ["seed"] * (given.seed != stored.seed)
    if (given.num_timesteps == 0) != (stored.num_timesteps == 0):
        changed.append("num_timesteps")  # from or to 0: a run that never collects has no buffer
    elif given.num_timesteps != 0:
        budgets = "offline_steps", "finetune_steps"
        changed += [name for name in budgets if getattr(given, name) != getattr(stored, name)]
    elif given.offline_steps != stored.offline_steps and given.finetune_steps > 0:
        changed.append("offline_steps")  # at their end fine-tuning begins, and once only
    changed += ["dataset"] * ((given.dataset is None) != (stored.dataset is None))
    changed += ["finetune_dataset"] * (given.finetune_dataset is None and stored.finetune_dataset is not None)
    if changed:
        words = ", ".join(f"--{name}" for name in changed)
        raise FlagError(
            f"--resume continues {directories[0]} exactly; it cannot change {words} (leave out, or start anew)."
        )
    return given, given_agent
