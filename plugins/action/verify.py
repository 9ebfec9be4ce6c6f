# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what the smoke checks found, instance by instance, and keeps the evidence."""

from __future__ import annotations

import os
import pathlib
import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action.plan import registered
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint, monitoring, plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report

MARKS = {"pass": "ok", "fail": "FAIL", "unknown": "?"}


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.verify."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("survey", "proof", "report_directory"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "survey": {"type": "str", "required": True}, "proof": {"type": "str", "required": True},
            "report_directory": {"type": "path", "default": "reports"}})
        hostvars = (task_vars or {})["hostvars"]
        instances, hosts, failures = [], {}, {}
        for host in (task_vars or {})["ansible_play_hosts_all"]:
            looked, proof = registered(hostvars, host, args["survey"]), registered(hostvars, host, args["proof"])
            survey = looked.get("survey") or {"unreachable": True, "error": looked.get("msg") or "it was not asked"}
            reason = survey.get("error") if survey.get("unreachable") else None
            if not reason and proof.get("msg") and not proof.get("instances"):
                reason = proof["msg"]
            hosts[host] = {"reason": reason}
            if reason:
                failures[host] = reason
            manifests = {manifest["name"]: manifest for manifest in recovery.installed(survey)}
            for name, found in (proof.get("instances") or {}).items():
                manifest = manifests.get(name) or {}
                instances.append({
                    "host": host, "instance": name, "model": manifest.get("model"), "served_model_name": manifest.get("served_model_name"),
                    "release": (manifest.get("release") or {}).get("id"), "ready": found["ready"], "elapsed_s": found["elapsed_s"],
                    "findings": [dict(item, host=host) for item in found["findings"]], "answers": found.get("answers") or []})
                if not found["ready"]:
                    failures.setdefault(host, endpoint.sentence(name, found))
        run = time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid())
        directory = pathlib.Path(args["report_directory"]).absolute() / run
        verdict = "fail" if failures or not instances else "pass"
        content = {"schema": 1, "run_id": run, "verdict": verdict, "instances": instances, "hosts": hosts}
        report.save(directory, "verify.json", content)
        self._show(instances, hosts, directory)
        return {"changed": False, "instances": instances, "failures": failures, "verdict": verdict, "file": str(directory / "verify.json"),
                "page": monitoring.verify_text(content, time.time())}

    def _show(self, instances, hosts, directory):
        rules = list(dict.fromkeys(item["rule"] for entry in instances for item in entry["findings"] if item["rule"].startswith("smoke.")))
        rows = [("HOST", "INSTANCE", "ANSWERS") + tuple(rule.partition(".")[2].upper().replace("_", " ") for rule in rules)]
        for entry in instances:
            status = {item["rule"]: item["status"] for item in entry["findings"]}
            proven = all(item["status"] == "pass" for item in entry["findings"] if not item["rule"].startswith("smoke."))
            rows.append((entry["host"], entry["instance"], "yes" if proven else "NO") + tuple(MARKS.get(status.get(rule), "-") for rule in rules))
        lines = plan_text.table(rows) if instances else ["nothing of ours is installed"]
        self._display.display("\n".join([""] + lines + [""]))
        for entry in instances:
            for item in entry["findings"]:
                if item["status"] != "pass":
                    self._display.display(f"{entry['host']}: {entry['instance']}: {item['rule']}: {item['found']}; expected {item['expected']}", color="red")
        for host, entry in hosts.items():
            if entry["reason"]:
                self._display.display(f"{host}: {entry['reason']}", color="red")
        self._display.display(f"the answers: {directory / 'verify.json'}")
