# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may be compared with whom, and what is said of it."""

from __future__ import annotations

import random

import pytest
from bench_records import many, record

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import comparison


@pytest.fixture
def draw():
    return random.Random(20261125)


@pytest.mark.parametrize("change, words", [
    ({"protocol": {"run": "first"}}, "run: warm here, first there"),
    ({"protocol": {"random-input-len": 16384}}, "random-input-len: 1024 here, 16384 there"),
    ({"protocol": {"tokenizer": "gemma-4-E4B-it"}}, "tokenizer: gemma-4-E2B-it here, gemma-4-E4B-it there"),
    ({"protocol": {"max-concurrency": 8}}, "max-concurrency: 1 here, 8 there"),
    ({"protocol": {"temperature": 0}}, "temperature: not set here, 0 there"),
    ({"model": "gemma-4-E4B-it"}, "model: gemma-4-E2B-it here, gemma-4-E4B-it there"),
    ({"platform": "a3"}, "platform: a2 here, a3 there"),
    ({"tokenizer_sha256": "b" * 64}, "tokenizer.json: sha256 aaaaaaaaaaaa here, bbbbbbbbbbbb there"),
    ({"cache_hit_ratio": 0.02}, "prefix cache: 98 % of the prompt tokens came from it here, 2 % there"),
])
def test_what_differs_is_named_and_not_compared(draw, change, words):
    new = many(draw, 5, tokenizer_sha256="a" * 64, cache_hit_ratio=0.98)
    assert comparison.differences(new[0], new[1]) == []
    other = record(**dict({"tokenizer_sha256": "a" * 64, "cache_hit_ratio": 0.98}, **change))
    assert comparison.differences(new[0], other) == [words]
    if "model" not in change:
        judged = comparison.judge(new, [other])
        assert judged["verdict"] == "cannot_tell" and judged["metrics"] == [] and words in judged["why"]


def test_what_is_not_known_is_no_difference():
    assert comparison.differences(record(platform=None), record(tokenizer_sha256="a" * 64, cache_hit_ratio=0.9)) == []


@pytest.mark.parametrize("factor, verdict", [(1.0, "better_or_equal"), (1.2, "better_or_equal"), (0.8, "worse")])
def test_judge_tells_better_equal_and_worse(draw, factor, verdict):
    judged = comparison.judge(many(draw, 8, factor, run_id="new"), many(draw, 8, run_id="old"))
    assert judged["verdict"] == verdict and [row["metric"] for row in judged["metrics"]] == list(comparison.JUDGED)
    assert {row["verdict"] for row in judged["metrics"]} == {{1.0: "equal", 1.2: "better", 0.8: "worse"}[factor]}
    assert "\n" not in judged["why"] and (verdict != "worse" or "1k/1k output_throughput 0.8" in judged["why"])


def test_one_metric_that_is_worse_is_enough(draw):
    new = many(draw, 8)
    for one in new:
        one["metrics"]["mean_ttft_ms"] *= 1.5
    judged = comparison.judge(new, many(draw, 8))
    assert judged["verdict"] == "worse" and "mean_ttft_ms 1.4" in judged["why"] and "output_throughput" not in judged["why"]


def test_cannot_tell_is_an_answer(draw):
    assert "so there is no spread to judge by; measure again with -e repeats=5" in comparison.judge([record()], [record()])["why"]
    noisy = comparison.judge(many(draw, 3, 0.9, 0.3), many(draw, 3, 1.0, 0.3))
    assert noisy["verdict"] == "cannot_tell" and "too wide for an effect of 5 %" in noisy["why"]
    assert comparison.judge([], [record()]) == {"verdict": "cannot_tell", "metrics": [], "why": "canary: no measurement that counts"}
    assert "nothing to compare with" in comparison.judge([record(workload="64k/1k")], [record()])["why"]


def test_one_workload_without_a_baseline_keeps_the_verdict_open(draw):
    judged = comparison.judge(many(draw, 8) + [record(workload="64k/1k")], many(draw, 8))
    assert judged["verdict"] == "cannot_tell" and "64k/1k: nothing to compare with" in judged["why"]
    assert {row["verdict"] for row in judged["metrics"]} == {"equal"}


@pytest.mark.parametrize("change", [{"status": "failed", "problems": ["1 of 1 requests failed"], "metrics": {}}, {"counts_as": "warm-up"},
                                    {"disturbed": True, "notes": ["3 requests of others were answered meanwhile"]}])
def test_what_does_not_count_stands_in_no_comparison(draw, change):
    odd = record(**change)
    assert not comparison.usable(odd)
    assert comparison.judge([odd], many(draw, 5))["why"] == "canary: no measurement that counts"
    said = comparison.left_out([odd, record()])
    assert len(said) == (0 if "counts_as" in change else 1) and all("is left out: " in line for line in said)


