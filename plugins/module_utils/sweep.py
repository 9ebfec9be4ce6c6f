# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput against latency over the number of requests at a time: the curve, its knee, and the largest number that keeps objectives. Pure.

The knee is where power, throughput divided by response time, is largest (Kleinrock 1979). Below it more requests at a time bring about as much
throughput as they ask; above it they mostly wait. For a server that scales up to a point and not beyond, power is largest exactly there.
"""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import comparison, intervals, slo

# Powers that near to each other are the same; of those the smallest number of requests counts.
ALIKE = 0.02


def curve(records):
    """Points of one instance in the order of their concurrency: [{"concurrency", "runs", "metrics": {name: median of the runs}}]."""
    groups = {}
    for record in records:
        number = record["protocol"].get("max-concurrency")
        if comparison.usable(record) and number:
            groups.setdefault(number, []).append(record["metrics"])
    points = []
    for number in sorted(groups):
        names = sorted(set(name for metrics in groups[number] for name in metrics))
        points.append({"concurrency": number, "runs": len(groups[number]), "metrics": dict(
            (name, intervals.median([metrics[name] for metrics in groups[number] if name in metrics])) for name in names)})
    return points


def response_ms(metrics):
    """Time of a whole request, or of a token where the results have no such time."""
    return metrics.get("mean_e2el_ms") or metrics.get("mean_tpot_ms")


def knee(points):
    """{"concurrency": the knee or None, "why": what it rests on or why there is none}."""
    powers = [(point["concurrency"], point["metrics"]["output_throughput"] / response_ms(point["metrics"]))
              for point in points if point["metrics"].get("output_throughput") and response_ms(point["metrics"])]
    if len(powers) < 3:
        return {"concurrency": None, "why": "%d points are too few for a knee, 3 are needed" % len(powers)}
    best = max(power for dummy, power in powers)
    at = next(number for number, power in powers if power >= best * (1.0 - ALIKE))
    if at == powers[-1][0]:
        return {"concurrency": None, "why": "throughput still grows with %d requests at a time; measure higher ones with -e concurrency=" % at}
    why = "throughput / response time is largest with %d requests at a time" % at
    return {"concurrency": at, "why": why + (", the smallest number measured: the knee may lie below it" if at == powers[0][0] else "")}


def largest(points, bounds):
    """The largest concurrency that keeps all objectives, with every smaller one that was measured: {"concurrency", "why"}."""
    if not bounds:
        return {"concurrency": None, "why": "no objective was given; such as -e '{\"slo\": {\"ttft_p99_ms\": 500}}'"}
    held = None
    for point in points:
        fine, broken = slo.met(point["metrics"], bounds)
        if not fine:
            bound, number = broken[0]
            said = "%s is %s with %d requests at a time, bound %g" % (
                bound["metric"], "not in the results" if number is None else "%.2f" % number, point["concurrency"], bound["bound"])
            return {"concurrency": held, "why": said}
        held = point["concurrency"]
    return {"concurrency": held, "why": "all that were measured keep it; the largest may be higher" if points else "nothing was measured"}
