"""The sizes of the loop, and how they follow from flags."""

import math
from typing import NamedTuple, Protocol


class SizeFlags(Protocol):
    """The flags, without gaps, that shape the loop; their meanings are those of `goalax.host.config.Flags`."""

    @property
    def num_envs(self) -> int: ...
    @property
    def num_eval_envs(self) -> int: ...
    @property
    def episode_length(self) -> int: ...
    @property
    def action_repeat(self) -> int: ...
    @property
    def unroll_length(self) -> int: ...
    @property
    def min_replay_size(self) -> int: ...
    @property
    def max_replay_size(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def utd_ratio(self) -> float: ...
    @property
    def discounting(self) -> float: ...
    @property
    def vis_length(self) -> int: ...
    @property
    def offline_ratio(self) -> float: ...


class Sizes(NamedTuple):
    """The numbers that shape the loop; steps are environment steps."""

    num_envs: int
    num_eval_envs: int
    episode_length: int  # a multiple of action_repeat
    action_repeat: int
    unroll_length: int  # rows of the buffer per unroll
    min_replay_size: int  # per environment, in rows
    max_replay_size: int  # per environment, in rows
    batch_size: int
    updates_per_unroll: int
    discounting: float
    vis_length: int  # environment steps of every evaluation that are recorded
    offline_rows: int = 0  # of every batch online, from a dataset

    @property
    def steps_per_unroll(self) -> int:
        return self.num_envs * self.unroll_length * self.action_repeat

    @property
    def prefill_unrolls(self) -> int:
        return math.ceil(self.min_replay_size / self.unroll_length)

    @property
    def max_episode_decisions(self) -> int:
        return self.episode_length // self.action_repeat

    @property
    def recorded_episodes(self) -> int:
        return min(self.num_eval_envs, math.ceil(self.vis_length / self.episode_length))

    def train_steps(self, num_timesteps: int) -> int:
        """Unrolls with updates until the first unroll boundary at or past num_timesteps, after the prefill."""
        return -(-num_timesteps // self.steps_per_unroll) - self.prefill_unrolls


def samples_of(share: float, batch_size: int) -> int:
    """How many samples of a batch a share of it is."""
    return round(share * batch_size)


def derived_utd_ratio(
    num_envs: int, episode_length: int, action_repeat: int, unroll_length: int, batch_size: int, multiplier: float
) -> float:
    """Gradient updates per environment step where nobody says how many.

    JaxGCRL's number (arXiv 2408.11052): after an unroll every environment gives as many samples as an episode has
    environment steps, whatever the action_repeat, and batches use each of them `multiplier` times.
    """
    updates = multiplier * num_envs * (episode_length - 1) / batch_size
    return updates / (num_envs * unroll_length * action_repeat)


def sizes_of(flags: SizeFlags) -> Sizes:
    """The sizes that flags stand for; at least one update per unroll."""
    steps_per_unroll = flags.num_envs * flags.unroll_length * flags.action_repeat
    same = set(Sizes._fields) - {"updates_per_unroll", "offline_rows"}
    return Sizes(
        updates_per_unroll=max(1, round(flags.utd_ratio * steps_per_unroll)),
        offline_rows=samples_of(flags.offline_ratio, flags.batch_size),
        **{name: getattr(flags, name) for name in same},
    )
