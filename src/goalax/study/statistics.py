"""Point estimates with 95% intervals: over episodes, over seeds within environments, and between two agents; and what
a learning curve is in one number.

Interquartile mean, probability of improvement, performance profiles and the stratified bootstrap are those of Agarwal
et al. 2021 (Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv:2108.13264); the strata are the
environments.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000
ENTRIES = 10_000_000  # of resamples that are held at once, 80 MB


class Estimate(NamedTuple):
    """A value and its interval, [...] each; the interval is nan where nothing says how large it is."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrapped(samples: Sequence[np.ndarray], statistic: Callable) -> Estimate:
    """`statistic(*samples, axis=0)` and its percentile interval; every sample [n, ...] is resampled by itself.

    One observation says nothing about spread: a sample of one gives no interval.
    """
    value = np.asarray(statistic(*samples, axis=0))
    if min(len(sample) for sample in samples) < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    options = {"n_resamples": RESAMPLES, "confidence_level": LEVEL, "method": "percentile"}
    rng = np.random.default_rng(0)  # the same runs always give the same report
    at_once = max(1, ENTRIES // max(sample.size for sample in samples))
    found = stats.bootstrap(samples, statistic, axis=0, vectorized=True, batch=at_once, rng=rng, **options)
    low, high = found.confidence_interval
    return Estimate(value, np.asarray(low), np.asarray(high))


def mean(values: np.ndarray) -> Estimate:
    """Mean over independent observations [n]."""
    return bootstrapped([values], np.mean)


def share(values: np.ndarray) -> Estimate:
    """Share of ones among independent observations [n] of 0 or 1, with Wilson's interval.

    The bootstrap would claim certainty where all observations are equal.
    """
    result = stats.binomtest(int(np.sum(values)), len(values))
    interval = result.proportion_ci(LEVEL, method="wilson")
    return Estimate(*map(np.asarray, (result.statistic, interval.low, interval.high)))


def interquartile_mean(strata: Sequence[np.ndarray]) -> Estimate:
    """Mean of what is left of all scores without the floor(n / 4) highest and lowest, per entry of [...].

    Every environment counts alike: a score of one with fewer seeds stands for several.

    Args:
      strata: scores [seeds, ...], one array per environment.
    """
    common = math.lcm(*map(len, strata))
    times = np.concatenate([np.full(len(scores), common // len(scores)) for scores in strata])
    cut, number = int(times.sum()) // 4, int(times.sum())

    def statistic(*samples, axis):
        scores = np.moveaxis(np.concatenate(samples, axis=axis), axis, -1)
        order = np.argsort(scores, axis=-1)
        end = np.cumsum(times[order], axis=-1)
        kept = np.diff(np.clip(end, cut, number - cut), axis=-1, prepend=cut)
        return np.sum(kept * np.take_along_axis(scores, order, axis=-1), axis=-1) / (number - 2 * cut)

    return bootstrapped(strata, statistic)


def probability_of_improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """Probability that a random seed of ours beats a random one of theirs, a tie counting half; mean of environments.

    Args:
      ours, theirs: final scores [seeds], one array per environment, in equal order.
    """

    def statistic(*samples, axis):
        seeds_last = [np.moveaxis(sample, axis, -1) for sample in samples]
        pairs = zip(seeds_last[: len(ours)], seeds_last[len(ours) :], strict=True)
        wins = [0.5 + 0.5 * np.sign(x[..., :, None] - y[..., None, :]).mean((-2, -1)) for x, y in pairs]
        return np.mean(wins, axis=0)

    return bootstrapped([*ours, *theirs], statistic)


def performance_profile(strata: Sequence[np.ndarray], taus: np.ndarray) -> Estimate:
    """Share of runs whose score is above each of the taus [T], mean over environments, [T] (section 4 of the paper).

    Args:
      strata: final scores [seeds], one array per environment.
    """

    def statistic(*samples, axis):
        return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)

    return bootstrapped([(scores[:, None] > taus[None]).astype(float) for scores in strata], statistic)


def mean_over_training(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Area under learning curves over its width: values [..., T] at steps [T], straight between these -> [...].

    It begins with the first evaluation; of a single one it is the value.
    """
    if len(steps) == 1:
        return values[..., 0]
    middle, width = (values[..., 1:] + values[..., :-1]) / 2, np.diff(steps)
    return np.sum(middle * width, axis=-1) / np.sum(width)


def steps_to(threshold: float, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Steps [T] of the first evaluation whose value is at least the threshold, values [..., T] -> [...]; inf: none."""
    return np.min(np.where(values >= threshold, steps, np.inf), axis=-1)
