# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run ended: a table for whoever waits for it, and the evidence in its folder. Controller only."""

from __future__ import annotations

import pathlib

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report, workspace

# Whoever wants to try one needs no more than the screen holds.
CURLS = 8
BAD = ("down", "failed", "reverted", "removed", "quarantined")


def conclude(action, hostvars):
    """Say how each instance of the plan ended and keep why.

    :param action: the action plugin that speaks. :returns: (rows of ``recovery.summarize``, [host on which something failed]).
    """
    rows, results = keep(workspace.load("run")["directory"], hostvars, action._task.check_mode)
    show(action._display, rows)
    for host, result in results.items():
        for name in result["pruned"]:
            action._display.display("%s: left the inventory: %s%s" % (
                host, name, ", would be removed" if action._task.check_mode else ", removed" if not result["failure"] else ""))
    report.conclude(workspace.load("run")["directory"], action._task.check_mode)
    return rows, sorted(host for host, result in results.items() if result["failure"])


def keep(directory, hostvars, check_mode=False):
    """Put run.json into the folder of a run. :returns: (rows of ``recovery.summarize``, {host: what is known of its end})."""
    plan = workspace.load("plan")
    differences, proof = workspace.load("differences"), workspace.load("proof", {})
    results = {}
    for host in plan["hosts"]:
        changed = workspace.load("change." + host, {})
        failure = hostvars.raw_get(host).get("__fleet_failure") or (changed.get("message") if changed.get("outcome") in BAD else None)
        results[host] = {
            "differences": differences.get(host, {}), "proven": changed.get("proof") or proof.get(host) or {}, "failure": failure,
            "down": changed.get("outcome") == "down", "reverted": changed.get("reverted") or [], "removed": changed.get("removed") or [],
            "quarantined": bool(changed.get("quarantined")), "address": str(hostvars[host].get("ansible_host", host)),
            "actions": changed.get("actions") or [], "steps": changed.get("steps") or [], "revert_proof": changed.get("revert_proof") or {},
            "pruned": changed.get("leaving") or [], "diff": changed.get("diff") or []}
    rows = recovery.summarize(plan, results, check_mode)
    report.save(pathlib.Path(directory), "run.json", {"instances": rows, "hosts": results})
    return rows, results


def show(display, rows):
    """The table, then what went wrong, then how to ask what works."""
    if not rows:
        return
    lines = [("HOST", "MODEL", "NPUS", "PORT", "PATCH SET", "OUTCOME", "READY")]
    for row in rows:
        numbers = ",".join(device.rsplit("davinci", 1)[-1] for device in row["devices"]) or "-"
        ready = "%.1f s" % row["ready_s"] if row["ready_s"] is not None and row["outcome"] == "deployed" else "-"
        lines.append((row["host"], row["model"], numbers, str(row["port"]), row["patch_set"] or "-", row["outcome"], ready))
    display.display("\n" + "\n".join(plan_text.table(lines)) + "\n")
    for row in rows:
        if row["outcome"] in BAD:
            display.display("%s: %s: %s" % (row["host"], row["outcome"], row["reason"]), color="red")
    asking = [row["curl"] for row in rows if row["curl"]]
    for line in asking[:CURLS]:
        display.display(line)
    if len(asking) > CURLS:
        display.display("and %d more like these in run.json" % (len(asking) - CURLS))
