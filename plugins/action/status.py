# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says of every host what runs and whether it answers."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import lease, plan_text, recovery, rollout
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import journal, workspace

COLUMNS = ("host", "instance", "model", "npus", "port", "set_id", "digest", "release", "previous", "since", "unit", "state", "drift", "answers")


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.status."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("model", "report_directory"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"model": {"type": "str", "default": ""}, "report_directory": {"type": "path", "default": "reports"}})
        try:
            surveys, proof = workspace.load("surveys"), workspace.load("proof")
        except workspace.Missing as error:
            return {"failed": True, "msg": str(error)}
        wanted = workspace.load("differences", {})
        rows = [row for host, survey in surveys.items() for row in recovery.status_rows(
            host, survey, proof.get(host) or {}, args["model"], {name: each["action"] for name, each in (wanted.get(host) or {}).items()})]
        lines = [tuple(column.upper().replace("_", " ") for column in COLUMNS)]
        for row in rows:
            lines.append(tuple(str(row[key] if row[key] not in (None, "") else "-") for key in COLUMNS))
        self._display.display("\n".join([""] + plan_text.table(lines) + [""]))
        told = self._rollout(surveys, args["report_directory"])
        for line in told:
            self._display.display(line)
        return {"changed": False, "instances": rows, "rollout": told}

    @staticmethod
    def _rollout(surveys, directory):
        """What is known of a rollout: from the hosts that hold its lease, and from this controller's journals."""
        lines = []
        for host, survey in surveys.items():
            held = survey.get("lease") or {}
            if held.get("owner") and not held.get("released"):
                wish = "; %s was asked for" % held["request"] if held.get("request") else ""
                lines.append("under way: rollout of %s%s" % (lease.whose(held, survey["host"]["epoch_s"]), wish))
                break
        for folder in journal.latest(directory)[:1]:
            state = rollout.replay(journal.Journal(folder).events())
            ended = {host: entry["outcome"] or entry["step"] or "waits" for host, entry in state["hosts"].items()}
            lines.append("latest here: rollout %s, %s%s%s" % (folder.name, state["outcome"] or "not ended", ": " + state["held"] if state["held"] else "",
                                                              "".join("; %s %s" % each for each in ended.items())))
        return lines
