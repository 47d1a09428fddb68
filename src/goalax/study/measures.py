"""What the learning curves of a group are in one number each: how fast, how well on the way, how safely, how widely."""

import dataclasses

import numpy as np

from goalax.flags import flag
from goalax.study.experiments import REWARD, Group
from goalax.study.script import RunsConfig
from goalax.study.statistics import Estimate, interquartile_mean, mean_over_training, steps_to

FALLS, COVERAGE = "eval/falls", "training/coverage"
TASKS = "eval/success"  # of OGBench's environments: mean over their tasks


@dataclasses.dataclass(frozen=True)
class MeasuresConfig(RunsConfig):
    """Flags of what tells these numbers."""

    threshold: float = flag(0.5, "share of time at the goal whose first evaluation is looked for", above=0, high=1)


def is_offline(group: Group) -> bool:
    """Whether its runs learn from a dataset alone, so that its steps are updates."""
    return not group.metric("training/envsteps")[:, -1].any()


def has_tasks(group: Group) -> bool:
    """Whether it was evaluated as OGBench does: by success at the end of an episode, which ends at the goal."""
    return group.has(TASKS)


def shares(group: Group) -> np.ndarray:
    """Of the time at the goal, of OGBench's episodes, or of the reward of one that gives 1 a step, [seeds, T]."""
    if has_tasks(group):
        return group.metric(TASKS)
    return group.near if group.has_goals else group.metric(REWARD) / group.settings["episode_length"]


def area(group: Group) -> Estimate:
    """Mean of the shares over training, or over what comes after a dataset, the interquartile mean over seeds."""
    on = group.at >= 0
    return interquartile_mean([mean_over_training(group.at[on], shares(group)[:, on])])


def speed(group: Group, threshold: float) -> tuple[float, int]:
    """Steps of the first evaluation with this share, and how many seeds have such an evaluation.

    The median over seeds; a seed without counts as one that takes longer than all others: inf for half of them. 0 where
    a dataset was enough, before the first step.
    """
    first = steps_to(threshold, np.maximum(group.at, 0), shares(group))
    return float(np.median(first)), int(np.isfinite(first).sum())


def last_three(group: Group, name: str) -> Estimate | None:
    """A metric, mean over the last three evaluations (OGBench, arXiv 2410.20092), as `last`."""
    return interquartile_mean([group.metric(name)[:, -3:].mean(axis=1)]) if group.has(name) else None


def last(group: Group, name: str) -> Estimate | None:
    """A metric at the last evaluation, the interquartile mean over seeds; None where not all runs tell it."""
    return interquartile_mean([group.metric(name)[:, -1]]) if group.has(name) else None
