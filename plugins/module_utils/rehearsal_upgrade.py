# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsed upgrade: what is passed on to it, and what is said of it. Pure."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.intent import SECRET_VARIABLES

# What the inventory of the simulated hosts sets. Extra variables would win over it and lead to the operator's own.
ISOLATING = ("fleet_name", "fleet_registry", "fleet_registries", "fleet_images_lock", "fleet_report_directory", "fleet_history", "fleet_ledger_key",
             "fleet_drain_hook", "fleet_admit_hook", "fleet_address")
OWN = ("upgrade",)


def passed_on(extra):
    """The extra variables that the rehearsed upgrade gets.

    :param dict extra: those of the run.
    :returns: (variables, [one-line problem]).
    """
    given = dict((name, value) for name, value in extra.items() if name not in OWN and not name.startswith("rehearsal_"))
    problems = ["extra variable %s would lead the rehearsal to the true fleet; leave it out, the rehearsal has its own" % name
                for name in sorted(given) if name in ISOLATING or name.startswith("ansible_")]
    problems += ["extra variable %s is a secret; leave it out, the rehearsal has its own" % name for name in sorted(given) if name in SECRET_VARIABLES]
    return given, problems


def lever_problems(levers, hosts):
    """What is wrong with the levers asked for. :param levers: {host: {lever: parameter}}. :returns: [one-line problem]."""
    if not isinstance(levers, dict) or not all(isinstance(each, dict) for each in levers.values()):
        return ["rehearsal_faults must be {host: {lever: parameter}}, such as {a2-1: {engine_crash_loop: \"1\"}}"]
    return ["rehearsal_faults names %s, which is no host of this inventory" % host for host in sorted(levers) if host not in hosts]


def addresses(output):
    """{served model name: URL} of what gateway.yml printed."""
    return dict(re.findall(r"^(\S+): (https?://[^,\s]+?)(?:, https?://[^,\s]+?)*/v1$", output, re.MULTILINE))


def last_words(output):
    """Why a playbook failed, of what it printed: the last error in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("[ERROR]", "ERROR!", "fatal:"))]
    return (errors or lines or ["it printed nothing"])[-1][:600]


def judge(state, events, clients, levers, said):
    """What is said of a rehearsed upgrade.

    :param state: of rollout.replay, None when no rollout was begun. :param list events: of its journal.
    :param dict clients: {served model name: report of load.Load}; {} where there is no gateway. :param dict levers: what was pulled.
    :param str said: the last words of upgrade.yml.
    :returns: (failed, [line]).
    """
    outcome = state["outcome"] if state else None
    lines = ["", "REHEARSED UPGRADE: %s%s" % (outcome or "no rollout began", ", with faults: " + ", ".join(
        "%s on %s" % (lever, host) for host in sorted(levers) for lever in sorted(levers[host])) if levers else "")]
    if outcome != "done":
        lines.append("  upgrade.yml said: %s" % said)
    took = {}
    for event in events:
        if event["event"] == "step.end" and event["step"] in ("drain", "change", "admit") and event.get("elapsed_s") is not None:
            took.setdefault(event["host"], {})[event["step"]] = event["elapsed_s"]
    for host, steps in took.items():
        lines.append("  %-16s %s   %s" % (host, (state["hosts"].get(host) or {}).get("outcome") or "not ended", ", ".join(
            "%s %.1f s" % (step, steps[step]) for step in ("drain", "change", "admit") if step in steps)))
    failed = sum(each["failed"] for each in clients.values())
    silent = sorted(model for model, each in clients.items() if not each["requests"])
    for model, each in sorted(clients.items()):
        lines.append("  clients of %s: %d requests, %d failed, %d streams cut" % (model, each["requests"], each["failed"], each["cut_streams"]))
        lines += ["    %d x %s" % (count, text) for text, count in sorted(each["texts"].items(), key=lambda item: -item[1])[:3]]
    if not clients:
        lines.append("  no gateway, so no clients were played; what they would have seen is not known")
    bad = bool(failed or silent or outcome is None or outcome == "degraded" or (outcome != "done" and not levers))
    return bad, lines
