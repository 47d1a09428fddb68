"""What flags stand for: presets fill their gaps, and they must fit each other and the environment."""

import dataclasses
from typing import Any, NamedTuple

import jax

from goalax.agents import AGENTS
from goalax.core.sizes import derived_utd_ratio, samples_of, sizes_of
from goalax.data.names import is_ogbench
from goalax.envs import GoalEnv, create_env
from goalax.flags import FlagError, check, names_in
from goalax.host import devices, ogbench
from goalax.host.config import Config, Flags, algorithm_of
from goalax.host.folders import require_one


class Setup(NamedTuple):
    """What flags stand for."""

    config: Config
    env: GoalEnv
    eval_env: GoalEnv


def resolve(flags: Flags) -> Setup:
    """The flags without gaps, and the environments to train and evaluate in; checked, also for Python callers.

    Raises:
      FlagError: flags of wrong types or values, or that do not fit each other or the environment.
    """
    flags = check(flags)
    env = make_env(flags, "env_name", flags.env_name)
    eval_env = env
    if flags.eval_env not in (None, flags.env_name):
        eval_env = make_env(flags, "eval_env", flags.eval_env)
        own, other = ((e.state_dim, e.goal_dim, e.action_size) for e in (env, eval_env))
        if own != other:
            raise FlagError(
                f"--eval_env is {flags.eval_env!r}, whose state, goal and action sizes {other} differ from"
                f" {own} of --env_name {flags.env_name}."
            )
    check_goals(flags, env)
    on_cpu = jax.default_backend() == "cpu"
    unused = names_in(Flags, algorithm_of(flags).unused)
    repeat, length = flags.action_repeat, flags.episode_length or env.episode_length
    num_envs = flags.num_envs or (64 if on_cpu else 512)
    derived = num_envs, length, repeat, flags.unroll_length, flags.batch_size, flags.multiplier_num_sgd_steps
    presets = {
        "eval_env": flags.env_name,
        "backend": env.backend,
        "num_timesteps": env.num_timesteps,
        "num_envs": num_envs,
        "num_eval_envs": ogbench.episodes(eval_env) or (64 if on_cpu else 128),
        "episode_length": length,
        "min_replay_size": 0 if "min_replay_size" in unused else max(1000, -(-length // repeat)),
        "utd_ratio": env.utd_ratio * flags.multiplier_num_sgd_steps if env.utd_ratio else derived_utd_ratio(*derived),
        "normalize_observations": env.normalize_observations,
        "exp_name": flags.run_name,
    }
    given = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Flags)}
    given |= {name: value for name, value in presets.items() if given[name] is None}
    if isinstance(eval_env, ogbench.OGBenchEnv):  # which has nothing to show
        given["vis_length"] = 0
    if "num_devices" in unused:
        given["num_devices"] = 1
    else:
        sizes = {field.name: given[field.name] for field in dataclasses.fields(Flags) if field.metadata["divided"]}
        if flags.dataset is not None:  # each device needs all of it, and so whole seeds
            sizes["dataset"] = 1
            if flags.num_devices and devices.sharers(flags.num_seeds, flags.num_devices) > 1:
                raise FlagError(
                    f"--num_devices is {flags.num_devices}; with --dataset it must divide"
                    f" --num_seeds {flags.num_seeds}."
                )
        given["num_devices"] = devices.choose(flags.num_devices, flags.num_seeds, sizes)
    config = Config(**given)
    ogbench.check(config, env, eval_env)
    check_together(config)
    return Setup(config, env, eval_env)


def make_env(flags: Flags, flag_name: str, env_name: str | None) -> GoalEnv:
    try:
        if is_ogbench(env_name):
            return ogbench.OGBenchEnv(str(env_name), flags.backend, flags.dense_reward)
        return create_env(env_name or flags.env_name, flags.backend, flags.dense_reward)
    except ValueError as error:
        about = {"backend": "Unsupported backend", "dense_reward": "no dense reward"}
        for wrong in (flag for flag, words in about.items() if words in str(error)):
            raise FlagError(f"--{wrong} is {getattr(flags, wrong)!r} with --{flag_name} {env_name}: {error}") from None
        raise FlagError(f"--{flag_name} is {env_name!r}: {error}") from None


def check_goals(flags: Flags, env: GoalEnv) -> None:
    """FlagError if goals are commanded that nobody can have, or if there are none and the agent needs them."""
    if flags.commanded_goals != "env":
        whys = {
            f"--env_name {flags.env_name} has no goals": env.goal_dim == 0,
            f"--env_name {flags.env_name} is a law of pairs of starts and goals": env.pairs_of_ends,
            "with --num_timesteps 0 no episode collects": flags.num_timesteps == 0,
        }
        for why in (why for why, holds in whys.items() if holds):
            raise FlagError(f"--commanded_goals is {flags.commanded_goals!r}; {why}: leave it out.")
    if env.goal_dim > 0:
        return
    if algorithm_of(flags).goals:
        others = [name for name, algorithm in AGENTS.items() if not algorithm.goals]
        raise FlagError(
            f"--agent is {flags.agent!r}, which learns from goals; --env_name {flags.env_name} has none, and is for"
            f" {', '.join(others)}."
        )


