# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run's report says, from the files that the run left: one verdict first, then hosts, times, gates and changes. Pure."""

from __future__ import annotations

import difflib
from xml.etree import ElementTree
from collections import Counter, OrderedDict

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate, rollout
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import redact, shorten
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.gate_table import hosts_in_short, natural

# The worst first: a host is as bad as its worst instance.
OUTCOMES = ("down", "quarantined", "unreachable", "failed", "reverted", "held", "removed", "not reached")
BAD = OUTCOMES[:5]
# Outcomes that a run wanted or that nobody asked for, in the words of the verdict.
REMEDIES = {
    "down": "playbooks/diagnose.yml --limit {host} collects the evidence; the host needs a person",
    "quarantined": "its NPUs are to blame: npu-smi info on {host}, then run the same again",
    "unreachable": "playbooks/preflight.yml --limit {host} says at which step it cannot be reached",
    "failed": "nothing was changed there; mend what is named and run the same again with --limit {host}",
    "reverted": "the release before serves; playbooks/logs.yml --limit {host} shows why the new one did not",
}
DIFF_LINES = 400
# So many findings stand in a ticket.
TICKET_ROWS = 10


def build(files, surveys=None, context=None):
    """The report of a run.

    :param dict files: content of the run's files by name without ending, each may be missing: "preflight", "plan", "run", "verify", "benchmark", "journal".
    :param surveys: {host: survey} as this run last saw them, or None.
    :param dict context: "run_id", "title", "began_epoch_s", "ended_epoch_s", "ended" (False while hosts are still to be changed), "check_mode",
        "changes" ([line] that a plan shows), "said" (why the run ended before it changed anything, or None).
    :returns: a dictionary as docs/schemas/report.json describes it.
    """
    surveys, context = surveys or {}, context or {}
    findings = _findings(files)
    made = {
        "schema": 1, "run_id": context.get("run_id"), "title": context.get("title") or "a run", "check_mode": bool(context.get("check_mode")),
        "began_epoch_s": context.get("began_epoch_s"), "ended_epoch_s": context.get("ended_epoch_s"), "ended": context.get("ended", True),
        "hosts": _hosts(files, surveys), "walk": _walk(files), "events": _events(files), "gates": _gates(findings), "waivers": _waivers(findings),
        "diff": _diff(files, context.get("changes")), "benchmark": _benchmark(files.get("benchmark")), "answers": _answers(files.get("verify"))}
    made["verdict"] = _verdict(made, files, findings, context)
    return made


# -- what was judged ---------------------------------------------------------------------------------------------------


def _findings(files):
    """All findings of all gates, each with the stage that made it."""
    found = [dict(item, stage="preflight") for item in (files.get("preflight") or {}).get("findings") or ()]
    for host, result in sorted(((files.get("run") or {}).get("hosts") or {}).items()):
        for name, proof in sorted((result.get("proven") or {}).items()):
            found += [dict(item, stage="proof", host=host, instance=item.get("instance") or name) for item in (proof or {}).get("findings") or ()]
    if not files.get("run"):
        for event in files.get("journal") or ():
            found += [dict(item, stage="proof", host=event.get("host")) for item in (event.get("evidence") or {}).get("findings") or ()]
    for entry in (files.get("verify") or {}).get("instances") or ():
        found += [dict(item, stage="verify") for item in entry["findings"]]
    found += [dict(item, stage="benchmark") for item in (files.get("benchmark") or {}).get("gate") or ()]
    return found


def _gates(findings):
    """One entry for each rule, the failed ones first; equal findings of many hosts stand together."""
    rules = OrderedDict()
    for item in findings:
        rules.setdefault((item["stage"], item["rule"]), []).append(item)
    gates = []
    for (stage, rule), own in rules.items():
        groups = OrderedDict()
        for item in own:
            key = tuple(str(item.get(name) or "") for name in ("status", "found", "expected", "source", "remedy", "reason"))
            groups.setdefault(key, []).append(item)
        counts = Counter(item["status"] for item in own)
        status = next(one for one in ("fail", "unknown", "waived", "pass") if counts[one])
        known = gate.RULES.get(rule)
        gates.append({"stage": stage, "rule": rule, "title": known.title if known else own[0].get("expected") or rule, "status": status,
                      "counts": dict(counts), "groups": [_group(key, items) for key, items in sorted(groups.items(), key=lambda each: _rank(each[0][0]))]})
    gates.sort(key=lambda entry: _rank(entry["status"]))
    return gates


