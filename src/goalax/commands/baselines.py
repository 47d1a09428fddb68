"""Writes the tables of docs/baselines.md from runs, or prints the commands of those rows that no run has finished."""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from goalax.flags import FlagError, flag, parse
from goalax.host import checkpoint
from goalax.host.display import duration
from goalax.study import experiments, markdown
from goalax.study.experiments import Group
from goalax.study.results import cell
from goalax.study.statistics import interquartile_mean

ENVS = ("reacher", "simple_u_maze")
AGENTS = ("crl", "tmd", "cmd", "cmd2", "qrl", "sac", "sac --use_her", "td3", "td3 --use_her", "gcbc")
# PPO throws away what it has learned from, and takes more steps; mazes have no dense reward.
PPO = {"reacher": "ppo --dense_reward --num_timesteps 2000000", "simple_u_maze": "ppo --num_timesteps 2000000"}
SEEDS = 3
COMMON = f"--num_seeds {SEEDS} --num_evals 20 --vis_length 0 --group_name baselines"
COLUMNS = ("`--agent`", "episodes that reach the goal", "share of time at the goal", "steps", "wall clock")


@dataclasses.dataclass(frozen=True)
class BaselinesConfig:
    """Which runs there are, and what to do with them."""

    runs: tuple[str, ...] = flag((), "folders with the runs (default: runs/baselines)", positional=True)
    out: str = flag("docs/baselines.md", "Markdown file whose tables are replaced")
    commands: bool = flag(False, "print the commands that are left to run instead")


def rows(env: str) -> dict[str, str]:
    """Agent and its flags -> name of its runs in an environment."""
    chosen = (*AGENTS, PPO[env])
    return {words: re.sub(r"\W+", "_", f"{env}_{re.sub('use_| --num_timesteps.*', '', words)}") for words in chosen}


def command(env: str, words: str) -> str:
    return f"python training.py --env_name {env} --agent {words} {COMMON} --exp_name {rows(env)[words]}"


def read(folders: Sequence[Path]) -> dict[str, Group]:
    """Name of the runs -> group, for those of the rows that all seeds were started of."""
    trained, _ = experiments.read([folder for folder in folders if folder.is_dir()])
    groups, _ = experiments.group(trained)
    return {group.runs[0].names["exp_name"]: group for group in groups if len(group.runs) == SEEDS}


def finished(group: Group) -> bool:
    return bool(group.steps[-1] >= group.settings["num_timesteps"])


def left(groups: Mapping[str, Group]) -> list[str]:
    """The commands of all rows that are not finished; those that can be resumed say so."""
    commands = []
    for env in ENVS:
        for words, name in rows(env).items():
            group = groups.get(name)
            if group is None or not finished(group):
                saved = group and all(checkpoint.steps(run.directory / "checkpoints") for run in group.runs)
                commands.append(command(env, words) + (" --resume" if saved else ""))
    return commands


def table(env: str, groups: Mapping[str, Group]) -> str:
    """The Markdown table of an environment, at the last evaluation of each row, and the commands of the rows."""
    lines = []
    for words, name in rows(env).items():
        cells = ["not run", "", "", ""]
        if name in groups:
            group = groups[name]
            measures = [cell(interquartile_mean([scores[:, -1]])) for scores in (group.reached, group.near)]
            steps = f"{group.steps[-1]:,}{'' if finished(group) else ' (not finished)'}"
            cells = [*measures, steps, duration(group.metric("training/walltime")[:, -1].max())]
        lines.append([f"`{words.split(' --num')[0]}`", *cells])
    commands = "\n".join(command(env, words) for words in rows(env))
    return markdown.table(COLUMNS, lines) + f"\n```\n{commands}\n```\n"


def main(argv: Sequence[str], prog: str = "baselines.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Writes the tables of the baselines, or prints what is left to run."
        (config,) = parse(argv, BaselinesConfig(), others={}, prog=prog, description=description)
        groups = read(list(map(Path, config.runs or ("runs/baselines",))))
        if config.commands:
            print(*left(groups), sep="\n")
            return 0
        path = Path(config.out)
        if not path.is_file():
            raise FlagError(f"--out is {config.out!r}; there is no such file.")
        text = path.read_text()
        for env in ENVS:
            text = markdown.replace(text, env, "baselines.py", table(env, groups))
        path.write_text(text)
        print(path)
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0
