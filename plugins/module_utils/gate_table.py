# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's result as plain text; a hundred hosts fit one screen because equal lines are folded."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict

# Up to so many hosts each one has its own row.
FULL_TABLE_HOSTS = 20
VALUES_SHOWN = 3
HEADINGS = ("host", "verdict", "platform", "chips", "driver", "firmware", "engine", "instances")


def natural(text):
    """A sort key under which a2-10 comes after a2-9."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def hosts_in_short(names):
    """a2-1, a2-2, a2-3, b-07 -> "a2-[1-3], b-07"."""
    groups = OrderedDict()
    for name in sorted(set(names), key=natural):
        match = re.match(r"^(.*?)(\d+)(\D*)$", name, re.DOTALL)
        groups.setdefault((match.group(1), match.group(3)) if match else (name, None), []).append(match.group(2) if match else name)
    return ", ".join(_ranges(head, tail, values) for (head, tail), values in groups.items())


def _ranges(head, tail, values):
    if tail is None:
        return head
    if len(values) == 1:
        return head + values[0] + tail
    runs = []
    for value in values:
        # n9 is followed by n10, n09 too, but n9 is not by n010.
        if runs and value in (str(int(runs[-1][1]) + 1), str(int(runs[-1][1]) + 1).zfill(len(runs[-1][1]))):
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return "%s[%s]%s" % (head, ",".join(first if first == last else "%s-%s" % (first, last) for first, last in runs), tail)


def facts(context):
    """What the table shows of a host, in the order of HEADINGS from the platform on."""
    survey, plan = context.get("survey") or {}, context.get("host_plan") or {}

    def part(key):
        return survey.get(key) if isinstance(survey.get(key), dict) else {}

    chips = survey.get("chips") if isinstance(survey.get("chips"), list) else []
    kinds = Counter("%s%s" % (chip.get("name"), "" if chip.get("health") == "OK" else " %s" % chip.get("health"))
                    for chip in chips if isinstance(chip, dict))
    engine = part("engine")
    return [
        plan.get("platform") or "-",
        ", ".join("%d x %s" % (count, kind) for kind, count in sorted(kinds.items())) or "-",
        part("driver").get("version") or "-",
        part("firmware").get("version") or "-",
        ("%s %s" % (engine.get("name"), engine.get("version"))) if engine.get("name") else "-",
        str(len(plan.get("instances") or [])),
    ]


def render(result, headings=HEADINGS):
    """:returns: the text, without a line end."""
    lines = _host_rows(result, headings)
    open_findings = [f for f in result["findings"] if f["status"] in ("fail", "unknown")]
    for status, heading in (("fail", "failed"), ("unknown", "not known, which blocks as well")):
        blocks = _fold([f for f in open_findings if f["status"] == status])
        if blocks:
            lines += ["", "%s:" % heading] + blocks
    waived = [f for f in result["findings"] if f["status"] == "waived"]
    if waived:
        lines += ["", "waived:"]
        groups = OrderedDict()
        for one in waived:
            groups.setdefault((one["rule"], one["reason"]), []).append(one)
        for (rule, reason), group in groups.items():
            lines += ["  %s (%s): %s" % (rule, hosts_in_short(f["host"] for f in group), _values(group)), "      reason:   %s" % reason]
    count = Counter(result["hosts"].values())
    lines += ["", "%d hosts: %d pass, %d fail, %d unknown%s" % (
        len(result["hosts"]), count["pass"], count["fail"], count["unknown"],
        "; %d findings waived" % result["waived"] if "waived" in result else "")]
    return "\n".join(lines)


def _host_rows(result, headings):
    rows = [[name, result["hosts"][name]] + result["facts"][name] for name in sorted(result["hosts"], key=natural)]
    if len(rows) > FULL_TABLE_HOSTS:
        alike = OrderedDict()
        for row in rows:
            alike.setdefault(tuple(row[1:]), []).append(row[0])
        rows = [[hosts_in_short(names)] + list(rest) for rest, names in alike.items()]
    rows.insert(0, list(headings))
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _fold(findings):
    """One block for each rule and expectation, whatever the hosts."""
    groups = OrderedDict()
    for one in findings:
        groups.setdefault((one["rule"], one["expected"], one["source"]), []).append(one)
    lines = []
    for (rule, expected, source), group in sorted(groups.items(), key=lambda item: -len(set(f["host"] for f in item[1]))):
        hosts = set(f["host"] for f in group)
        lines.append("  %s  %s" % (rule, hosts_in_short(hosts)))
        lines += ["      found:    %s" % line for line in _lines(group)]
        lines += ["      expected: %s" % expected, "      source:   %s" % source]
        remedies = list(OrderedDict.fromkeys(f["remedy"] for f in group))
        lines += ["      remedy:   %s" % remedy for remedy in remedies[:VALUES_SHOWN]]
        if len(remedies) > VALUES_SHOWN:
            lines.append("      remedy:   and %d more of this kind in the report" % (len(remedies) - VALUES_SHOWN))
    return lines


def _values(group):
    return "; ".join(_lines(group))


def _lines(group):
    """The values found, the most frequent first, each with its hosts when they differ."""
    by_value = OrderedDict()
    for one in group:
        text = "%s%s" % ("%s: " % one["instance"] if one["instance"] else "", one["found"])
        by_value.setdefault(text, []).append(one["host"])
    ranked = sorted(by_value.items(), key=lambda item: -len(item[1]))
    lines = []
    for text, hosts in ranked[:VALUES_SHOWN]:
        many = "%d hosts: " % len(set(hosts)) if len(set(hosts)) > 1 else ""
        where = " (%s)" % hosts_in_short(hosts) if len(by_value) > 1 and len(set(f["host"] for f in group)) > 1 else ""
        lines.append(many + text + where)
    if len(ranked) > VALUES_SHOWN:
        lines.append("and %d more of this kind in the report" % (len(ranked) - VALUES_SHOWN))
    return lines


def explain(rule, result, contexts):
    """:returns: the text for one rule over all hosts of a result."""
    lines = ["%s: %s" % (rule.id, rule.title), "  why:     %s" % rule.why, "  source:  %s" % rule.source]
    for bound in sorted(rule.bounds):
        lines.append("  bound:   %s = %s by default" % (bound, rule.bounds[bound]))
    if rule.after:
        lines.append("  judged only where these did not fail: %s" % ", ".join(rule.after))
    skipped = dict(((s["host"], s["instance"]), s["because"]) for s in result["skipped"] if s["rule"] == rule.id)
    for host in sorted(contexts, key=natural):
        own = [f for f in result["findings"] if f["rule"] == rule.id and f["host"] == host]
        for one in own:
            lines.append("  %s%s: %s: found %s, expected %s" % (
                host, " " + one["instance"] if one["instance"] else "", one["status"], one["found"], one["expected"]))
            if one["remedy"] and one["status"] != "pass":
                lines.append("    remedy: %s" % one["remedy"])
            if one.get("reason"):
                lines.append("    reason: %s" % one["reason"])
        for instance in sorted((i for h, i in skipped if h == host), key=str):
            lines.append("  %s%s: not judged, because %s did not pass" % (
                host, " " + instance if instance else "", skipped[(host, instance)]))
        if not own and not any(h == host for h, _i in skipped):
            lines.append("  %s: not judged, %s" % (host, "the rule concerns nothing planned here" if (contexts[host] or {}).get("survey")
                                                   and not contexts[host]["survey"].get("unreachable") else "there is no survey of it"))
    return "\n".join(lines)
