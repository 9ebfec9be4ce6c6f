# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what the smoke checks found, instance by instance, and keeps the evidence."""

from __future__ import annotations

import os
import pathlib
import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint, monitoring, plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report, workspace

MARKS = {"pass": "ok", "fail": "FAIL", "unknown": "?"}


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.verify."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("model", "report_directory"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "model": {"type": "str", "default": ""}, "report_directory": {"type": "path", "default": "reports"}})
        try:
            surveys, proof = workspace.load("surveys"), workspace.load("proof")
        except workspace.Missing as error:
            return {"failed": True, "msg": str(error)}
        instances, hosts, failures = [], {}, {}
        for host, survey in surveys.items():
            reason = survey.get("error") if survey.get("unreachable") else next(
                ("its instances could not be asked: " + each["error"] for each in survey.get("errors") or () if each["source"] == "proof"), None)
            hosts[host] = {"reason": reason}
            if reason:
                failures[host] = reason
            for manifest in recovery.installed(survey, args["model"]) if not reason else ():
                found = (proof.get(host) or {}).get(manifest["name"]) or not_asked(manifest)
                instances.append({
                    "host": host, "instance": manifest["name"], "model": manifest.get("model"), "served_model_name": manifest.get("served_model_name"),
                    "release": (manifest.get("release") or {}).get("id"), "ready": found["ready"], "elapsed_s": found["elapsed_s"],
                    "findings": [dict(item, host=host) for item in found["findings"]], "answers": found.get("answers") or []})
                if not found["ready"]:
                    failures.setdefault(host, endpoint.sentence(manifest["name"], found))
        if args["model"] and not instances and not failures:
            known = sorted(set(manifest["name"] for survey in surveys.values() for manifest in recovery.installed(survey)))
            return {"failed": True, "msg": f"No host of this run has a model or an instance '{args['model']}'; installed are {', '.join(known) or 'none'}"}
        run = time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid())
        directory = pathlib.Path(args["report_directory"]).absolute() / run
        verdict = "fail" if failures or not instances else "pass"
        content = {"schema": 1, "run_id": run, "verdict": verdict, "instances": instances, "hosts": hosts}
        report.save(directory, "verify.json", content)
        self._show(instances, hosts, directory)
        report.conclude(directory)
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


def not_asked(manifest):
    """What is said of an instance that does not run."""
    name, unit = manifest["name"], manifest.get("unit_state") or {}
    expected, source, remedy = endpoint.RULES["endpoint.unit_active"]
    item = finding("endpoint.unit_active", "fail", "the unit is %s" % (unit.get("active_state") or "not known to systemd"), expected, source,
                   "start it with playbooks/start.yml; " + remedy.format(unit=manifest.get("unit") or f"vllm-ascend-{name}.service"), instance=name)
    return {"ready": False, "elapsed_s": 0.0, "findings": [item], "answers": []}