def _rank(status):
    return ("fail", "unknown", "waived", "pass").index(status)


def _group(key, items):
    hosts = sorted(set(str(item["host"]) for item in items if item.get("host")), key=natural)
    return dict(zip(("status", "found", "expected", "source", "remedy", "reason"), key),
                hosts=hosts, where=hosts_in_short(hosts), instances=sorted(set(item["instance"] for item in items if item.get("instance"))))


def _waivers(findings):
    groups = OrderedDict()
    for item in findings:
        if item["status"] == "waived":
            groups.setdefault((item["rule"], item.get("reason") or ""), []).append(item)
    return [{"rule": rule, "reason": reason, "where": hosts_in_short(str(item["host"]) for item in own), "found": shorten(own[0]["found"], 300)}
            for (rule, reason), own in groups.items()]


# -- the fleet ---------------------------------------------------------------------------------------------------------


def _hosts(files, surveys):
    plan, verdict = files.get("plan") or {"hosts": {}}, files.get("preflight") or {"hosts": {}, "facts": {}}
    rows, ended = {}, rollout.replay(files.get("journal") or [])["hosts"]
    for row in (files.get("run") or {}).get("instances") or ():
        rows.setdefault(row["host"], {})[row["instance"]] = row
    measured = (files.get("benchmark") or {}).get("hosts") or {}
    asked = (files.get("verify") or {}).get("hosts") or {}
    names = set(plan["hosts"]) | set(rows) | set(verdict["hosts"]) | set(ended) | set(measured) | set(asked)
    return [_host(name, plan["hosts"].get(name) or {}, surveys.get(name) or {}, verdict, rows.get(name) or {}, ended.get(name) or {}, files)
            for name in sorted(names, key=natural)]


def _host(name, entry, survey, verdict, rows, ended, files):
    instances = _instances(name, entry, survey, rows, ended, files)
    outcome = ended.get("outcome")
    worst = [word for word in OUTCOMES if word == outcome or any(one["outcome"] == word for one in instances)]
    reason = (((files.get("verify") or {}).get("hosts") or {}).get(name) or {}).get("reason") or (
        ((files.get("benchmark") or {}).get("hosts") or {}).get(name) or {}).get("reason")
    facts = ((verdict.get("facts") or {}).get(name) or [None] * 6)[:6]
    gate_status = verdict["hosts"].get(name)
    broken = any(item.get("host") == name and item["status"] in ("fail", "unknown") for item in (files.get("benchmark") or {}).get("gate") or ())
    health = "bad" if broken or (worst and worst[0] in BAD) or gate_status == "fail" or survey.get("unreachable") or reason or any(
        one["outcome"] == "does not answer" for one in instances) else "unsure" if gate_status == "unknown" or worst else "good"
    return {"name": name, "health": health, "gate": gate_status, "outcome": worst[0] if worst else outcome, "platform": entry.get("platform") or facts[0],
            "driver": facts[2], "firmware": facts[3], "engine": facts[4], "reason": survey.get("error") if survey.get("unreachable") else reason,
            "chips": _chips(survey, instances), "instances": instances}


def _instances(name, entry, survey, rows, ended, files):
    found = OrderedDict()
    # A way back has no plan on file; its rows say the same.
    for planned in entry.get("instances") or [dict(row, name=instance) for instance, row in rows.items()]:
        row = rows.get(planned["name"]) or {}
        found[planned["name"]] = {
            "name": planned["name"], "model": planned.get("model"), "devices": list(planned.get("devices") or ()), "port": planned.get("port"),
            "outcome": row.get("outcome") or ended.get("outcome"), "reason": row.get("reason") or ended.get("message"), "ready_s": row.get("ready_s")}
    for asked in (files.get("verify") or {}).get("instances") or ():
        if asked["host"] == name:
            manifest = ((survey.get("instances") or {}).get(asked["instance"]) or {}).get("manifest") or {}
            bad = next((item for item in asked["findings"] if item["status"] != "pass"), None)
            found[asked["instance"]] = {
                "name": asked["instance"], "model": asked["model"], "devices": list(manifest.get("devices") or ()), "port": manifest.get("port"),
                "outcome": "answers" if asked["ready"] else "does not answer", "ready_s": asked["elapsed_s"],
                "reason": None if asked["ready"] or not bad else "%s: %s; expected %s" % (bad["rule"], bad["found"], bad["expected"])}
    for record in (files.get("benchmark") or {}).get("records") or ():
        if record["host"] == name and record["instance"] not in found:
            manifest = ((survey.get("instances") or {}).get(record["instance"]) or {}).get("manifest") or {}
            found[record["instance"]] = {"name": record["instance"], "model": record["model"], "devices": list(manifest.get("devices") or ()),
                                         "port": manifest.get("port"), "outcome": "measured", "reason": None, "ready_s": None}
    return list(found.values())


