"""The host side that users look for here: the run flags, create_env, and what turns flags into a run."""

import dataclasses
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from envs import ENVS, GoalEnv, create_env
from src import devices, runs
from src.agents import AGENTS
from src.flags import FlagError, check, flag, names_of, parse
from src.registry import choices
from src.sharding import make_mesh
from src.sizes import check_together, replays, sizes_of
from src.train import Sizes, Train, make_train, spec_of

__all__ = [
    "Config",
    "Run",
    "create_env",
    "enable_compilation_cache",
    "make_run",
    "read_flags",
    "read_resumed_flags",
    "read_run",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags of a run; None stands for a preset that `resolve` fills in."""

    env_name: str = flag("reacher", "environment", valid=ENVS)
    eval_env: str | None = flag(
        None, "another environment of equal sizes to evaluate in (default: env_name)", valid=ENVS
    )
    backend: str | None = flag(None, "physics engine: mjx, spring, positional, generalized (default: per environment)")
    agent: str = flag("crl", "algorithm", valid=AGENTS)
    num_timesteps: int | None = flag(
        None,
        "environment steps, all environments together (default: per environment)",
        low=1,
        aliases=["total_env_steps"],
    )
    num_envs: int | None = flag(None, "parallel environments (default: 64 on CPU, else 512)", low=1)
    num_eval_envs: int | None = flag(None, "parallel episodes per evaluation (default: 64 on CPU, else 128)", low=1)
    episode_length: int | None = flag(None, "time limit in environment steps (default: per environment)", low=2)
    action_repeat: int = flag(1, "environment steps per action", low=1)
    unroll_length: int = flag(62, "actions per environment between learning phases", low=1)
    min_replay_size: int | None = flag(
        None, "actions per environment before learning (default: 1000, or one episode if that is longer)", low=2
    )
    max_replay_size: int = flag(10_000, "actions per environment that the buffer holds", low=2)
    batch_size: int = flag(256, "samples per gradient update", low=2)
    multiplier_num_sgd_steps: float = flag(
        1.0, "scales the updates per learning phase", above=0, aliases=["train_step_multiplier"]
    )
    utd_ratio: float | None = flag(None, "gradient updates per environment step (default: derived)", above=0)
    discounting: float = flag(0.99, "gamma of the goal law", above=0, below=1)
    num_evals: int = flag(50, "evaluations, the last one at the end", low=1)
    seed: int = flag(0, "seed of everything random", low=0, high=2**31 - 1)
    num_seeds: int = flag(1, "train seeds seed, seed+1, ... at once in one program", low=1)
    num_devices: int | None = flag(
        None, "devices that share the run (default: all that divide it evenly; on CPU one per process)", low=1
    )
    coordinator_address: str | None = flag(None, "HOST:PORT of process 0, where several processes train together")
    num_processes: int | None = flag(None, "processes that train together", low=1)
    process_id: int | None = flag(None, "which of them this is, from 0; process 0 writes the run directory", low=0)
    normalize_observations: bool | None = flag(
        None, "normalise states and goals with prefill statistics (default: per environment)"
    )
    visualization_interval: int = flag(
        5, "evaluations between pages that show the policy (HTML; at the end a GIF too); 0: only at the end", low=0
    )
    vis_length: int = flag(1000, "environment steps to show, of the evaluation's first episodes; 0: none", low=0)
    dense_reward: bool = flag(False, "shaped reward, where the environment has one")
    project_name: str = flag("goalax", "project of the run in Weights & Biases", aliases=["wandb_project_name"])
    group_name: str | None = flag(None, "group of the run; a folder in runs/", aliases=["wandb_group"])
    exp_name: str | None = flag(None, "name of the run (default: ENV_AGENT)")
    log_wandb: bool = flag(False, "log to Weights & Biases")
    wandb_mode: str = flag(
        "online", "online: needs an account, and offline without one; offline: no network", valid=("online", "offline")
    )
    log_tensorboard: bool = flag(False, "write TensorBoard's event files into the run directory")
    checkpoint_interval: int = flag(1, "evaluations between checkpoints; 0: only at the end", low=0)
    resume: bool = flag(False, "continue the newest run of the same name exactly where it stopped")
    run_dir: str | None = flag(None, "the run to resume, in place of the newest one of that name")


# Flags that a resumed run may change: they do not touch what is trained.
FREE = {
    "num_timesteps",
    "num_evals",
    "checkpoint_interval",
    "project_name",
    "log_wandb",
    "wandb_mode",
    "log_tensorboard",
    "resume",
    "run_dir",
    "visualization_interval",
    "vis_length",
    "num_devices",
    *devices.HOSTS,
}
FREE |= {"num_seeds"}  # every seed has its own run directory and can be continued with or without the others


def read_flags(
    argv: Sequence[str], defaults: tuple[Any, Any] | None = None, prog: str = "training.py"
) -> tuple[Any, Any]:
    """(Config, config of its agent) from the command line; FlagError says in one sentence what is wrong.

    Args:
      defaults: what flags that are not given fall back to, in place of the defaults of the classes.
    """
    config = defaults[0] if defaults else Config()
    agent = config.agent
    for argument, following in itertools.pairwise([*argv, ""]):
        if argument == "--agent" or argument.startswith("--agent="):
            agent = argument.removeprefix("--agent").removeprefix("=") or following or agent
    if agent not in AGENTS:
        raise FlagError(f"--agent is {agent!r}; choose from: {choices(agent, list(AGENTS))}.")
    agent = AGENTS.resolve(agent)
    agent_config = defaults[1] if defaults and agent == config.agent else AGENTS[agent].config()
    about = " ".join((sys.modules[AGENTS[agent].config.__module__].__doc__ or agent).split())  # names its paper
    description = f"{about.rstrip('.')}. Another algorithm's flags: --agent NAME --help."
    if unused := AGENTS[agent].unused:
        without = f"{', '.join(f'--{name}' for name in unused)} mean nothing to --agent {agent}"
        description = f"{description} {without}."
        spelled = {argument[2:].partition("=")[0].replace("-", "_") for argument in argv if argument.startswith("--")}
        if any(field.name in unused for name, field in names_of(config).items() if name in spelled):
            raise FlagError(f"{without}: leave them out.")
    others = {name: entry.config for name, entry in AGENTS.items()}
    return tuple(parse(argv, config, agent_config, others=others, prog=prog, description=description))


def read_run(directory: Path) -> tuple[Config, Any]:
    """(Config, config of its agent) of a run directory; FlagError if they cannot be read."""
    flags, agent_flags = runs.read_config(directory)
    try:
        config = check(Config(**flags))
        return config, check(AGENTS[config.agent].config(**agent_flags))
    except FlagError as error:
        raise FlagError(f"The run {directory} cannot be made again: {error}") from None
    except (TypeError, ValueError):
        raise FlagError(f"The run {directory} was written by a version with other flags.") from None


def read_resumed_flags(argv: Sequence[str], config: Config, directory: Path) -> tuple[Config, Any]:
    """The flags of the run in `directory`, changed by those given now; FlagError if these would change the training.

    Args:
      config: what argv says by itself.
    """
    stored, stored_agent = read_run(directory)
    stored = dataclasses.replace(stored, num_seeds=config.num_seeds)
    given, given_agent = read_flags(argv, (stored, stored_agent))
    names = [field.name for field in dataclasses.fields(Config) if field.name not in FREE]
    changed = [name for name in names if getattr(given, name) != getattr(stored, name)]
    if given.agent == stored.agent:
        names = [field.name for field in dataclasses.fields(stored_agent)]
        changed += [name for name in names if getattr(given_agent, name) != getattr(stored_agent, name)]
    if changed:
        words = ", ".join(f"--{name}" for name in changed)
        raise FlagError(f"--resume continues {directory} exactly; it cannot change {words} (leave out, or start anew).")
    return given, given_agent


def resolve(config: Config) -> tuple[Config, GoalEnv, GoalEnv]:
    """The config without gaps, and the environments to train and evaluate in.

    Raises:
      FlagError: flags that do not fit each other or the environment.
    """
    env = make_env(config, "env_name", config.env_name)
    eval_env = env
    if config.eval_env not in (None, config.env_name):
        eval_env = make_env(config, "eval_env", config.eval_env)
        sizes, eval_sizes = ((e.state_dim, e.goal_dim, e.action_size) for e in (env, eval_env))
        if sizes != eval_sizes:
            raise FlagError(
                f"--eval_env is {config.eval_env!r}, whose state, goal and action sizes {eval_sizes} differ from"
                f" {sizes} of --env_name {config.env_name}."
            )
    on_cpu = jax.default_backend() == "cpu"
    episode_length = config.episode_length or env.episode_length
    presets = {
        "eval_env": config.env_name,
        "backend": env.backend,
        "num_timesteps": env.num_timesteps,
        "num_envs": 64 if on_cpu else 512,
        "num_eval_envs": 64 if on_cpu else 128,
        "episode_length": env.episode_length,
        "min_replay_size": max(1000, -(-episode_length // config.action_repeat)) if replays(config) else None,
        "normalize_observations": env.normalize_observations,
        "exp_name": f"{config.env_name}_{config.agent}",
        "num_devices": 1 if "num_devices" in AGENTS[config.agent].unused else None,
    }
    config = dataclasses.replace(
        config, **{name: value for name, value in presets.items() if getattr(config, name) is None}
    )
    check_together(config)
    return devices.choose(config), env, eval_env


def make_env(config: Config, flag_name: str, env_name: str) -> GoalEnv:
    try:
        return create_env(env_name, config.backend, config.dense_reward)
    except ValueError as error:
        wrong = "dense_reward" if "dense reward" in str(error) else "backend"
        raise FlagError(f"--{wrong} is {getattr(config, wrong)!r} with --{flag_name} {env_name}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that flags stand for."""

    config: Config
    agent_config: Any
    env: GoalEnv
    eval_env: GoalEnv
    sizes: Sizes
    train: Train
    mesh: Mesh | None  # the devices; None for one


def make_run(config: Config, agent_config: Any) -> Run:
    """Environments, agent and training functions of flags; compiles nothing. FlagError as in `resolve`."""
    config, env, eval_env = resolve(config)
    sizes, spec = sizes_of(config), spec_of(env, config.discounting, config.action_repeat)
    if make := AGENTS[config.agent].make:
        agent = make(agent_config, spec)
        mesh = make_mesh(config.num_seeds, devices.chosen(config.num_devices))
        train = make_train(env, eval_env, agent, sizes, config.normalize_observations, config.num_seeds, mesh)
    else:
        from src.ppo import make_ppo  # here, because importing Brax's trainer would make every start slower

        mesh = None
        sizes, train = make_ppo(env, eval_env, spec, sizes, config, agent_config)
    return Run(config, agent_config, env, eval_env, sizes, train, mesh)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next start of the same sizes takes seconds."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goalax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
