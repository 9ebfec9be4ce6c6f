# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements for human eyes: what will run, what came out, and what it compares to. Pure."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.plan_text import table

SHOWN = (("output_throughput", "OUT TOK/S"), ("total_token_throughput", "ALL TOK/S"), ("mean_ttft_ms", "TTFT MS"), ("mean_tpot_ms", "TPOT MS"))


def _number(value):
    return "-" if value is None else "%.2f" % value


def _ratio(row):
    if row.get("ratio") is None:
        return "-"
    if row["low"] is None:
        return "%.3f" % row["ratio"]
    return "%.3f (%.3f to %.3f)" % (row["ratio"], row["low"], row["high"])


def plan_lines(suite, steps):
    """What will be run: {host: steps} as a table with the suite's notes below."""
    rows = [("HOST", "INSTANCE", "WORKLOAD", "TOOL", "RUNS", "COUNTED")]
    for host in steps:
        for step in steps[host]:
            if step["run"] == 1:
                counted = sum(1 for other in steps[host] if other["chain"] == step["chain"] and other["kept"])
                rows.append((host, step["instance"], step["workload"], step["protocol"]["tool"], str(step["runs"]), str(counted)))
    return ["", suite["title"]] + table(rows) + ["note: " + text for text in suite.get("notes") or ()] + [""]


def record_lines(records):
    """Every run as a row."""
    rows = [("HOST", "INSTANCE", "WORKLOAD", "RUN", "COUNTS") + tuple(title for dummy, title in SHOWN) + ("CACHED", "")]
    for record in records:
        cached = record["cache_hit_ratio"]
        said = record["problems"][0] if record["problems"] else "; ".join(record["notes"])
        rows.append((record["host"], record["instance"], record["workload"], "%d/%d" % (record["round"], record["rounds"]),
                     "no" if record["counts_as"] != "kept" or record["status"] != "good" or record["disturbed"] else "yes")
                    + tuple(_number(record["metrics"].get(metric)) for metric, dummy in SHOWN)
                    + ("-" if cached is None else "%.0f %%" % (100 * cached), said))
    return [""] + table(rows) if records else []


def reference_lines(rows):
    """Published figures beside ours, one block for each reference, one column for each of its tables."""
    lines = []
    for reference in _unique(row["reference"] for row in rows):
        own = [row for row in rows if row["reference"] == reference]
        tables = _unique(row["table"] for row in own)
        block = [("HOST", "INSTANCE", "WORKLOAD", "METRIC", "HERE") + tuple(word for name in tables for word in (name.upper(), "RATIO", "VERDICT"))]
        notes = []
        for key in _unique((row["host"], row["instance"], row["workload"], row["metric"]) for row in own):
            cells = dict((row["table"], row) for row in own if (row["host"], row["instance"], row["workload"], row["metric"]) == key)
            here = next((row["new"] for row in cells.values() if row["new"] is not None), None)
            block.append(key + (_number(here),) + tuple(
                word for name in tables for word in ((", ".join(cells[name]["there"]), _ratio(cells[name]), cells[name]["verdict"]) if name in cells
                                                     else ("-", "-", "-"))))
            notes += ["%s: %s" % (row["verdict"], row["why"]) for row in cells.values() if row["verdict"] in ("not compared", "cannot tell")]
            notes += ["%s %s in %s: %s" % (row["model"], row["workload"], row["table"], row["note"]) for row in cells.values() if not row["baseline"]]
        open_ones = [name for name in tables if not any(row["confirmed"] for row in own if row["table"] == name)]
        if open_ones:
            notes.insert(0, "the source does not say on which hardware %s %s measured: all are shown, none is picked" % (
                " and ".join(open_ones), "were" if len(open_ones) > 1 else "was"))
        lines += ["", "reference %s" % reference] + table(block) + ["note: " + text for text in _unique(notes)]
    return lines


def _unique(items):
    return list(dict.fromkeys(items))