def _chips(survey, instances):
    used = dict((device, one["name"]) for one in instances for device in one["devices"])
    return [{"index": chip.get("index"), "name": chip.get("name"), "health": chip.get("health"), "ok": chip.get("health") == "OK",
             "instance": used.get(chip.get("device")), "hbm_used_mib": chip.get("hbm_used_mib"), "hbm_total_mib": chip.get("hbm_total_mib")}
            for chip in survey.get("chips") or () if isinstance(chip, dict)]


# -- the walk ----------------------------------------------------------------------------------------------------------


def _walk(files):
    """Every step that has a time, in the order of its beginning."""
    steps = []
    begun = {}
    for event in files.get("journal") or ():
        if event["event"] == "step.begin":
            begun[event["host"], event["step"]] = event
        if event["event"] != "step.end":
            continue
        began = begun.get((event["host"], event["step"])) or {}
        elapsed, inner = event.get("elapsed_s"), (event.get("evidence") or {}).get("began")
        steps.append({"host": event["host"], "step": event["step"], "ok": event.get("ok"), "elapsed_s": elapsed, "expected_s": began.get("expected_s"),
                      "began_epoch_s": inner or began.get("time") or event["time"] - (elapsed or 0), "message": event.get("message") or ""})
    if not files.get("journal"):
        for host, result in ((files.get("run") or {}).get("hosts") or {}).items():
            steps += [{"host": host, "step": step["step"], "ok": step["ok"], "elapsed_s": step["elapsed_s"], "expected_s": None,
                       "began_epoch_s": step["time"], "message": step.get("message") or ""} for step in result.get("steps") or ()]
    return sorted(steps, key=lambda step: (step["began_epoch_s"], natural(step["host"])))


def _events(files):
    words = {"rollout.begin": "rollout", "batch.begin": "batch begins", "batch.end": "batch ended", "hold": "held", "leave": "left out",
             "rollout.end": "rollout ended"}
    return [{"epoch_s": event["time"], "what": words.get(event["event"], event["event"]), "batch": None if event.get("batch") is None else event["batch"] + 1,
             "ok": False if event["event"] == "hold" else event.get("ok"), "message": event.get("message") or ""}
            for event in files.get("journal") or () if not event["event"].startswith("step.")]


# -- what changed ------------------------------------------------------------------------------------------------------


def _diff(files, shown):
    """Unified diffs; hosts that changed alike stand together."""
    groups = OrderedDict()
    for host, result in ((files.get("run") or {}).get("hosts") or {}).items():
        for part in result.get("diff") or ():
            if isinstance(part, dict) and isinstance(part.get("before"), str) and isinstance(part.get("after"), str):
                title = str(part.get("after_header") or part.get("before_header") or "a file")
                lines = difflib.unified_diff(part["before"].splitlines(), part["after"].splitlines(), n=1, lineterm="")
                groups.setdefault((title, tuple(redact(line) for line in list(lines)[2:DIFF_LINES])), []).append(host)
    made = [{"title": title, "where": hosts_in_short(hosts), "lines": list(lines)} for (title, lines), hosts in groups.items() if lines]
    if shown:
        made.append({"title": "what the plan would change", "where": "", "lines": [redact(line) for line in shown[:DIFF_LINES]]})
    return made


# -- benchmark and answers ---------------------------------------------------------------------------------------------


def _benchmark(content):
    """What the benchmark's part of the page shows: charts of the records and tables of comparisons."""
    if not content:
        return None
    return {"suite": content["suite"], "title": content["title"], "verdict": content["verdict"], "notes": content["notes"],
            "left_out": content["left_out"], "charts": _bars(content) + _curves(content),
            "reference": [{key: row.get(key) for key in ("host", "instance", "model", "workload", "metric", "reference", "confirmed", "note", "there",
                                                         "new", "ratio", "low", "high", "verdict", "why")} for row in content["reference"]],
            "history": [{key: row.get(key) for key in ("host", "instance", "runs", "verdict", "why")} for row in content["history"]],
            "outliers": [{key: row.get(key) for key in ("model", "workload", "metric", "outliers", "why")} for row in content["outliers"]
                         if row.get("outliers")]}


