# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the gateways to what this run has found and proven."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import gateways, workspace


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.gateway."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_async = False
    _VALID_ARGS = frozenset()

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        try:
            done = gateways.apply(self, task_vars)
        except (gateways.GatewayError, workspace.Missing) as error:
            return {"failed": True, "msg": str(error)}
        if done is None:
            return {"changed": False, "addresses": {}, "guarded": []}
        for model, urls in done["addresses"].items():
            self._display.display("%s: %s/v1" % (model, ", ".join(urls)))
        return {"changed": done["changed"], "addresses": done["addresses"], "diff": done["diff"], "guarded": done["guarded"],
                "actions": {host: answer["actions"] for host, answer in done["gateways"].items()}}
