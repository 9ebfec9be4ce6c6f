# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service level objectives, and the gate that holds measurements against them. Pure."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import comparison, intervals
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

TIMES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "median", "std")
# As the figures are often called: as the results call them.
OTHER_NAMES = {"output_tok_s": "output_throughput", "total_tok_s": "total_token_throughput", "requests_per_s": "request_throughput",
               "duration_s": "duration"}
PLAIN = comparison.HIGHER_IS_BETTER + ("duration",)


class SloError(Exception):
    """Objectives that cannot be read, in one line."""


def metric_name(name):
    """The result's name of a metric: mean_ttft_ms of ttft_mean_ms, p99_itl_ms of itl_p99_ms; None when there is none."""
    name = OTHER_NAMES.get(name, name)
    if name in PLAIN:
        return name
    parts = name.split("_")
    if len(parts) == 3 and parts[2] == "ms":
        for time, statistic in ((parts[0], parts[1]), (parts[1], parts[0])):
            if time in TIMES and (statistic in STATISTICS or re.match(r"^p\d+(\.\d+)?$", statistic)):
                return "%s_%s_ms" % (statistic, time)
    return None


def read(given):
    """Objectives as they are given: {"ttft_p99_ms": 500, "output_throughput": 40, "regression": 0.05, "workloads": ["1k/1k"]}.

    :returns: {"bounds": [{"metric", "bound", "at_least"}], "regression": float or None, "workloads": [name]}.
    :raises SloError: naming what cannot be read.
    """
    if not isinstance(given, dict) or not given:
        raise SloError("slo: give a dictionary such as {ttft_p99_ms: 500, tpot_mean_ms: 30, regression: 0.05}, or the name of a YAML file with one")
    result = {"bounds": [], "regression": None, "workloads": []}
    for name, value in given.items():
        if name == "workloads":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise SloError("slo: workloads must be a list of names")
            result["workloads"] = value
            continue
        metric = metric_name(name)
        if metric is None and name != "regression":
            known = (
                ["regression", "workloads"] + list(OTHER_NAMES) + list(PLAIN) + ["%s_%s_ms" % (time, one) for time in TIMES for one in STATISTICS + ("p99",)]
            )
            raise SloError("slo: unknown objective '%s'%s" % (name, did_you_mean(name, known) or "; such are ttft_p99_ms, tpot_mean_ms, output_throughput"))
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if isinstance(value, bool) or not 0 < number < float("inf"):
            raise SloError("slo: %s must be a number above 0, not %r" % (name, value))
        if metric is None:
            result["regression"] = number
        else:
            result["bounds"].append({"metric": metric, "bound": number, "at_least": comparison.higher_is_better(metric)})
    return result


def met(metrics, bounds):
    """(whether all bounds are met, [(bound, number found or None)] of those that are not)."""
    broken = []
    for bound in bounds:
        number = metrics.get(bound["metric"])
        if number is None or (number < bound["bound"] if bound["at_least"] else number > bound["bound"]):
            broken.append((bound, number))
    return not broken, broken


def gate(records, slo, judged=()):
    """Findings of every instance and workload against the objectives; unknown blocks like fail.

    :param records: of this run, good and failed ones.
    :param dict slo: of :func:`read`.
    :param judged: what comparison.against_history or a rollout's comparison said, with "host" and "instance"; for the regression bound.
    """
    findings = []
    groups = {}
    for record in records:
        if record["counts_as"] == "kept" and (not slo["workloads"] or record["workload"] in slo["workloads"]):
            groups.setdefault((record["host"], record["instance"], record["workload"]), []).append(record)
    for (host, instance, workload), group in groups.items():
        good = [record for record in group if record["status"] == "good"]
        for bound in slo["bounds"]:
            findings.append(_held(bound, host, instance, workload, group, good))
    if slo["workloads"] and not groups:
        findings.append(finding("slo", "unknown", "no measurement of %s" % ", ".join(slo["workloads"]), "a measurement", "slo", "name workloads of the suite"))
    if slo["regression"] is not None:
        findings += _regression(slo["regression"], sorted(set((record["host"], record["instance"]) for record in records)), judged)
    return findings


def _held(bound, host, instance, workload, group, good):
    metric, sign = bound["metric"], "at least" if bound["at_least"] else "at most"
    expected, rule = "%s: %s %s %g" % (workload, metric, sign, bound["bound"]), "slo." + metric
    if not good:
        return finding(rule, "unknown", "%s: %s" % (workload, group[0]["problems"][0] if group[0]["problems"] else "not measured"), expected, "slo",
                       "see the log of the job, then run it again: what is missing is measured", host, instance)
    numbers = [record["metrics"][metric] for record in good if metric in record["metrics"]]
    if not numbers:
        match = re.match(r"^p([\d.]+)_(\w+)_ms$", metric)
        remedy = "choose one of: %s" % ", ".join(sorted(good[0]["metrics"]))
        if match:
            remedy = "measure with percentile-metrics that has %s and metric-percentiles that has %s, or choose one of: %s" % (
                match.group(2), match.group(1), ", ".join(sorted(name for name in good[0]["metrics"] if name.endswith("_%s_ms" % match.group(2)))) or "none")
        return finding(rule, "unknown", "%s: the result has no %s" % (workload, metric), expected, "slo", remedy, host, instance)
    middle = intervals.median(numbers)
    held = met({metric: middle}, [bound])[0]
    found = "%s: %s %.2f%s" % (workload, metric, middle, ", the median of %d runs" % len(numbers) if len(numbers) > 1 else "")
    return finding(rule, "pass" if held else "fail", found, expected, "slo",
                   "" if held else "fewer requests at a time, another placement, or a bound that this hardware can hold", host, instance)


def _regression(bound, instances, judged):
    verdicts = dict(((entry.get("host"), entry.get("instance")), entry) for entry in judged)
    findings = []
    for host, instance in instances:
        entry = verdicts.get((host, instance))
        expected = "no metric worse by more than %g %%" % (100 * bound)
        if entry is None or not (entry["metrics"] or entry["verdict"] != "cannot_tell"):
            found, status = "nothing to compare with: %s" % (entry["why"] if entry else "no earlier measurement"), "unknown"
        else:
            found = "%s: %s" % (entry["verdict"].replace("_", " "), entry["why"])
            status = {"better_or_equal": "pass", "worse": "fail"}.get(entry["verdict"], "unknown")
        remedy = {"pass": "", "fail": "go back with rollback.yml, or find what changed: playbooks/history.yml shows the series",
                  "unknown": "run the suite once without regression to have a baseline, and with -e repeats=5 to have a spread"}[status]
        findings.append(finding("slo.regression", status, found, expected, "slo", remedy, host, instance))
    return findings


def broken(findings):
    """{host: one line that names metric, found, bound and instance} of what does not pass."""
    lines = {}
    for item in findings:
        if item["status"] != "pass":
            lines.setdefault(item["host"], []).append("%s%s: found %s; bound %s%s" % (
                item["instance"] + ": " if item["instance"] else "", item["rule"], item["found"], item["expected"],
                "; remedy: " + item["remedy"] if item["remedy"] else ""))
    return dict((host, texts[0] + (" (and %d more)" % (len(texts) - 1) if len(texts) > 1 else "")) for host, texts in lines.items())
