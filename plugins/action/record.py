# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says how a run ended, instance by instance, and keeps the evidence."""

from __future__ import annotations

import pathlib

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action.plan import registered
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history, report


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.record."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("plan", "differences", "directory"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "plan": {"type": "dict", "required": True},
            "differences": {"type": "dict", "required": True},
            "directory": {"type": "path", "required": True},
        })
        hostvars = (task_vars or {})["hostvars"]
        results = {}
        for host in args["plan"]["hosts"]:
            variables = hostvars.raw_get(host)
            failure = variables.get("__fleet_failure")
            reverted = variables.get("__fleet_revert") or {}
            results[host] = {
                "differences": args["differences"].get(host, {}),
                "proven": (variables.get("__fleet_proof") or registered(hostvars, host, "prove_result")).get("instances") or {},
                "released": registered(hostvars, host, "release_result").get("actions") or [],
                "failure": failure, "down": variables.get("__fleet_down"), "address": str(hostvars[host].get("ansible_host", host)),
                "reverted": [entry["name"] for entry in reverted.get("previous", ())],
                "removed": [entry["name"] for entry in reverted.get("absent", ())],
                "pruned": registered(hostvars, host, "__fleet_pruned").get("actions") or [],
            }
        rows = recovery.summarize(args["plan"], results, self._task.check_mode)
        report.save(pathlib.Path(args["directory"]), "run.json", {"instances": rows, "hosts": results})
        self._show(rows)
        self._remember(args, rows, hostvars)
        for host, result in results.items():
            for action in result["pruned"]:
                self._display.display("%s: left the inventory: %s%s" % (host, "would " if self._task.check_mode else "", action))
        return {"changed": False, "instances": rows, "failed_hosts": sorted(host for host, r in results.items() if r["failure"])}

    def _remember(self, args, rows, hostvars):
        """How long what was deployed took until it answered; the next run says what to expect."""
        steps = [{"run_id": pathlib.Path(args["directory"]).name, "host": row["host"], "step": "load", "model": row["model"], "seconds": row["ready_s"],
                  "platform": args["plan"]["hosts"][row["host"]].get("platform")} for row in rows if row["outcome"] == "deployed" and row["ready_s"] is not None]
        if steps and not self._task.check_mode:
            variables = hostvars[steps[0]["host"]]
            named = {name: variables[name] for name in ("fleet_history", "fleet_history_password", "fleet_report_directory") if name in variables}
            history.use(*history.address_of(named), self._display.warning, lambda one: one.record_steps(steps))

    def _show(self, rows):
        if not rows:
            return
        lines = [("HOST", "MODEL", "NPUS", "PORT", "PATCH SET", "OUTCOME", "READY")]
        for row in rows:
            numbers = ",".join(device.rsplit("davinci", 1)[-1] for device in row["devices"]) or "-"
            ready = "%.1f s" % row["ready_s"] if row["ready_s"] is not None and row["outcome"] == "deployed" else "-"
            lines.append((row["host"], row["model"], numbers, str(row["port"]), row["patch_set"] or "-", row["outcome"], ready))
        self._display.display("\n" + "\n".join(plan_text.table(lines)) + "\n")
        for row in rows:
            if row["outcome"] in ("down", "failed", "reverted", "removed"):
                self._display.display("%s: %s: %s" % (row["host"], row["outcome"], row["reason"]), color="red")
        for row in rows:
            if row["curl"]:
                self._display.display(row["curl"])
