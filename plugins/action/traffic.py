# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a host out of the traffic, or lets it in again, and writes that into the journal."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import rolling, traffic, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import JournalError


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.traffic."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_async = False
    _VALID_ARGS = frozenset(("state",))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"state": {"type": "str", "choices": ["out", "in"], "required": True}})
        host, step = task_vars["inventory_hostname"], "drain" if args["state"] == "out" else "admit"
        started = time.monotonic()
        try:
            rollout = rolling.Rollout(self, task_vars)
            if self._task.check_mode:
                return {"changed": False, "host": host}
            journal = rollout.journal if "directory" in rollout.kept else None
            batch = rollout.kept.get("number")
            if journal:
                journal.write("step.begin", host, batch, step, expected_s=rollout.usual(host, step))
            try:
                mover = traffic.Traffic(rollout)
                found = mover.drain(host) if step == "drain" else mover.admit(host)
            except traffic.TrafficError as error:
                if journal:
                    journal.write("step.end", host, batch, step, False, round(time.monotonic() - started, 3), message=str(error),
                                  evidence={"outcome": "failed"})
                return {"failed": True, "msg": str(error)}
            message = f"{found['cut']} stream(s) will be cut" if found.get("cut") else ", ".join(found["moved"])
            if journal:
                journal.write("step.end", host, batch, step, True, round(time.monotonic() - started, 3), message=message, evidence=found)
            if journal:
                self._display.display(rolling.step_line(host, step, time.monotonic() - started, rollout.usual(host, step), message))
            if found.get("cut"):
                self._display.warning(f"{host}: {found['cut']} stream(s) still ran at the deadline and will be cut")
            return {"changed": bool(found["moved"]), "host": host, **found}
        except (workspace.Missing, JournalError) as error:
            return {"failed": True, "msg": str(error)}
