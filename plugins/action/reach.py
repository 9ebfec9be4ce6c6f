# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks all hosts of the play at once whether they can be talked to, and says what is in the way."""

from __future__ import annotations

import pathlib

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate_table, reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import reaching, report, ssh_target


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.reach."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("hosts", "deadline_s", "quiet", "directory"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "hosts": {"type": "list", "elements": "str"},
            "deadline_s": {"type": "float", "default": 10.0},
            "quiet": {"type": "bool", "default": False},
            "directory": {"type": "path"},
        })
        task_vars = task_vars or {}
        hosts = args["hosts"] or list(task_vars.get("ansible_play_hosts_all") or [])
        unknown = [host for host in hosts if host not in task_vars["hostvars"]]
        if unknown:
            return {"failed": True, "msg": "hosts: %s is not in the inventory" % ", ".join(unknown[:5])}
        try:
            judged = reaching.reach(hosts, task_vars["hostvars"], self._task, self._play_context, args["deadline_s"])
        except (ssh_target.ProbeError, AnsibleError) as error:
            return {"failed": True, "msg": " ".join(str(error).split())}
        summary = reachability.summary(judged)
        if not args["quiet"]:
            self._display.display(gate_table.render(summary, reachability.HEADINGS))
        if args["directory"]:
            report.save(pathlib.Path(args["directory"]), "reach.json", summary)
        return {"changed": False, "hosts": judged, "unreachable_hosts": sorted(host for host, one in judged.items() if one["status"] == "fail")}
