# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says of every host what runs and whether it answers."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.status."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("model",))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"model": {"type": "str", "default": ""}})
        try:
            surveys, proof = workspace.load("surveys"), workspace.load("proof")
        except workspace.Missing as error:
            return {"failed": True, "msg": str(error)}
        rows = [row for host, survey in surveys.items() for row in recovery.status_rows(host, survey, proof.get(host) or {}, args["model"])]
        lines = [("HOST", "INSTANCE", "MODEL", "NPUS", "PORT", "PATCH SET", "RELEASE", "PREVIOUS", "SINCE", "UNIT", "ANSWERS")]
        for row in rows:
            lines.append(tuple(str(row[key] if row[key] not in (None, "") else "-") for key in (
                "host", "instance", "model", "npus", "port", "patch_set", "release", "previous", "since", "unit", "answers")))
        self._display.display("\n".join([""] + plan_text.table(lines) + [""]))
        return {"changed": False, "instances": rows}
