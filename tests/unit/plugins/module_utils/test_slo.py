# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objectives and sweeps."""

from __future__ import annotations

import pytest
from bench_records import record

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import slo, sweep


@pytest.mark.parametrize("name, metric", [
    ("ttft_p99_ms", "p99_ttft_ms"), ("p99_ttft_ms", "p99_ttft_ms"), ("tpot_mean_ms", "mean_tpot_ms"), ("p99.9_itl_ms", "p99.9_itl_ms"),
    ("e2el_median_ms", "median_e2el_ms"), ("output_tok_s", "output_throughput"), ("duration", "duration"), ("request_throughput", "request_throughput"),
    ("ttft_ms", None), ("ttft_p99_s", None), ("speed", None), ("mean_p99_ms", None)])
def test_a_metric_has_the_results_name(name, metric):
    assert slo.metric_name(name) == metric


@pytest.mark.parametrize("given, words", [
    ({"ttft_p9_m": 1}, "unknown objective 'ttft_p9_m'"), ({"tftt_p99_ms": 5}, "unknown objective 'tftt_p99_ms'; did you mean 'ttft_p99_ms'?"),
    ({"ttft_p99_ms": "fast"}, "ttft_p99_ms must be a number above 0, not 'fast'"), ({"ttft_p99_ms": 0}, "above 0"), ({"regression": True}, "above 0"),
    ({"regression": float("inf")}, "above 0"), ({"ttft_p99_ms": float("nan")}, "above 0"), ("500", "give a dictionary such as"), ({}, "give a dictionary"),
    ({"workloads": "1k/1k"}, "workloads must be a list")])
def test_objectives_that_cannot_be_read_are_told(given, words):
    with pytest.raises(slo.SloError) as raised:
        slo.read(given)
    assert words in str(raised.value)


def gate(records, judged=(), **given):
    return slo.gate(records, slo.read(given), judged)


def test_kept_objectives_pass_and_broken_ones_name_everything():
    findings = gate([record()], mean_ttft_ms=150, output_throughput=100)
    assert [item["status"] for item in findings] == ["pass", "fail"]
    line = slo.broken(findings)["a2-1"]
    assert line == ("gemma: slo.output_throughput: found 1k/1k: output_throughput 80.00; bound 1k/1k: output_throughput at least 100; "
                    "remedy: fewer requests at a time, another placement, or a bound that this hardware can hold")


def test_a_bound_is_met_at_the_bound():
    assert [item["status"] for item in gate([record()], mean_ttft_ms=120, output_throughput=80)] == ["pass", "pass"]
    assert [item["status"] for item in gate([record()], mean_ttft_ms=119.9, output_throughput=80.1)] == ["fail", "fail"]


def test_the_median_of_the_runs_counts_and_warm_ups_do_not():
    runs = [record(metrics={"mean_ttft_ms": value}) for value in (100.0, 110.0, 900.0)] + [record(counts_as="warm-up", metrics={"mean_ttft_ms": 9999.0})]
    (item,) = gate(runs, mean_ttft_ms=120)
    assert item["status"] == "pass" and "110.00, the median of 3 runs" in item["found"]


def test_a_metric_that_is_not_there_is_not_known_and_says_how_to_get_it():
    has = record(metrics={"p0_ttft_ms": 1.0, "p100_ttft_ms": 2.0, "mean_tpot_ms": 3.0})
    (item,) = gate([has], ttft_p99_ms=500)
    assert item["status"] == "unknown" and "the result has no p99_ttft_ms" in item["found"]
    assert "percentile-metrics that has ttft and metric-percentiles that has 99, or choose one of: p0_ttft_ms, p100_ttft_ms" in item["remedy"]
    assert gate([has], output_throughput=1)[0]["remedy"] == "choose one of: mean_tpot_ms, p0_ttft_ms, p100_ttft_ms"


def test_what_failed_is_not_known():
    (item,) = gate([record(status="failed", problems=["1 of 1 requests failed although the tool ended with 0"], metrics={})], mean_ttft_ms=500)
    assert item["status"] == "unknown" and "1 of 1 requests failed" in item["found"]
    assert "slo.mean_ttft_ms" in slo.broken([item])["a2-1"]


