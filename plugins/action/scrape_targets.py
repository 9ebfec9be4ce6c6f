# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scrape targets for Prometheus from what the survey of this run found."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import monitoring
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.scrape_targets."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("hosts",))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"hosts": {"type": "list", "elements": "str", "required": True}})
        hostvars = task_vars["hostvars"]
        try:
            surveys = workspace.load("surveys")
        except workspace.Missing as error:
            return {"failed": True, "msg": str(error)}
        addresses = {host: str(hostvars[host].get("ansible_host", host)) for host in args["hosts"]}
        ports = {host: hostvars[host].get("fleet_npu_exporter_port") for host in args["hosts"]}
        return dict(monitoring.fleet_targets({host: surveys.get(host) for host in args["hosts"]}, addresses, ports), changed=False)
