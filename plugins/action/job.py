# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows a detached job across connections, with a line for each step; everything else is the module's."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import follow


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.job."""

    TRANSFERS_FILES = False
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)

        def execute(given):
            return self._execute_module(module_name="vllm_ascend.fleet.job", module_args=given, task_vars=task_vars)

        if arguments.get("state") != "followed" or self._task.check_mode:
            return execute(arguments)
        host, name = task_vars["inventory_hostname"], arguments.get("id")
        quiet = str(arguments.get("quiet", False)).lower() in ("true", "yes", "1")
        return follow(execute, (lambda line: None) if quiet else (lambda line: self._display.display(f"{host}: {name}: {line}")),
                      dict(arguments, wait_s=float(arguments.get("wait_s") or 0)), int(arguments.get("patience_s") or 300))