def check_replay(config: Config) -> None:
    """FlagError if the sizes of the buffer do not fit the episodes or each other."""
    one_episode = config.episode_length // config.action_repeat
    for name in ("min_replay_size", "max_replay_size"):
        if getattr(config, name) < one_episode:
            raise FlagError(
                f"--{name} is {getattr(config, name)}; it must be at least one episode, {one_episode} actions, because"
                " goals come from the future of the same episode."
            )
    if config.min_replay_size > config.max_replay_size:
        raise FlagError(
            f"--min_replay_size is {config.min_replay_size}; it must be at most --max_replay_size"
            f" {config.max_replay_size}."
        )


def check_dataset(config: Config) -> None:
    """FlagError if the flags of datasets do not fit each other or the agent."""
    if config.dataset is not None and "replay" in algorithm_of(config).unused:
        raise FlagError(f"--dataset means nothing to --agent {config.agent}, which learns without a buffer.")
    check_ratio(config)
    if config.dataset is not None and config.offline_steps == 0:
        if config.offline_ratio == 0:
            raise FlagError(
                f"--dataset is {config.dataset!r}; --offline_steps must say how many updates to make on it, or"
                " --offline_ratio its share of batches online."
            )
        if config.finetune_dataset is not None:
            raise FlagError(
                f"--finetune_dataset is {config.finetune_dataset!r}; --offline_steps must say how many updates to make"
                " on --dataset before it."
            )
    if config.dataset is None and config.offline_steps > 0:
        raise FlagError(f"--offline_steps is {config.offline_steps}; --dataset must name the file to learn from.")
    if config.finetune_dataset is not None and config.dataset is None:
        raise FlagError(f"--finetune_dataset is {config.finetune_dataset!r}; --dataset must name what comes before it.")
    if config.finetune_dataset is not None and config.finetune_steps == 0:
        raise FlagError(
            f"--finetune_dataset is {config.finetune_dataset!r}; --finetune_steps must say how many updates to make on"
            " it."
        )
    if config.finetune_dataset is None and config.finetune_steps > 0:
        raise FlagError(
            f"--finetune_steps is {config.finetune_steps}; --finetune_dataset must name the file to learn from."
        )


def check_ratio(config: Config) -> None:
    """FlagError if there is nothing that --offline_ratio can be a share of, or no sample for one of both sources."""
    about = f"--offline_ratio is {config.offline_ratio:g}"
    if config.offline_ratio == 0:
        return
    if config.dataset is None:
        raise FlagError(f"{about}; --dataset must name the file to draw this share of every batch from.")
    if config.num_timesteps == 0:
        raise FlagError(f"{about}, a share of batches online; with --num_timesteps 0 there are none.")
    rows = sizes_of(config).offline_rows
    if not 0 < rows < config.batch_size:
        raise FlagError(
            f"{about}, which is {rows} of --batch_size {config.batch_size} samples; it must leave at least one to the"
            " dataset and one to the buffer."
        )


def check_together(config: Config) -> None:
    """FlagError if the values of a config do not fit each other."""
    sizes = sizes_of(config)
    episode, repeat = config.episode_length, config.action_repeat
    if episode % repeat:
        raise FlagError(
            f"--action_repeat is {repeat}; it must divide --episode_length {episode}"
            f" (next valid length: {-(-episode // repeat) * repeat})."
        )
    if "replay" not in algorithm_of(config).unused and config.num_timesteps > 0:
        check_replay(config)
    check_dataset(config)
    for words, size in (("environment steps", sizes.steps_per_unroll), ("updates", sizes.updates_per_unroll)):
        if size >= 2**30:
            raise FlagError(
                f"There would be {size:,} {words} between two looks of the host; lower --num_envs, --unroll_length"
                f"{' or --utd_ratio' if words == 'updates' else ''} to less than {2**30:,}."
            )
    prefill = sizes.prefill_unrolls * sizes.steps_per_unroll
    offline_only = config.dataset is not None and config.num_timesteps == 0
    if not offline_only and sizes.train_steps(config.num_timesteps) < 1:
        raise FlagError(
            f"--num_timesteps is {config.num_timesteps}; it must be greater than {prefill}, the steps before the first"
            " update (lower --min_replay_size or --num_envs for less)."
        )
    for name in ("exp_name", "group_name"):
        value = getattr(config, name)
        if value is not None and (not value.strip(". ") or not value.isprintable() or set(value) & {"/", "\\"}):
            raise FlagError(f"--{name} is {value!r}; it must be a plain name, for it names a folder.")
    if config.log_wandb and (set(config.project_name) & {*"/\\#?%:"} or len(config.project_name) > 128):
        raise FlagError(
            f"--project_name is {config.project_name!r}; Weights & Biases takes 128 characters at most, none of"
            " / \\ # ? % :."
        )
    require_one(config)


def check_shares(agent_config: Any, original: float, batch_size: int) -> None:
    """FlagError if a share of a batch is not a sample of it, or one of commanded goals (`Needs.original`) is all."""
    shares = {name: getattr(agent_config, name, 0.0) for name in ("random_goals", "her_ratio")}
    for name, share in {**shares, "original_goals": original}.items():
        number, all_may = samples_of(share, batch_size), name != "original_goals"
        if share and not 0 < number < batch_size + all_may:
            raise FlagError(
                f"--{name} is {share:g}, which is {number} of --batch_size {batch_size} samples; it must be 0, or at"
                f" least one of them{'' if all_may else ' and not all'}."
            )
