# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: judges what is known of every host by the rules, and says it in a few lines. Pure."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate_table, rules_host, rules_links, rules_npu, rules_plan
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

RULES = OrderedDict((rule.id, rule) for rule in rules_host.RULES + rules_npu.RULES + rules_plan.RULES + rules_links.RULES)
WAIVER_KEYS = ("rule", "reason", "hosts")


class GateError(Exception):
    """A waiver, a setting or a question names something that does not exist."""


def judge(hosts, waivers=None, settings=None):
    """Judge hosts by all rules.

    :param dict hosts: {name: context}; a context holds survey, host_plan, images, platform, compatibility, now_epoch_s, and may hold
        rule_settings: {rule id: {bound: value}} of that host.
    :param list waivers: [{"rule", "reason", "hosts": [name or pattern], all when absent}].
    :param dict settings: {rule id: {bound: value}} of all hosts.
    :returns: {"findings": [...], "hosts": {name: "pass" | "fail" | "unknown"}, "waived": how many,
        "skipped": [{"host", "instance", "rule", "because"}], "facts": {name: what the table shows of a host}}.
    :raises GateError: for a waiver or a setting that names no rule, no bound, or gives no reason.
    """
    waivers, settings = waivers or [], settings or {}
    check(waivers, settings, *[context.get("rule_settings") or {} for context in hosts.values()])
    result = {"findings": [], "hosts": {}, "waived": 0, "skipped": [], "facts": {}}
    for name in sorted(hosts, key=gate_table.natural):
        context = dict(hosts[name], host=name)
        found = _judge_host(context, [w for w in waivers if _applies(w, name)], settings, context.get("rule_settings") or {}, result["skipped"])
        statuses = set(f["status"] for f in found)
        result["hosts"][name] = next((status for status in ("fail", "unknown") if status in statuses), "pass")
        result["waived"] += sum(1 for f in found if f["status"] == "waived")
        result["findings"] += found
        result["facts"][name] = gate_table.facts(context)
    return result


def check(waivers, *settings):
    """Hold waivers and settings against the rules. :raises GateError: as judge."""
    for waiver in waivers:
        if not isinstance(waiver, dict) or not set(waiver) <= set(WAIVER_KEYS):
            raise GateError("a waiver has the keys %s, not %s" % (", ".join(WAIVER_KEYS), waiver))
        known(waiver.get("rule"), "a waiver")
        if not str(waiver.get("reason") or "").strip():
            raise GateError("the waiver of %s gives no reason; add reason: <why this host may run all the same>" % waiver["rule"])
    for rule, bounds in (item for group in settings for item in group.items()):
        known(rule, "a rule setting")
        if not isinstance(bounds, dict):
            raise GateError("the setting of rule %s must be a dictionary of bounds, not %r; it has %s" % (
                rule, bounds, ", ".join(sorted(RULES[rule].bounds)) or "none"))
        for bound, value in bounds.items():
            if bound not in RULES[rule].bounds:
                raise GateError("rule %s has no bound '%s'%s; it has %s" % (
                    rule, bound, did_you_mean(bound, RULES[rule].bounds), ", ".join(sorted(RULES[rule].bounds)) or "none"))
            if not isinstance(RULES[rule].bounds[bound], str) and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise GateError("%s of rule %s must be a number, not %r" % (bound, rule, value))


def known(rule, what="the question"):
    """:raises GateError: when there is no such rule; what: who names it."""
    if rule not in RULES:
        raise GateError("%s names the unknown rule '%s'%s" % (what, rule, did_you_mean(rule, RULES)))


def _applies(waiver, host):
    patterns = waiver.get("hosts")
    if isinstance(patterns, str):
        patterns = [patterns]
    return patterns is None or any(fnmatch.fnmatchcase(host, pattern) for pattern in patterns)


def _judge_host(context, waivers, settings, own, skipped):
    surveyed = bool(context.get("survey")) and not context["survey"].get("unreachable")
    reasons = dict((w["rule"], w["reason"]) for w in waivers)
    found, stopped = [], {}
    for rule in _in_order():
        if rule.needs_survey and not surveyed:
            continue
        # Instances that a rule before this one has stopped; None stands for the whole host.
        blocked = dict((instance, before) for before in rule.after for instance in stopped.get(before, ()))
        if None in blocked:
            skipped.append({"host": context["host"], "instance": None, "rule": rule.id, "because": blocked[None]})
            stopped[rule.id] = set([None])
            continue
        for instance in sorted(blocked):
            skipped.append({"host": context["host"], "instance": instance, "rule": rule.id, "because": blocked[instance]})
        stopped[rule.id] = set(blocked)
        for one in _run(rule, dict(context, settings=dict(settings.get(rule.id) or {}, **(own.get(rule.id) or {})))):
            if one["instance"] in blocked and one["instance"] is not None:
                continue
            if one["status"] in ("fail", "unknown"):
                if rule.id in reasons:
                    one.update(status="waived", reason=reasons[rule.id])
                else:
                    stopped[rule.id].add(one["instance"])
            found.append(one)
    return found


def _in_order():
    """The rules, each behind those that it comes after."""
    done = OrderedDict()

    def add(rule):
        for before in rule.after:
            add(RULES[before])
        done[rule.id] = rule

    for rule in RULES.values():
        add(rule)
    return list(done.values())


def _run(rule, context):
    try:
        return list(rule.check(context))
    except Exception as error:
        # A survey of a shape that nobody foresaw must block this host, not end the run for all of them.
        return [finding(rule.id, "unknown", "the rule could not judge: %s: %s" % (type(error).__name__, error), rule.title, rule.source,
                        "report this with the survey in preflight.json", context["host"])]


def render_table(result):
    """The result as text: hosts, then what failed or is unknown, folded over hosts, then what was waived and why."""
    return gate_table.render(result)


def explain(rule_id, result, contexts):
    """What a rule checks, why, and how it reached its verdict on every host.

    :raises GateError: when there is no such rule.
    """
    known(rule_id)
    return gate_table.explain(RULES[rule_id], result, contexts)