def history_lines(judgements):
    """What each instance is against its past."""
    return ["%s: %s: against %d earlier run(s): %s, %s" % (
        row["host"], row["instance"], row["runs"], row["verdict"].replace("_", " "), row["why"]) for row in judgements]


def outlier_lines(rows):
    """Hosts that stand apart; one line when there are too few to tell."""
    lines, few = [], []
    for row in rows:
        what = "%s %s %s on %s" % (row["model"], row["workload"], row["metric"], row["platform"] or "an unknown platform")
        for name, factor in sorted(row["outliers"].items()):
            lines.append("%s: %s is %.3f times the median of %d hosts%s" % (
                name, what, factor, len(row["hosts"]), ", slower" if name in row["slower"] else ", faster"))
        few += [row["why"]] if row["why"] else []
    return lines + ["host against host: %s" % text for text in _unique(few)]


def before_after_lines(made):
    """Before, after, difference."""
    if not made:
        return []
    rows = [("MODEL", "WORKLOAD", "METRIC", "BEFORE", "AFTER", "DIFFERENCE", "%", "RATIO", "VERDICT")]
    rows += [(row["model"], row["workload"], row["metric"], _number(row["before"]), _number(row["after"]), "%+.2f" % row["difference"],
              "-" if row["percent"] is None else "%+.2f" % row["percent"], _ratio(row), row["verdict"]) for row in made["rows"]]
    return [""] + (table(rows) if len(rows) > 1 else []) + ["after against before: %s, %s" % (made["verdict"].replace("_", " "), made["why"])]


def sweep_lines(sweeps):
    """The curve of each instance, its knee, and the largest number of requests that keeps the objectives."""
    lines = []
    for sweep in sweeps:
        rows = [("AT A TIME", "OUT TOK/S", "TTFT MS", "P99 TTFT MS", "TPOT MS", "WHOLE MS")]
        rows += [(str(point["concurrency"]),) + tuple(_number(point["metrics"].get(name)) for name in (
            "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_e2el_ms")) for point in sweep["points"]]
        lines += ["", "%s: %s" % (sweep["host"], sweep["instance"])] + table(rows)
        for what, found in (("knee", sweep["knee"]), ("largest that keeps the objectives", sweep["largest"])):
            lines.append("%s: %s (%s)" % (what, found["concurrency"] if found["concurrency"] is not None else "none", found["why"]))
    return lines


def gate_lines(findings):
    """What does not pass."""
    return ["%s: %s: %s %s: %s; bound %s" % (item["host"], item["instance"], item["rule"], item["status"], item["found"], item["expected"])
            for item in findings if item["status"] != "pass"]


def pair_lines(verdicts):
    """A rollout's first hosts beside their neighbours."""
    rows = [("CANARY", "NEIGHBOUR", "MODEL", "WORKLOAD", "METRIC", "CANARY", "NEIGHBOUR", "RATIO", "VERDICT")]
    rows += [(verdict["canary"], verdict["neighbour"], row["model"], row["workload"], row["metric"], _number(row["new"]), _number(row["old"]),
              _ratio(row), row["verdict"]) for verdict in verdicts for row in verdict["metrics"]]
    return [""] + table(rows) + [""] if len(rows) > 1 else []


def series_lines(series, metric):
    """One metric over time."""
    rows = [("TIME", "HOST", "INSTANCE", "MODEL", "WORKLOAD", "RELEASE", "LABEL", metric.upper())]
    rows += [(when, record["host"], record["instance"], record["model"] or "-", record["workload"], record["release"] or "-", record["label"] or "-",
              _number(value)) for when, record, value in series]
    return [""] + table(rows) + [""]


def expected_lines(rows):
    """What steps took: [(step, model, platform, expected)]."""
    cells = [("STEP", "MODEL", "PLATFORM", "MEDIAN S", "SPREAD S", "COUNT")]
    cells += [(step, model or "-", platform or "-", _number(found["median_s"]), _number(found["spread_s"]), str(found["count"]))
              for step, model, platform, found in rows]
    return [""] + table(cells) + [""]
