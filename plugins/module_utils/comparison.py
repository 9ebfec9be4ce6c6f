# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares measurements: with published figures, with what the fleet measured before, host with host, and before with after. Pure."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_plan, intervals

# Of an online run and of an offline one; duration says the same as throughput, and percentiles need many requests.
JUDGED = ("output_throughput", "mean_ttft_ms", "mean_tpot_ms")
HIGHER_IS_BETTER = ("request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "max_output_tokens_per_s")
# Of the same size, but what they say is not better or worse.
NEUTRAL = ("max_concurrent_requests", "rtfx")
DEFAULTS = {"confidence": 0.95, "minimum_effect": 0.05, "metrics": JUDGED}
# Prompt tokens from the prefix cache, as a share; so much apart is another measurement.
CACHE_APART = 0.2
# From so many runs on their own spread is taken, which holds what differs from one start of an engine to the next.
RUNS_FOR_SPREAD = 3


def higher_is_better(metric):
    """Whether more of a metric is better; all times are the other way round."""
    return metric in HIGHER_IS_BETTER


def usable(record):
    """Whether a record may stand in a comparison."""
    return record["counts_as"] == "kept" and record["status"] == "good" and not record["disturbed"]


def left_out(records):
    """Why records that count do not stand in comparisons, one line each."""
    lines = []
    for record in records:
        if record["counts_as"] == "kept" and not usable(record):
            why = record["problems"][0] if record["status"] != "good" else "disturbed: " + "; ".join(record["notes"])
            lines.append("%s: %s %s run %d is left out: %s" % (record["host"], record["instance"], record["workload"], record["round"], why))
    return lines


def differences(here, there, platform=True):
    """What forbids to compare two measurements, in words; [] when nothing does.

    :param dict here, there: records, or what stands for one: "protocol", and where known "model", "platform", "tokenizer_sha256" and "cache_hit_ratio".
    :param bool platform: whether another platform is a difference.
    """
    found = []
    for key in ("model", "platform") if platform else ("model",):
        if here.get(key) and there.get(key) and here[key] != there[key]:
            found.append("%s: %s here, %s there" % (key, here[key], there[key]))
    names = sorted(set(here["protocol"]) | set(there["protocol"]), key=lambda name: (name not in ("tool", "run"), name))
    for name in names:
        mine, other = here["protocol"].get(name), there["protocol"].get(name)
        if mine != other:
            found.append("%s: %s here, %s there" % (name, _said(mine), _said(other)))
    if here.get("tokenizer_sha256") and there.get("tokenizer_sha256") and here["tokenizer_sha256"] != there["tokenizer_sha256"]:
        found.append("tokenizer.json: sha256 %s here, %s there" % (here["tokenizer_sha256"][:12], there["tokenizer_sha256"][:12]))
    ratios = here.get("cache_hit_ratio"), there.get("cache_hit_ratio")
    if None not in ratios and abs(ratios[0] - ratios[1]) > CACHE_APART:
        found.append("prefix cache: %.0f %% of the prompt tokens came from it here, %.0f %% there" % (100 * ratios[0], 100 * ratios[1]))
    return found


def _said(value):
    return "not set" if value is None else value


def _by(records, *keys):
    """{values of the keys: records}, in the order of the records."""
    groups = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def values(records, metric):
    """Numbers of a metric, run by run: [[of one run on one host], …]."""
    groups = _by([record for record in records if metric in record["metrics"]], "host", "instance", "run_id")
    return [[record["metrics"][metric] for record in group] for group in groups.values()]


def samples(new, old):
    """(numbers of the new side, of the old side, remark): run means where there are runs enough to have a spread of their own, else all rounds."""
    counts = len(new), len(old)
    if min(counts) >= 2 or max(counts) >= RUNS_FOR_SPREAD:
        return [_middle(run) for run in new], [_middle(run) for run in old], None
    flat = [value for run in new for value in run], [value for run in old for value in run]
    return flat + ("the interval holds the spread within a run; from one start of the engine to the next figures may differ more"
                   if max(len(side) for side in flat) > 1 else None,)


def _middle(run):
    return sum(run) / len(run)


def compared(new, old, metric, settings, fixed=False):
    """The row of one metric: {"metric", "ratio", "low", "high", "verdict", "new", "old", "new_count", "old_count", "why"}."""
    numbers, others, remark = (samples(new, old) if not fixed else ([value for run in new for value in run], [value for run in old for value in run], None))
    row = {"metric": metric, "new": intervals.median(numbers) if numbers else None, "old": intervals.median(others) if others else None,
           "new_count": len(numbers), "old_count": len(others), "ratio": None, "low": None, "high": None, "verdict": "cannot tell", "why": remark}
    if not numbers or not others:
        row["why"] = "there is no %s %s" % (metric, "on either side" if not numbers and not others else "here" if not numbers else "there")
        return row
    if min(numbers + others) <= 0:
        row["why"] = "%s is 0 somewhere, and a ratio with 0 says nothing" % metric
        return row
    row.update(dict((key, value) for key, value in intervals.ratio(numbers, others, settings["confidence"], fixed).items() if key != "freedom"))
    row["verdict"] = intervals.verdict(row, higher_is_better(metric), settings["minimum_effect"])
    if row["low"] is None:
        row["why"] = "%s, so there is no spread to judge by; measure again with -e repeats=5" % (
            "one measurement against a published figure" if fixed else "one measurement against one")
    elif row["verdict"] == "cannot tell":
        row["why"] = "the interval is too wide for an effect of %g %%; measure again with more -e repeats=" % (100 * settings["minimum_effect"])
    return row


def _settings(given):
    settings = dict(DEFAULTS, **(given or {}))
    if not 0 < settings["confidence"] < 1 or settings["minimum_effect"] <= 0:
        raise ValueError("confidence must be between 0 and 1 and minimum_effect above 0")
    return settings


def judge(canary_records, baseline_records, settings=None):
    """Is the new side as good as the old one?

    :param canary_records, baseline_records: benchmark records; which of them count is decided here.
    :param dict settings: "confidence" (0.95, of the whole verdict: each row gets its share), "minimum_effect" (0.05), "metrics".
    :returns: {"verdict": "better_or_equal" | "worse" | "cannot_tell", "metrics": [row with "model", "workload"], "why": one line}.
    """
    settings = _settings(settings)
    new = _by([record for record in canary_records if usable(record)], "model", "workload")
    old = _by([record for record in baseline_records if usable(record)], "model", "workload")
    rows, refused = [], ["%s: no measurement that counts" % side for side, group in (("canary", new), ("baseline", old)) if not group]
    comparable = []
    for key in new:
        if key not in old:
            if old:
                refused.append("%s %s: nothing to compare with" % key)
            continue
        matching = [record for record in old[key] if not differences(new[key][0], record)]
        odd = [difference for record in new[key] for difference in differences(new[key][0], record)]
        if not matching or odd:
            refused.append("%s %s: not comparable, %s" % (key + ("; ".join(odd or differences(new[key][0], old[key][0])),)))
            continue
        for metric in settings["metrics"]:
            pair = values(new[key], metric), values(matching, metric)
            # Offline runs have no time to the first token.
            if pair[0] or pair[1]:
                comparable.append((key, metric, pair))
    share = 1.0 - (1.0 - settings["confidence"]) / max(1, len(comparable))
    for key, metric, pair in comparable:
        rows.append(dict(compared(pair[0], pair[1], metric, dict(settings, confidence=share)), model=key[0], workload=key[1]))
    return dict(_summary(rows, refused), metrics=rows)


def _summary(rows, refused):
    worse = [row for row in rows if row["verdict"] == "worse"]
    unsure = [row for row in rows if row["verdict"] == "cannot tell"]
    if worse:
        return {"verdict": "worse", "why": "; ".join(in_words(row) for row in worse)}
    if unsure or refused or not rows:
        return {"verdict": "cannot_tell", "why": (refused + ["%s: %s" % (in_words(row), row["why"]) for row in unsure] or ["nothing was measured"])[0]}
    return {"verdict": "better_or_equal", "why": "%d comparisons, none worse" % len(rows)}


def in_words(row):
    """One row in a few words."""
    head = " ".join(row[key] for key in ("model", "workload") if row.get(key)) + " " + row["metric"]
    if row["ratio"] is None:
        return head
    if row["low"] is None:
        return "%s %.3f times" % (head, row["ratio"])
    return "%s %.3f times (%.3f to %.3f)" % (head, row["ratio"], row["low"], row["high"])


def against_reference(records, references, suites, models, settings=None):
    """Rows of every instance against every table that speaks of its model and workload; no table is picked.

    :param references: of the catalogue.
    :param dict suites: {name: suite}.
    :param dict models: {name: model of the catalogue}, for the tokenizer's name.
    """
    settings, rows = _settings(settings), []
    for (host, instance, workload), group in _by([record for record in records if usable(record)], "host", "instance", "workload").items():
        for reference in references:
            tables = dict((table["name"], table) for table in reference["tables"])
            wanted = [row for row in reference["rows"] if row["model"] == group[0]["model"] and row["workload"] == workload
                      and reference["suite"] == group[0]["suite"]]
            for name, published in _by(wanted, "table").items():
                table = tables[name[0]]
                head = {"kind": "reference", "host": host, "instance": instance, "model": group[0]["model"], "platform": group[0]["platform"],
                        "workload": workload, "reference": reference["name"], "table": table["name"], "table_platform": table["platform"],
                        "confirmed": table["platform"] is not None, "note": published[0].get("note") or table.get("note"),
                        "baseline": reference["trust"] != "low" and published[0].get("floor", True)}
                rows += _published(head, group, published, reference, suites[reference["suite"]], models, settings)
    return rows


def _published(head, group, published, reference, suite, models, settings):
    side = {"model": head["model"], "platform": head["table_platform"], "protocol": reference_protocol(suite, published[0], models)}
    different = differences(group[0], side)
    rows = []
    for metric in published[0]["metrics"]:
        texts = [row["metrics"][metric] for row in published if metric in row["metrics"]]
        row = dict(head, metric=metric, there=texts, verdict="not compared", ratio=None, low=None, high=None, new=None, new_count=0)
        if different:
            row["why"] = "not comparable, " + "; ".join(different)
        elif reference["trust"] == "low":
            row["why"] = "the source is not to be trusted: %s" % reference.get("trust_reason", "no method given")
        else:
            row.update(compared(values(group, metric), [[float(text) for text in texts]], metric, settings, fixed=len(texts) == 1))
        rows.append(row)
    return rows


def reference_protocol(suite, row, models):
    """The protocol of a published row: its suite's, with what the row says otherwise."""
    kept_from = suite.get("kept_from", 1)
    found = [workload for workload in bench_plan.workloads(suite) if workload["name"] == row["workload"]]
    tokenizer = ((models.get(row["model"]) or {}).get("weights") or {}).get("directory", row["model"])
    made = bench_plan.protocol(found[0], kept_from, suite.get("runs", 1), kept_from, tokenizer) if found else {}
    made.update(row.get("protocol") or {})
    return made


def between_hosts(records, settings=None):
    """Rows of every platform, model, workload and metric over its hosts: outliers by name, or why none can be named."""
    settings, rows = _settings(settings), []
    groups = _by([record for record in records if usable(record)], "platform", "model", "workload", "protocol_id")
    for (platform, model, workload, dummy), group in groups.items():
        for metric in settings["metrics"]:
            hosts = dict(((host if sum(1 for other in group if other["host"] == host and other["instance"] != instance) == 0 else host + " " + instance),
                          intervals.median([record["metrics"][metric] for record in own if metric in record["metrics"]]))
                         for (host, instance), own in _by(group, "host", "instance").items() if any(metric in record["metrics"] for record in own))
            if len(hosts) < 2 or min(hosts.values()) <= 0:
                continue
            apart, why = intervals.outliers(hosts, settings["minimum_effect"])
            rows.append({"kind": "hosts", "platform": platform, "model": model, "workload": workload, "metric": metric, "hosts": hosts,
                         "median": intervals.median(hosts.values()), "outliers": apart, "why": why,
                         "slower": sorted(name for name, factor in apart.items() if (factor < 1) == higher_is_better(metric))})
    return rows


def against_history(records, past, settings=None):
    """Judgement of each instance against what was measured before in the same way on the same platform.

    :param past: earlier records of the fleet.
    :returns: a list of {"kind": "history", "host", "instance", **judge(...)}.
    """
    rows = []
    seen = set(record["run_id"] for record in records)
    earlier = [record for record in past if record["run_id"] not in seen]
    for (host, instance), group in _by([record for record in records if usable(record)], "host", "instance").items():
        known = set((record["model"], record["platform"], record["protocol_id"]) for record in group)
        same = [record for record in earlier if (record["model"], record["platform"], record["protocol_id"]) in known]
        # Its own past says more than that of its neighbours, once there is enough of it.
        own = [record for record in same if (record["host"], record["instance"]) == (host, instance)]
        enough = len(set(record["run_id"] for record in own)) >= RUNS_FOR_SPREAD
        rows.append(dict(judge(group, own if enough else same, settings), kind="history", host=host, instance=instance,
                         runs=len(set((record["host"], record["run_id"]) for record in (own if enough else same)))))
    return rows


def before_after(before, after, settings=None):
    """The form of an A/B measurement: {"rows": [{"model", "workload", "metric", "before", "after", "difference", "percent", …}], "verdict", "why"}."""
    metrics = [metric for metric in _metrics(before + after) if metric not in NEUTRAL]
    judged = judge(after, before, settings)
    rows = []
    for key, group in _by([record for record in after if usable(record)], "model", "workload").items():
        other = [record for record in before if usable(record) and (record["model"], record["workload"]) == key and not differences(group[0], record)]
        for metric in metrics if other else ():
            pair = values(group, metric), values(other, metric)
            if not pair[0] or not pair[1]:
                continue
            row = compared(pair[0], pair[1], metric, _settings(settings))
            difference = row["new"] - row["old"]
            rows.append(dict(row, model=key[0], workload=key[1], before=row["old"], after=row["new"], difference=difference,
                             percent=100.0 * difference / row["old"] if row["old"] else None))
    return {"kind": "before_after", "rows": rows, "verdict": judged["verdict"], "why": judged["why"]}


def _metrics(records):
    """Names of all metrics, in the order in which they appear first."""
    names = []
    for record in records:
        names += [name for name in record["metrics"] if name not in names]
    return names
