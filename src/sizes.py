"""The sizes of the loop that flags stand for, and whether flags fit each other."""

from typing import Any

from src.agents import AGENTS
from src.flags import FlagError
from src.train import Sizes


def replays(config: Any) -> bool:
    """Whether the agent learns from a buffer."""
    return "max_replay_size" not in AGENTS[config.agent].unused


def sizes_of(config: Any) -> Sizes:
    """The sizes of the loop, from a resolved config."""
    steps_per_unroll = config.num_envs * config.unroll_length * config.action_repeat
    if config.utd_ratio is not None:
        updates = config.utd_ratio * steps_per_unroll
    else:
        samples = config.num_envs * (config.episode_length - 1)
        updates = config.multiplier_num_sgd_steps * samples / config.batch_size
    names = set(Sizes._fields) - {"updates_per_unroll", "min_replay_size"}
    return Sizes(
        updates_per_unroll=max(1, round(updates)),
        min_replay_size=config.min_replay_size or 0,  # None for an agent without a buffer
        **{name: getattr(config, name) for name in names},
    )


def check_replay(config: Any) -> None:
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


def check_together(config: Any) -> None:
    """FlagError if the values of a resolved config do not fit each other."""
    sizes = sizes_of(config)
    episode, repeat = config.episode_length, config.action_repeat
    if episode % repeat:
        raise FlagError(
            f"--action_repeat is {repeat}; it must divide --episode_length {episode}"
            f" (next valid length: {-(-episode // repeat) * repeat})."
        )
    if replays(config):
        check_replay(config)
    prefill = sizes.prefill_unrolls * sizes.steps_per_unroll
    if sizes.train_steps(config.num_timesteps) < 1:
        raise FlagError(
            f"--num_timesteps is {config.num_timesteps}; it must be greater than {prefill}, the steps before the first"
            " update (lower --min_replay_size or --num_envs for less)."
        )
    for name in ("exp_name", "group_name"):
        value = getattr(config, name)
        if value is not None and (not value.strip(". ") or "/" in value or "\\" in value or "\0" in value):
            raise FlagError(f"--{name} is {value!r}; it must be a plain name, for it names a folder.")
    if config.run_dir is not None and (not config.resume or config.num_seeds > 1):
        raise FlagError("--run_dir names the one run to continue; it must come with --resume and without --num_seeds.")