def test_objectives_may_be_for_some_workloads():
    records = [record(), record(workload="64k/1k", metrics={"mean_ttft_ms": 650.0})]
    assert [item["status"] for item in gate(records, mean_ttft_ms=200, workloads=["1k/1k"])] == ["pass"]
    assert [item["status"] for item in gate(records, mean_ttft_ms=200)] == ["pass", "fail"]
    assert gate(records, mean_ttft_ms=200, workloads=["nope"])[0]["status"] == "unknown"


@pytest.mark.parametrize("entry, status, words", [
    ({"verdict": "worse", "why": "mean_ttft_ms 1.300 times (1.200 to 1.400)", "metrics": [{}]}, "fail", "worse: mean_ttft_ms 1.300 times"),
    ({"verdict": "better_or_equal", "why": "9 comparisons, none worse", "metrics": [{}]}, "pass", "better or equal"),
    ({"verdict": "cannot_tell", "why": "too wide", "metrics": [{}]}, "unknown", "cannot tell: too wide"),
    ({"verdict": "cannot_tell", "why": "baseline: no measurement that counts", "metrics": []}, "unknown", "nothing to compare with: baseline"),
    (None, "unknown", "no earlier measurement")])
def test_regression(entry, status, words):
    judged = [] if entry is None else [dict(entry, host="a2-1", instance="gemma")]
    (item,) = gate([record()], judged, regression=0.05)
    assert item["status"] == status and words in item["found"] and item["expected"] == "no metric worse by more than 5 %"
    assert (status == "pass") == (not slo.broken([item])) and (status == "pass" or item["remedy"])


def point(number, throughput, latency, **more):
    return record(workload="concurrency %d" % number, protocol={"max-concurrency": number},
                  metrics=dict({"output_throughput": throughput, "mean_e2el_ms": latency}, **more))


def server(numbers, alone_ms=1000.0, tokens=100.0, seats=8.0):
    """A server that scales up to so many seats and not beyond (the asymptotes of a closed queue)."""
    made = []
    for number in numbers:
        rate = min(number / alone_ms, seats / alone_ms)
        made.append(point(number, 1000 * tokens * rate, number / rate, p99_ttft_ms=10.0 * number))
    return made


def test_the_knee_is_where_the_server_stops_scaling():
    points = sweep.curve(server([1, 2, 4, 8, 16, 32, 64]))
    assert [one["concurrency"] for one in points] == [1, 2, 4, 8, 16, 32, 64]
    assert sweep.knee(points)["concurrency"] == 8
    assert sweep.knee(sweep.curve(server([1, 3, 6, 12, 24])))["concurrency"] in (6, 12)


def test_without_a_knee_it_says_why():
    assert "still grows with 4 requests" in sweep.knee(sweep.curve(server([1, 2, 4])))["why"]
    assert "2 points are too few" in sweep.knee(sweep.curve(server([1, 2])))["why"]
    below = sweep.knee(sweep.curve(server([8, 16, 32])))
    assert below["concurrency"] == 8 and "the knee may lie below" in below["why"]


def test_the_largest_concurrency_keeps_the_objectives_with_all_below_it():
    points = sweep.curve(server([1, 2, 4, 8]))
    found = sweep.largest(points, slo.read({"ttft_p99_ms": 45})["bounds"])
    assert found == {"concurrency": 4, "why": "p99_ttft_ms is 80.00 with 8 requests at a time, bound 45"}
    points[1]["metrics"]["p99_ttft_ms"] = 99.0
    assert sweep.largest(points, slo.read({"ttft_p99_ms": 45})["bounds"])["concurrency"] == 1
    assert sweep.largest(points, slo.read({"ttft_p99_ms": 5})["bounds"])["concurrency"] is None
    assert "all that were measured keep it" in sweep.largest(points, slo.read({"output_throughput": 1})["bounds"])["why"]
    assert "not in the results" in sweep.largest(points, slo.read({"itl_p99_ms": 1})["bounds"])["why"]
    assert "no objective was given" in sweep.largest(points, [])["why"]


def test_several_runs_of_a_step_are_their_median_and_what_failed_is_left_out():
    records = [point(1, value, 10.0) for value in (10.0, 12.0, 50.0)] + [dict(point(2, 1.0, 1.0), status="failed")]
    assert [(one["concurrency"], one["runs"], one["metrics"]["output_throughput"]) for one in sweep.curve(records)] == [(1, 3, 12.0)]
