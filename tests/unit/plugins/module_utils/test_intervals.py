# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statistics against made-up noise with a known answer: how often an interval holds the truth, and how often a verdict is wrong."""

from __future__ import annotations

import math
import random

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intervals

# Values of printed tables.
QUANTILES = [(1, 0.975, 12.706), (2, 0.975, 4.303), (4, 0.975, 2.776), (10, 0.95, 1.812), (30, 0.995, 2.750), (120, 0.975, 1.980)]


@pytest.mark.parametrize("freedom, probability, expected", QUANTILES)
def test_quantiles_of_students_t_are_those_of_the_tables(freedom, probability, expected):
    assert abs(intervals.t_quantile(probability, freedom) - expected) < 0.0006
    assert abs(intervals.t_below(expected, freedom) - probability) < 0.0005
    assert abs(intervals.t_below(-expected, freedom) - (1 - probability)) < 0.0005


def noisy(draw, true, size, noise, kind="lognormal"):
    if kind == "heavy":
        # Now and then a measurement is three times as far off.
        return [true * math.exp(draw.gauss(0, noise * (3 if draw.random() < 0.05 else 1))) for dummy in range(size)]
    return [true * math.exp(draw.gauss(0, noise)) for dummy in range(size)]


def rate(check, times=1500):
    draw = random.Random(20261125)
    return sum(bool(check(draw)) for dummy in range(times)) / float(times)


@pytest.mark.parametrize("new, old, noise, kind", [
    (5, 5, (0.02, 0.02), "lognormal"), (3, 10, (0.02, 0.02), "lognormal"), (5, 5, (0.01, 0.05), "lognormal"), (10, 4, (0.03, 0.01), "lognormal"),
    (1, 6, (0.02, 0.02), "lognormal"), (6, 1, (0.05, 0.05), "lognormal"), (5, 5, (0.02, 0.02), "heavy")])
def test_an_interval_holds_the_truth_as_often_as_it_says(new, old, noise, kind):
    true = 1.10

    def holds(draw):
        found = intervals.ratio(noisy(draw, true * 40.0, new, noise[0], kind), noisy(draw, 40.0, old, noise[1], kind))
        return found["low"] <= true <= found["high"]

    assert 0.93 <= rate(holds) <= 0.98


def test_an_interval_around_one_published_figure_holds_the_truth():
    def holds(draw):
        found = intervals.ratio(noisy(draw, 121.3, 4, 0.03), [121.3], fixed=True)
        return found["low"] <= 1.0 <= found["high"]

    assert 0.93 <= rate(holds) <= 0.97


def verdicts(true, size, noise, minimum=0.05, higher=True):
    counts = {}

    def count(draw):
        said = intervals.verdict(intervals.ratio(noisy(draw, 50 * true, size, noise), noisy(draw, 50, size, noise)), higher, minimum)
        counts[said] = counts.get(said, 0) + 1

    rate(count)
    return {name: number / 1500.0 for name, number in counts.items()}


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_without_a_difference_alarms_are_rare(noise):
    found = verdicts(1.0, 5, noise)
    assert found.get("worse", 0) <= 0.03 and found.get("better", 0) <= 0.03


def test_a_difference_below_what_matters_is_equal_and_never_worse():
    found = verdicts(0.98, 8, 0.005)
    assert found["equal"] > 0.99 and "worse" not in found


def test_a_difference_that_matters_is_found():
    assert verdicts(0.85, 5, 0.02)["worse"] > 0.99
    assert verdicts(0.85, 5, 0.02, higher=False)["better"] > 0.99
    assert verdicts(1.25, 5, 0.02)["better"] > 0.99


def test_too_much_noise_cannot_tell():
    found = verdicts(0.9, 3, 0.3)
    assert found["cannot tell"] > 0.9 and found.get("equal", 0) < 0.02


def test_an_effect_at_the_bound_is_hardly_ever_called_equal():
    assert verdicts(1 / 1.06, 8, 0.02).get("equal", 0) <= 0.05


def test_one_against_one_has_no_interval():
    found = intervals.ratio([2.0], [1.0])
    assert found == {"ratio": 2.0, "low": None, "high": None, "freedom": None} and intervals.verdict(found, True, 0.05) == "cannot tell"
    assert intervals.ratio([2.0], [1.0], fixed=True)["low"] is None


def test_without_spread_the_ratio_is_known():
    found = intervals.ratio([2.0, 2.0], [1.0, 1.0])
    assert found["low"] == found["high"] == pytest.approx(2.0) and intervals.verdict(found, False, 0.05) == "worse"


def test_wild_spread_is_no_overflow():
    found = intervals.ratio([1e-9, 1e9], [1e-9, 1e9])
    assert math.isfinite(found["high"]) and intervals.verdict(found, True, 0.05) == "cannot tell"


@pytest.mark.parametrize("new, old", [([], [1.0]), ([1.0], []), ([0.0, 1.0], [1.0]), ([1.0], [-1.0])])
def test_what_has_no_logarithm_is_refused(new, old):
    with pytest.raises(ValueError, match="positive numbers on both sides"):
        intervals.ratio(new, old)


@pytest.mark.parametrize("size", [4, 5, 8, 13, 25, 64])
def test_hosts_that_are_alike_are_seldom_called_outliers(size):
    def named(draw):
        return intervals.outliers({str(i): value for i, value in enumerate(noisy(draw, 80, size, 0.2))}, 0.01)[0]

    assert rate(named, 1000) <= 0.065


@pytest.mark.parametrize("size, at_least", [(4, 0.75), (8, 0.99), (32, 0.99)])
def test_a_host_that_is_slow_is_named(size, at_least):
    def named(draw):
        values = {str(i): value for i, value in enumerate(noisy(draw, 80, size, 0.01))}
        values["0"] *= 0.8
        return list(intervals.outliers(values, 0.05)[0]) == ["0"]

    assert rate(named, 500) >= at_least


def test_outliers_are_ratios_and_need_hosts_and_a_relevant_distance():
    apart, why = intervals.outliers({"a": 100.0, "b": 100.0, "c": 100.0, "d": 50.0}, 0.05)
    assert apart == {"d": pytest.approx(0.5)} and why is None
    assert intervals.outliers({"a": 100.0, "b": 100.0, "c": 100.0, "d": 99.0}, 0.05) == ({}, None)
    apart, why = intervals.outliers({"a": 1.0, "b": 1.0, "c": 9.0}, 0.05)
    assert apart == {} and "3 hosts are too few" in why
    with pytest.raises(ValueError, match="positive"):
        intervals.outliers({"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}, 0.05)


def test_two_slow_hosts_do_not_hide_each_other():
    values = {str(i): 100.0 + i / 10.0 for i in range(8)}
    values.update(x=50.0, y=52.0)
    assert sorted(intervals.outliers(values, 0.05)[0]) == ["x", "y"]


def test_between_two_sizes_the_careful_bound_holds():
    assert intervals.outlier_bound(24) == intervals.OUTLIER_BOUNDS[20] and intervals.outlier_bound(9999) == intervals.OUTLIER_BOUNDS[501]
    assert intervals.outlier_bound(150) == intervals.OUTLIER_BOUNDS[200]
