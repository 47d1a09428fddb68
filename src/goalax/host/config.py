"""The flags of a run: as they are typed (`Flags`), once nothing is missing (`Config`), and where they are read from."""

import dataclasses
import itertools
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, overload

from goalax.agents import AGENTS, Algorithm
from goalax.core.command import COMMAND
from goalax.flags import FlagError, Flagged, filled, flag, names_in, names_of, parse, set_in
from goalax.host.names import EnvNames
from goalax.words import choices

F = TypeVar("F", bound="Flags")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of a run as they are typed; None stands for a preset, which `resolve` fills in."""

    env_name: str = flag("reacher", "environment", valid=EnvNames())
    eval_env: str | None = flag(
        None, "another environment of equal sizes to evaluate in (default: env_name)", valid=EnvNames()
    )
    backend: str | None = flag(None, "physics engine: mjx, spring, positional, generalized (default: per environment)")
    agent: str = flag("crl", "algorithm", valid=AGENTS)
    num_timesteps: int | None = flag(
        None,
        "environment steps, all environments together (default: per environment); 0: none, with --dataset",
        low=0,
        aliases=["total_env_steps"],
        scope="budget",
        most=1e15,
    )
    num_envs: int | None = flag(
        None, "parallel environments (default: 64 on CPU, else 512)", low=1, divided=True, most=10_000_000
    )
    num_eval_envs: int | None = flag(
        None, "parallel episodes per evaluation (default: 64 on CPU, else 128)", low=1, divided=True, most=10_000_000
    )
    episode_length: int | None = flag(
        None, "time limit in environment steps (default: per environment)", low=2, most=10_000_000
    )
    action_repeat: int = flag(1, "environment steps per action", low=1, most=1_000_000)
    unroll_length: int = flag(62, "actions per environment between learning phases", low=1, most=1_000_000)
    min_replay_size: int | None = flag(
        None,
        "actions per environment before learning (default: 1000, or one episode if that is longer)",
        low=2,
        scope="replay",
    )
    max_replay_size: int = flag(
        10_000, "actions per environment that the buffer holds", low=2, scope="replay", most=400_000_000
    )
    batch_size: int = flag(256, "samples per gradient update", low=2, scope="replay", divided=True, most=10_000_000)
    multiplier_num_sgd_steps: float = flag(
        1.0,
        "scales the updates per learning phase",
        above=0,
        aliases=["train_step_multiplier"],
        scope="replay",
        most=1_000_000,
    )
    utd_ratio: float | None = flag(
        None,
        "gradient updates per environment step, one an unroll or more (default: that of the environment, or derived)",
        above=0,
        scope="replay",
        most=10_000,
    )
    # A resumed run may find its dataset elsewhere, and if it never collects, learn from it for longer.
    dataset: str | None = flag(
        None,
        "npz file in OGBench's format, folder of ExORL's episodes, ogbench:NAME or minari:NAME to learn from first",
        scope="budget",
    )
    offline_steps: int = flag(0, "updates on --dataset", low=0, scope="budget")
    finetune_dataset: str | None = flag(
        None, "dataset with rewards to learn from after --dataset, which needs none", scope="budget"
    )
    finetune_steps: int = flag(0, "updates on --finetune_dataset", low=0, scope="budget")
    offline_ratio: float = flag(
        0.0,
        "share of --dataset in every batch while collecting; learning begins after --min_replay_size actions of the"
        " policy so far, untrained without --offline_steps",
        low=0,
        below=1,
        scope="replay",
    )
    discounting: float = flag(0.99, "gamma of the goal law and of returns", above=0, below=1)
    commanded_goals: str = flag("env", "goals of the episodes that collect", valid=COMMAND, scope="replay")
    num_evals: int = flag(50, "evaluations, the last one at the end", low=1, scope="budget", most=1_000_000)
    seed: int = flag(0, "seed of everything random", low=0, high=2**31 - 1, scope="seed")
    num_seeds: int = flag(1, "train seeds seed, seed+1, ... at once in one program", low=1, scope="host", most=10_000)
    num_devices: int | None = flag(
        None,
        "devices that share the run (default: all that divide it evenly; on CPU one per process)",
        low=1,
        scope="devices",
        most=1_000_000,
    )
    coordinator_address: str | None = flag(
        None, "HOST:PORT of process 0, where several processes train together", scope="devices"
    )
    num_processes: int | None = flag(None, "processes that train together", low=1, scope="devices", most=1_000_000)
    process_id: int | None = flag(
        None,
        "which of them this is, from 0; process 0 writes the run directory",
        low=0,
        scope="devices",
        most=1_000_000,
    )
    normalize_observations: bool | None = flag(
        None, "normalise states and goals with statistics of the prefill, or of --dataset (default: per environment)"
    )
    visualization_interval: int = flag(
        5,
        "evaluations between pages that show the policy (HTML; at the end a GIF too); 0: only at the end",
        low=0,
        scope="host",
    )
    vis_length: int = flag(
        1000,
        "environment steps to show, of the evaluation's first episodes; 0: none",
        low=0,
        scope="host",
        most=10_000_000,
    )
    dense_reward: bool = flag(False, "shaped reward, where the environment has one")
    project_name: str = flag(
        "goalax", "project of the run in Weights & Biases", aliases=["wandb_project_name"], scope="host"
    )
    exp_name: str | None = flag(None, "name of the run (default: ENV_AGENT)", scope="name")
    group_name: str | None = flag(None, "group of the run; a folder in runs/", aliases=["wandb_group"], scope="name")
    log_wandb: bool = flag(False, "log to Weights & Biases", scope="host")
    wandb_mode: str = flag(
        "online",
        "online: needs an account, and offline without one; offline: no network",
        valid=("online", "offline"),
        scope="host",
    )
    log_tensorboard: bool = flag(False, "write TensorBoard's event files into the run directory", scope="host")
    watch: bool = flag(
        False, "keep watch.html in the run directory: curves, speed and newest film in a browser", scope="host"
    )
    checkpoint_interval: int = flag(1, "evaluations between checkpoints; 0: only at the end", low=0, scope="host")
    resume: bool = flag(False, "continue the newest run of the same name exactly where it stopped", scope="host")
    run_dir: str | None = flag(None, "the run to resume, in place of the newest one of that name", scope="host")

    @property
    def run_name(self) -> str:
        """The name of the run, without its seed; a folder's name where none is given."""
        return self.exp_name or f"{self.env_name}_{self.agent}".replace(":", "_")

    @property
    def dataset_steps(self) -> int:
        """Updates on datasets, which come before any interaction."""
        return self.offline_steps + self.finetune_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Flags):
    """The flags of a run without gaps: made by `resolve`, and by nothing else.

    Of an agent without a buffer the replay sizes are 0. Names that are not given are empty.
    """

    eval_env: str = filled(Flags, "eval_env")
    backend: str = filled(Flags, "backend")
    num_timesteps: int = filled(Flags, "num_timesteps")
    num_envs: int = filled(Flags, "num_envs")
    num_eval_envs: int = filled(Flags, "num_eval_envs")
    episode_length: int = filled(Flags, "episode_length")
    min_replay_size: int = filled(Flags, "min_replay_size")
    utd_ratio: float = filled(Flags, "utd_ratio")  # multiplier_num_sgd_steps is in it
    num_devices: int = filled(Flags, "num_devices")
    normalize_observations: bool = filled(Flags, "normalize_observations")
    exp_name: str = filled(Flags, "exp_name")


