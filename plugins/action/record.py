# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says how a run ended, instance by instance, and keeps the evidence."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import recording, workspace


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.record."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset()

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        self.validate_argument_spec({})
        try:
            rows, failed = recording.conclude(self, (task_vars or {})["hostvars"])
        except workspace.Missing as error:
            return {"failed": True, "msg": str(error)}
        return {"changed": False, "instances": rows, "failed_hosts": failed}
