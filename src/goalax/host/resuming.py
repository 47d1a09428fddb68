"""How runs go on that were stopped: the command line for it, and what to say where something was not written."""

from pathlib import Path

from goalax.host import behind, checkpoint, folders
from goalax.host.config import Config
from goalax.host.origin import command_line


def command(config: Config, directories: list[Path], prog: str) -> str:
    """The command line that goes on with these runs; one each where names would not say which, for newer ones have
    them, too."""
    group = given("group_name", config.group_name) if config.group_name else []
    name = given("exp_name", config.exp_name)
    names = [*name, *group, "--seed", str(config.seed), "--num_seeds", str(config.num_seeds)]
    whole = not directories or (config.num_seeds > 1 and folders.find_all(config) == directories)
    lines = [names] if whole else [["--run_dir", str(directory)] for directory in directories]
    return " && ".join(command_line([*prog.split(), "--resume", *line]) for line in lines)


def given(name: str, value: str) -> list[str]:
    """A flag and its value, in one word where the value looks like a flag."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def unwritten(error: Exception, config: Config, directories: list[Path], prog: str) -> str:
    """What to say where something could not be written."""
    if isinstance(error, OSError):
        what = f"{error.filename} cannot be written ({error.strerror})" if error.filename else str(error)
    else:
        what = str(error)
    found = [set(checkpoint.steps(directory / "checkpoints")) for directory in directories]
    if not any(found):
        return f"Training stopped: {what}; there is no checkpoint yet, so start it anew once that is mended."
    common = set.intersection(*found)
    if not common:
        alone = "its seeds have no checkpoint in common, and go on one by one with --resume --run_dir"
        return f"Training stopped: {what}; {alone}."
    again = command(config, directories, prog)
    safe = f"everything up to the checkpoint at {behind.progress_in_words(config, max(common))} is safe"
    return f"Training stopped: {what}; {safe}, and once that is mended, this continues from there: {again}"
