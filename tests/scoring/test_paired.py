"""Paired tests against scipy's, Holm's procedure against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from afafilter.scoring.paired import holm, paired_test, worse_p_value
from afafilter.scoring.tally import Ratio


def test_positive_metrics_are_compared_by_their_logarithms():
    rng = np.random.default_rng(0)
    a = rng.gamma(2.0, size=30)
    b = a * np.exp(0.1 * rng.standard_normal(30) + 0.03)
    counts = np.full(30, 7.0)
    found = paired_test(Ratio(7 * a, counts, True), Ratio(7 * b, counts, True))
    wanted = ttest_rel(np.log(b), np.log(a))
    np.testing.assert_allclose(found, (wanted.statistic, wanted.pvalue), rtol=1e-10)


def test_metrics_of_both_signs_are_compared_as_they_are():
    """Equal counts: the linearised ratio is the mean, so the test is the paired t-test."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal(25)
    b = a + 0.2 * rng.standard_normal(25) + 0.1
    counts = np.full(25, 4.0)
    found = paired_test(Ratio(4 * a, counts), Ratio(4 * b, counts))
    wanted = ttest_rel(b, a)
    np.testing.assert_allclose(found, (wanted.statistic, wanted.pvalue), rtol=1e-10)


def test_a_few_lost_paths_do_not_hide_a_typical_difference():
    """Two of a hundred paths are lost: raw errors say nothing, their logarithms do."""
    rng = np.random.default_rng(2)
    counts = np.ones(100)
    best = rng.gamma(20.0, size=100)
    rival = best * np.exp(0.3 + 0.1 * rng.standard_normal(100))
    rival[:2] *= 1e4
    assert ttest_rel(best, rival).pvalue > 0.1
    assert paired_test(Ratio(best, counts, True), Ratio(rival, counts, True))[1] < 0.01


def test_ties():
    counts = np.ones(5)
    a = Ratio(np.arange(1.0, 6.0), counts)
    assert paired_test(a, Ratio(a.sums.copy(), counts)) == (0.0, 1.0)
    assert paired_test(a, Ratio(a.sums + 1.0, counts)) != (0.0, 1.0)
    assert worse_p_value(a, Ratio(2 * a.sums, counts)) < 1e-12
    assert worse_p_value(a, Ratio(a.sums / 2, counts)) == 1.0  # better on the typical path
    one = Ratio(np.ones(1), np.ones(1))
    assert paired_test(one, one) == (0.0, 1.0)
    empty = Ratio(np.zeros(5), np.zeros(5))
    assert paired_test(empty, a) == (0.0, 1.0)


def test_paths_without_a_value_are_left_out():
    counts = np.ones(12)
    rng = np.random.default_rng(3)
    a, b = rng.gamma(3.0, size=(2, 12))
    fewer = counts.copy()
    fewer[:2] = 0.0
    found = paired_test(Ratio(a, counts), Ratio(b * fewer, fewer))
    assert found == pytest.approx(paired_test(Ratio(a[2:], counts[2:]), Ratio(b[2:], counts[2:])))


def test_holm_is_its_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    adjusted, rejected = holm(p, 0.05)
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_array_equal(rejected, [True, False, False, True])
    assert len(holm(np.zeros(0), 0.05)[0]) == 0