def algorithm_of(flags: Flags) -> Algorithm:
    return AGENTS[flags.agent]


def agent_flags(flags: Flags) -> Any:
    """The flags of the agent that is chosen, at their defaults."""
    return algorithm_of(flags).config()


def other_configs() -> dict[str, type[Flagged]]:
    """Agent name -> its config class."""
    return {name: entry.config for name, entry in AGENTS.items()}


def check_unused(agent: str, given: Collection[str]) -> str:
    """A sentence about run flags that mean nothing to an agent, or none; FlagError if one of them is given."""
    unused, known = names_in(Flags, AGENTS[agent].unused), names_of(Flags)
    said = {known[name].name for name in given if name in known}
    if said >= {"multiplier_num_sgd_steps", "utd_ratio"}:
        raise FlagError("--multiplier_num_sgd_steps means nothing with --utd_ratio: leave one of them out.")
    without = f"{', '.join(f'--{name}' for name in unused)} mean nothing to --agent {agent}"
    if said & set(unused):
        raise FlagError(f"{without}: leave them out.")
    return f"{without}." if unused else ""


def check_logging(flags: Flags, given: Collection[str]) -> None:
    """FlagError if the flag of a logger is given that is off; given: names of flags."""
    if "wandb_mode" in given and not flags.log_wandb:
        raise FlagError("--wandb_mode means nothing without --log_wandb: leave it out.")


def check_agent(agent: str) -> str:
    """The name of an agent; FlagError that lists the choices if there is none."""
    if agent not in AGENTS:
        raise FlagError(f"--agent is {agent!r}; choose from: {choices(str(agent), list(AGENTS))}.")
    return AGENTS.resolve(agent)


def agent_in(argv: Sequence[str], default: str) -> str:
    """The name of the agent that a command line is about; FlagError as `check_agent`."""
    agent = default
    for argument, following in itertools.pairwise([*argv, ""]):
        if argument == "--agent":
            agent = following or agent
        elif argument.startswith("--agent="):
            agent = argument.removeprefix("--agent=")
    return check_agent(agent)


@overload
def read_flags(argv: Sequence[str], defaults: None = None, prog: str = "training.py") -> tuple[Flags, Any]: ...
@overload
def read_flags(argv: Sequence[str], defaults: tuple[F, Any], prog: str = "training.py") -> tuple[F, Any]: ...
def read_flags(
    argv: Sequence[str], defaults: tuple[Flags, Any] | None = None, prog: str = "training.py"
) -> tuple[Flags, Any]:
    """(flags of the run, flags of its agent) from the command line; FlagError says in one sentence what is wrong.

    Args:
      defaults: what flags that are not given fall back to, in place of the defaults of the classes.
    """
    flags = defaults[0] if defaults else Flags()
    agent = agent_in(argv, flags.agent)
    agent_config = defaults[1] if defaults and agent == flags.agent else AGENTS[agent].config()
    about = " ".join((sys.modules[AGENTS[agent].config.__module__].__doc__ or agent).split())  # names its paper
    spelled = {argument[2:].partition("=")[0].replace("-", "_") for argument in argv if argument.startswith("--")}
    without = check_unused(agent, spelled)
    description = f"{about.rstrip('.')}. Another algorithm's flags: --agent NAME --help. {without}".rstrip()
    read = parse(argv, flags, agent_config, others=other_configs(), prog=prog, description=description)
    if defaults or not read[0].resume:  # the run that is resumed may log: then argv is read again, with its flags
        check_logging(read[0], spelled)
    return read


def flags_from(values: Mapping[str, Any]) -> tuple[Flags, Any]:
    """(flags of the run, flags of its agent) from Python values, by name or alias; FlagError as `read_flags`."""
    agent = check_agent(values.get("agent", Flags().agent))
    check_unused(agent, values)
    flags, agent_config = set_in((Flags(), AGENTS[agent].config()), {**values, "agent": agent}, other_configs())
    check_logging(flags, values)
    return flags, agent_config