def _bars(content):
    """Throughput of each workload: a bar for each instance now, a point for what it did before, and a line for what the reference says."""
    past = dict((("%s %s" % (one["host"], one["instance"]), row["model"], row["workload"]), row["old"]) for one in content["history"]
                for row in one.get("metrics") or () if row["metric"] == "output_throughput")
    groups = OrderedDict()
    for record in content["records"]:
        if record["counts_as"] == "kept" and record["status"] == "good" and record["metrics"].get("output_throughput") is not None:
            groups.setdefault((record["model"], record["workload"]), OrderedDict()).setdefault(
                "%s %s" % (record["host"], record["instance"]), []).append(record["metrics"]["output_throughput"])
    charts = []
    for (model, workload), own in groups.items():
        there = [row for row in content["reference"] if (row["model"], row["workload"], row["metric"]) == (model, workload, "output_throughput")]
        lines = OrderedDict((row["reference"], float(row["there"][0])) for row in there if row.get("there") and _number(row["there"][0]))
        charts.append({"kind": "instances", "title": "%s, %s" % (model, workload), "unit": "tokens/s", "x": list(own), "y": [_median(v) for v in own.values()],
                       "before": [past.get((name, model, workload)) for name in own],
                       "lines": [{"label": label, "value": value} for label, value in lines.items()], "note": None})
    return charts


def _curves(content):
    charts = []
    for one in content["sweeps"]:
        points = [point for point in one["points"] if (point.get("metrics") or {}).get("output_throughput") is not None]
        charts.append({"kind": "sweep", "title": "%s on %s: throughput by concurrency" % (one["instance"], one["host"]), "unit": "tokens/s",
                       "x": [point["concurrency"] for point in points], "y": [point["metrics"]["output_throughput"] for point in points], "before": [],
                       "lines": [], "note": one["knee"].get("why")})
    return charts


def _number(text):
    try:
        return float(text) or True
    except (TypeError, ValueError):
        return False


def _median(values):
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2.0


def _answers(content):
    """What instances said, for whoever wants to read it."""
    return [{"host": entry["host"], "instance": entry["instance"], "check": answer["check"], "asked": shorten(answer["asked"], 200),
             "text": shorten(redact(answer["text"] or answer["reasoning"] or answer["error"] or ""), 400), "ok": not answer["error"]}
            for entry in (content or {}).get("instances") or () for answer in entry["answers"]]


# -- the one line ------------------------------------------------------------------------------------------------------


def _verdict(made, files, findings, context):
    """{"status": "good" | "bad" | "unsure", "what", "where", "remedy"}: what happened, where, and what to do."""
    hosts = made["hosts"]
    for judge in (_refused, _changed_badly, _rolled, _not_ready, _verified, _measured):
        found = judge(hosts, files, findings, context)
        if found:
            return dict(zip(("status", "what", "where", "remedy"), found))
    if not made["ended"]:
        return {"status": "unsure", "what": "the hosts are judged, and the change is under way or was cut off", "where": "",
                "remedy": "wait for it; when its ansible-playbook is gone, run the same again: what is done is not done twice"}
    if files.get("verify") or files.get("benchmark"):
        count = sum(len(host["instances"]) for host in hosts)
        return {"status": "good", "what": "%d instances on %d hosts %s" % (
            count, len(hosts), "answer as they should" if files.get("verify") else "were measured and keep what was asked of them"), "where": "", "remedy": ""}
    outcomes = Counter(one["outcome"] for host in hosts for one in host["instances"] if one["outcome"])
    if not outcomes:
        return {"status": "good", "what": "all %d hosts are ready" % len(hosts), "where": "", "remedy": ""}
    words = ", ".join("%d %s" % (count, outcome) for outcome, count in outcomes.most_common())
    what = "%d instances on %d hosts: %s" % (sum(outcomes.values()), sum(1 for host in hosts if host["instances"]), words)
    unready = [host["name"] for host in hosts if host["gate"] in ("fail", "unknown")]
    return {"status": "unsure" if outcomes["not reached"] or unready else "good", "what": what, "where": "", "remedy": ""}


def _refused(hosts, files, findings, context):
    said = context.get("said")
    failed = [host["name"] for host in hosts if host["gate"] in ("fail", "unknown")]
    return ("bad", said, "", "nothing was changed") if said and not failed else None