def test_the_whole_verdict_is_wrong_no_more_often_than_it_says(draw):
    """Nine rows each; without a share for each row one of three verdicts would be a false alarm in about one of five runs."""
    workloads = ("1k/1k", "16k/1k", "64k/1k")
    worse = 0
    for dummy in range(400):
        sides = [[one for name in workloads for one in many(draw, 5, noise=0.1, workload=name, run_id=side)] for side in ("new", "old")]
        worse += comparison.judge(*sides)["verdict"] == "worse"
    assert worse <= 0.05 * 400


def test_where_there_are_runs_enough_their_own_spread_counts(draw):
    """Starts of an engine differ by 10 %, rounds of one start by 0.1 %: rounds alone would call every new start better or worse."""
    def run(name):
        return many(draw, 5, 1 + draw.gauss(0, 0.1), 0.001, run_id=name)

    wrong = 0
    for dummy in range(100):
        past = [one for number in range(6) for one in run("run%d" % number)]
        wrong += comparison.judge(run("new"), past)["verdict"] == "worse"
    assert wrong <= 8
    few = comparison.judge(run("new"), run("old"))
    assert all(row["new_count"] == 5 for row in few["metrics"]) and any("start of the engine" in (row["why"] or "") for row in few["metrics"])


def test_a_metric_that_one_side_lacks_is_not_known(draw):
    old = many(draw, 5)
    for one in old:
        del one["metrics"]["mean_ttft_ms"]
    judged = comparison.judge(many(draw, 5), old)
    assert judged["verdict"] == "cannot_tell" and "there is no mean_ttft_ms there" in judged["why"]
    offline = [record(metrics={"output_throughput": 100.0 + number / 100.0}) for number in range(5)]
    assert [row["metric"] for row in comparison.judge(offline, offline)["metrics"]] == ["output_throughput"]


def test_a_zero_has_no_ratio():
    zero = record(metrics={"output_throughput": 0.0, "mean_ttft_ms": 1.0, "mean_tpot_ms": 1.0})
    assert "output_throughput is 0 somewhere" in comparison.judge([zero, zero], [zero, zero])["why"]


@pytest.mark.parametrize("settings", [{"confidence": 1.0}, {"minimum_effect": 0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        comparison.judge([record()], [record()], settings)


def test_hosts_are_compared_within_their_platform_and_the_slow_one_is_named(draw):
    records = [one for number in range(8) for one in many(draw, 1, 0.7 if number == 3 else 1.0, 0.002, host="a2-%d" % number)]
    records += many(draw, 1, 3.0, host="a3-1", platform="a3")
    rows = {row["metric"]: row for row in comparison.between_hosts(records)}
    assert list(rows["output_throughput"]["outliers"]) == ["a2-3"] == rows["output_throughput"]["slower"] == rows["mean_tpot_ms"]["slower"]
    assert rows["mean_tpot_ms"]["outliers"]["a2-3"] == pytest.approx(1 / 0.7, rel=0.02) and "a3-1" not in rows["output_throughput"]["hosts"]
    fast = [one for number in range(8) for one in many(draw, 1, 1.5 if number == 3 else 1.0, 0.002, host="a2-%d" % number)]
    assert comparison.between_hosts(fast)[0]["outliers"] and comparison.between_hosts(fast)[0]["slower"] == []


def test_two_instances_of_a_host_are_two(draw):
    records = many(draw, 1, host="a2-1", instance="x") + many(draw, 1, host="a2-1", instance="y") + many(draw, 1, host="a2-2", instance="x")
    row = comparison.between_hosts(records)[0]
    assert sorted(row["hosts"]) == ["a2-1 x", "a2-1 y", "a2-2"] and "3 hosts are too few" in row["why"]


def test_its_own_past_comes_before_the_fleets(draw):
    own = [one for number in range(3) for one in many(draw, 3, 1.0, 0.002, run_id="run%d" % number)]
    others = [one for number in range(3) for one in many(draw, 3, 3.0, run_id="run%d" % number, host="a2-2")]
    (row,) = comparison.against_history(many(draw, 3, 1.0, 0.001), own + others + many(draw, 1, 9.0))
    assert row["runs"] == 3 and row["verdict"] == "better_or_equal" and row["host"] == "a2-1"
    (row,) = comparison.against_history(many(draw, 3, 1.0), own[:3] + others)
    assert row["runs"] == 4, "one run of its own is not enough"
    (row,) = comparison.against_history([record()], [record(run_id="old", protocol_id="another")])
    assert row["verdict"] == "cannot_tell" and row["why"] == "baseline: no measurement that counts"


def test_before_and_after_have_a_difference_in_units_and_per_cent(draw):
    before, after = [many(draw, 1, factor, 0, label=label) for factor, label in ((1.0, "before"), (1.25, "after"))]
    made = comparison.before_after(before, after)
    row = next(row for row in made["rows"] if row["metric"] == "mean_ttft_ms")
    assert (row["before"], row["after"], row["difference"], row["percent"]) == (120.0, 96.0, -24.0, -20.0) and made["verdict"] == "cannot_tell"
    assert comparison.before_after([record(protocol={"run": "first"})], after)["rows"] == []
