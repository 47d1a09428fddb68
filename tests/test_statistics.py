"""Statistics over runs against values by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from goalax.study import statistics


def test_interquartile_mean_by_hand():
    estimate = statistics.interquartile_mean([np.array([0.0, 1, 2, 3, 4, 5, 6, 100])])
    assert estimate.value == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert 1 < estimate.low < 3.5 < estimate.high < 50
    five = np.array([[10.0, 1], [0, 2], [1, 3], [2, 4], [90, 5]])  # floor(5 / 4): one from either end
    np.testing.assert_allclose(statistics.interquartile_mean([five]).value, [13 / 3, 3])
    assert statistics.interquartile_mean([np.array([1.0, 2, 6])]).value == 3  # too few to leave any out


def test_environments_count_alike_whatever_their_seeds():
    few, many = np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3, 0.0, 0.1, 0.2])
    estimate = statistics.interquartile_mean([few, many])
    repeated = statistics.stats.trim_mean(np.concatenate([np.repeat(few, 3), many]), 0.25)
    assert estimate.value == pytest.approx(repeated) and estimate.low <= estimate.value <= estimate.high
    assert statistics.interquartile_mean([np.full(10, 0.9), np.full(2, 0.1)]).value == pytest.approx(0.5)


def test_environments_are_resampled_by_themselves():
    # Without strata, a resample could hold many zeros and few ones, and its mean would not always be one half.
    estimate = statistics.interquartile_mean([np.zeros(10), np.ones(10)])
    assert estimate == (0.5, 0.5, 0.5)


def test_one_seed_gives_no_interval():
    for estimate in (
        statistics.interquartile_mean([np.array([0.5])]),
        statistics.interquartile_mean([np.array([0.5, 0.7]), np.array([0.3])]),
        statistics.probability_of_improvement([np.array([0.5])], [np.array([0.2, 0.1])]),
    ):
        assert np.isfinite(estimate.value) and np.isnan(estimate.low) and np.isnan(estimate.high)


def test_large_samples_are_resampled_in_parts(monkeypatch):
    """With the same interval: of one sample, in which order resamples are drawn does not depend on the parts."""
    values = np.random.default_rng(0).normal(size=200)
    whole = statistics.mean(values)
    monkeypatch.setattr(statistics, "ENTRIES", 600)
    assert statistics.mean(values) == whole


def test_probability_of_improvement_by_hand():
    ours, theirs = [np.array([1.0, 2, 3])], [np.array([0.0, 2])]
    estimate = statistics.probability_of_improvement(ours, theirs)
    assert estimate.value == pytest.approx((3 + 0.5 + 1) / 6)  # 1 > 0, 2 > 0, 3 > 0, 2 = 2, 3 > 2
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert statistics.probability_of_improvement(theirs, ours).value == pytest.approx(1.5 / 6)
    # The mean over environments; sizes may differ.
    both = statistics.probability_of_improvement([*ours, np.zeros(4)], [*theirs, np.ones(5)])
    assert both.value == pytest.approx(4.5 / 6 / 2)


def test_performance_profile_equals_numpy():
    strata, taus = [np.array([0.1, 0.5, 0.9]), np.array([0.5, 0.6])], np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    estimate = statistics.performance_profile(strata, taus)
    expected = [np.mean([np.mean(scores > tau) for scores in strata]) for tau in taus]
    np.testing.assert_allclose(estimate.value, expected)
    np.testing.assert_allclose(expected, [1, (2 / 3 + 1) / 2, (1 / 3 + 1 / 2) / 2, 0, 0])  # a score is not above itself
    assert (estimate.low <= estimate.value).all() and (estimate.value <= estimate.high).all()
    assert estimate.low[2] < estimate.value[2] < estimate.high[2]
    # The band by a bootstrap of its own, at one tau.
    rng = np.random.default_rng(5)
    draws = [np.mean([np.mean(rng.choice(scores, len(scores)) > 0.5) for scores in strata]) for _ in range(4000)]
    np.testing.assert_allclose([estimate.low[2], estimate.high[2]], np.percentile(draws, [2.5, 97.5]), atol=0.09)
    assert np.isnan(statistics.performance_profile([np.array([0.3])], taus).low).all()


def test_a_learning_curve_in_one_number_by_hand():
    steps = np.array([100, 200, 400])
    values = np.array([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    areas = statistics.mean_over_training(steps, values)
    np.testing.assert_allclose(areas, [(0.5 * 100 + 0.75 * 200) / 300, 0.2])
    np.testing.assert_allclose(areas, np.trapezoid(values, steps) / 300)
    np.testing.assert_array_equal(statistics.mean_over_training(steps[:1], values[:, :1]), [0, 0.2])
    np.testing.assert_array_equal(statistics.steps_to(0.5, steps, values), [200, np.inf])
    np.testing.assert_array_equal(statistics.steps_to(0.2, steps, values), [200, 100])


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = [estimate.low <= 0 <= estimate.high for estimate in map(statistics.mean, rng.normal(size=(100, 40)))]
    assert 88 <= sum(hits) <= 100


def test_intervals_of_means_are_as_wide_as_those_of_normals():
    """1.96 standard errors to either side: at a level of 90% they would be a sixth narrower."""
    values = np.random.default_rng(2).normal(size=1000)
    estimate, error = statistics.mean(values), values.std(ddof=1) / 1000**0.5
    sides = [estimate.value - estimate.low, estimate.high - estimate.value]
    np.testing.assert_allclose(sides, 1.96 * error, rtol=0.05)


def test_share_by_hand():
    estimate = statistics.share(np.ones(10))
    z = 1.959964
    assert estimate.value == estimate.high == 1
    assert estimate.low == pytest.approx(1 / (1 + z**2 / 10), abs=1e-6)  # Wilson 1927, all of 10
    assert statistics.share(np.array([0, 1, 0, 0.0])).value == 0.25