def _changed_badly(hosts, files, findings, context):
    bad = [host for host in hosts if host["outcome"] in BAD]
    if not bad:
        return None
    bad.sort(key=lambda host: OUTCOMES.index(host["outcome"]))
    first = bad[0]
    one = next((each for each in first["instances"] if each["outcome"] in BAD), None) or {}
    why = shorten((one.get("reason") or first["reason"] or "no reason was given").partition("; remedy: ")[0], 300)
    if why.startswith(first["name"] + ": "):
        why = why[len(first["name"]) + 2:]
    words = ", ".join("%d %s" % (count, outcome) for outcome, count in Counter(host["outcome"] for host in bad).items())
    remedy = next((item["remedy"] for item in findings if item.get("host") == first["name"] and item["status"] in ("fail", "unknown") and item["remedy"]), None)
    general = REMEDIES[first["outcome"]].format(host=first["name"])
    state = rollout.replay(files.get("journal") or [])
    rolled = "; the rollout ended %s" % state["outcome"] if state["outcome"] else ""
    return ("bad", "%d of %d hosts went wrong (%s): %s%s" % (len(bad), len(hosts), words, why, rolled), hosts_in_short(host["name"] for host in bad),
            "%s; %s" % (remedy, general) if remedy else general)


def _rolled(hosts, files, findings, context):
    events = files.get("journal") or []
    state = rollout.replay(events)
    if not events or state["outcome"] in ("done", None):
        return None
    return (
        "unsure" if state["outcome"] == "held" else "bad",
        "the rollout ended %s: %s" % (state["outcome"], shorten(state["held"] or events[-1]["message"], 300)),
        "",
        "mend what is named, then playbooks/resume.yml goes on; playbooks/rollback.yml -e rollout=%s goes back" % events[0]["run"],
    )


def _not_ready(hosts, files, findings, context):
    failed = [host for host in hosts if host["gate"] in ("fail", "unknown")]
    if not failed:
        return None
    own = [item for item in findings if item["stage"] == "preflight" and item["status"] in ("fail", "unknown")]
    most = Counter(item["rule"] for item in own).most_common(1)
    first = next((item for item in own if most and item["rule"] == most[0][0]), {"rule": "gate", "found": "not judged", "expected": "", "remedy": ""})
    more = len(set(item["rule"] for item in own)) - 1
    return (
        "bad",
        "%d of %d hosts are not ready: %s: %s; expected %s%s"
        % (
            len(failed),
            len(hosts),
            first["rule"],
            shorten(first["found"], 200),
            shorten(first["expected"], 120),
            " (and %d more rules)" % more if more > 0 else "",
        ),
        hosts_in_short(host["name"] for host in failed),
        first["remedy"],
    )


def _verified(hosts, files, findings, context):
    content = files.get("verify")
    if not content or content["verdict"] == "pass":
        return None
    if not content["instances"]:
        silent = [host for host in hosts if host["reason"]]
        return ("bad", "no instance was asked: %s" % (silent[0]["reason"] if silent else "nothing of ours is installed"),
                hosts_in_short(host["name"] for host in silent), "deploy first: playbooks/deploy.yml" if not silent else "playbooks/preflight.yml says why")
    bad = [host for host in hosts if host["health"] == "bad"]
    item = next((each for each in findings if each["stage"] == "verify" and each["status"] in ("fail", "unknown")), None)
    what = (
        "%s: %s; expected %s" % (item["rule"], shorten(item["found"], 200), shorten(item["expected"], 120))
        if item
        else bad[0]["reason"]
        if bad
        else "see below"
    )
    return ("bad", "%d of %d hosts do not answer as they should: %s" % (len(bad), len(hosts), what), hosts_in_short(host["name"] for host in bad),
            item["remedy"] if item else "playbooks/preflight.yml says why")


def _measured(hosts, files, findings, context):
    content = files.get("benchmark")
    if not content or content["verdict"] == "pass":
        return None
    missing = [(name, entry["reason"]) for name, entry in sorted(content["hosts"].items()) if entry["state"] != "measured"]
    if missing:
        return ("bad", "%d of %d hosts were not measured: %s" % (len(missing), len(content["hosts"]), shorten(missing[0][1], 300)),
                hosts_in_short(name for name, dummy in missing), "mend what is named and run the same again: what is measured is not measured twice")
    bad = [item for item in findings if item["stage"] == "benchmark" and item["status"] in ("fail", "unknown")]
    first = bad[0] if bad else {"rule": "slo", "found": "broken", "expected": "", "remedy": ""}
    return ("bad", "objectives are not kept: %s: %s; expected %s" % (first["rule"], first["found"], first["expected"]),
            hosts_in_short(str(item["host"]) for item in bad), first["remedy"])


# -- other shapes ------------------------------------------------------------------------------------------------------


def line(verdict):
    """The verdict as one line."""
    return "%s%s%s" % ("%s: " % verdict["where"] if verdict["where"] else "", verdict["what"], " -- " + verdict["remedy"] if verdict["remedy"] else "")


def markdown(made):
    """The report for a ticket: the verdict, what is open, what took long."""
    mark = {"good": "OK", "bad": "FAILED", "unsure": "LOOK"}[made["verdict"]["status"]]
    lines = ["## %s: %s %s" % (mark, _cell(made["title"]), made["run_id"] or ""), "", _cell(made["verdict"]["what"]), ""]
    if made["verdict"]["where"]:
        lines += ["- where: %s" % _cell(made["verdict"]["where"])]
    if made["verdict"]["remedy"]:
        lines += ["- what to do: %s" % _cell(made["verdict"]["remedy"])]
    rows = [(entry["rule"], group) for entry in made["gates"] for group in entry["groups"] if group["status"] in ("fail", "unknown")]
    if rows:
        lines += ["", "| rule | where | found | expected | remedy |", "|---|---|---|---|---|"]
        lines += ["| %s |" % " | ".join(_cell(shorten(text, 160)) for text in (rule, group["where"], group["found"], group["expected"], group["remedy"]))
                  for rule, group in rows[:TICKET_ROWS]]
    if len(rows) > TICKET_ROWS:
        lines += ["", "and %d more in index.html" % (len(rows) - TICKET_ROWS)]
    for waiver in made["waivers"][:TICKET_ROWS]:
        lines += ["", "waived: %s on %s: %s" % tuple(_cell(waiver[key]) for key in ("rule", "where", "reason"))]
    count = Counter(host["health"] for host in made["hosts"])
    lines += ["", "%d hosts: %d good, %d bad, %d unsure" % (len(made["hosts"]), count["good"], count["bad"], count["unsure"])]
    return "\n".join(lines) + "\n"


def _cell(text):
    """A text that stays one cell and stays a text."""
    text = " ".join(str(text).split())
    for character in "\\|<`":
        text = text.replace(character, "\\" + character)
    return text


def junit(made):
    """JUnit's XML: a suite for each stage, a case for each rule of it and each group of hosts that are alike, and one for each instance."""
    root = ElementTree.Element("testsuites", name=_plain(made["title"]))
    cases = OrderedDict()
    for entry in made["gates"]:
        for group in entry["groups"]:
            cases.setdefault(entry["stage"], []).append((entry["rule"], group["where"] or "fleet", group["status"], group))
    for host in made["hosts"]:
        for one in host["instances"]:
            status = "fail" if one["outcome"] in BAD + ("does not answer",) else "pass" if one["outcome"] else None
            if status:
                cases.setdefault("instances", []).append((one["name"], host["name"], status, {
                    "found": one["reason"] or one["outcome"], "expected": "deployed", "remedy": ""}))
    if made["verdict"]["status"] == "bad" and not any(case[2] in ("fail", "unknown") for own in cases.values() for case in own):
        cases.setdefault("run", []).append(
            ("verdict", "fleet", "fail", {"found": made["verdict"]["what"], "expected": "", "remedy": made["verdict"]["remedy"]})
        )
    for stage, own in cases.items():
        suite = ElementTree.SubElement(root, "testsuite", name=stage, tests=str(len(own)), errors="0",
                                       failures=str(sum(1 for case in own if case[2] in ("fail", "unknown"))),
                                       skipped=str(sum(1 for case in own if case[2] == "waived")))
        for name, where, status, group in own:
            case = ElementTree.SubElement(suite, "testcase", classname=_plain(where), name=_plain(name))
            if status in ("fail", "unknown"):
                ElementTree.SubElement(case, "failure", type=status, message=_plain("%s; expected %s" % (group["found"], group["expected"]))).text = _plain(
                    group["remedy"])
            elif status == "waived":
                ElementTree.SubElement(case, "skipped", message=_plain("waived: %s" % group["reason"]))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _plain(text):
    """Without what XML cannot carry."""
    return "".join(c for c in str(text) if c in "\t\n" or 32 <= ord(c) < 0xd800 or 0xe000 <= ord(c) < 0xfffe or ord(c) > 0xffff)
