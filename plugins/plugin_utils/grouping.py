# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that change as one because an instance spans them. Each changes in a task of its own; what they tell each other is in the workspace.

A head waits for its members and they for it, so all begin together, one that goes back takes the others with it, and nobody is done alone.
Runs on the controller.
"""

from __future__ import annotations

import os
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change, spanning
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, workspace

# Tasks of one play start together unless Ansible has too few forks.
GATHER_S = 120.0
POLL_S = 0.2
ASK_S = 20.0


class Group:
    """The other hosts that change together with one."""

    def __init__(self, action, host, instances, state, task_vars):
        self.action, self.host, self.instances, self.state, self.task_vars = action, host, instances, state, task_vars
        # What is removed needs nobody, and what is to stop need not wait for a host that is gone.
        self.excused = {name for name, survey in workspace.load("surveys", {}).items() if state == "stopped" and survey.get("unreachable")}
        self.others = sorted(spanning.companions(instances) - {host} - self.excused) if state != "absent" else []
        self.told = False

    def torn(self):
        """Why the host must not change at all: a sentence, or None."""
        return spanning.torn(self.instances, [*self.task_vars["ansible_play_hosts"], *self.excused]) if self.others else None

    def _load(self, what, host):
        return workspace.load("%s.%s.%s" % (what, self.state, host), {})

    def gather(self, identity, state_directory):
        """Wait until every host is about to change. :returns: those that are not."""
        workspace.save("%s.%s.%s" % ("begins", self.state, self.host), {"folder": os.path.join(state_directory, "jobs", identity)})
        until = time.monotonic() + GATHER_S
        while True:
            missing = [host for host in self.others if not self._load("begins", host)]
            if not missing or time.monotonic() >= until:
                return missing
            time.sleep(POLL_S)

    def watch(self, line):
        """How far the change is; one that goes back tells the others."""
        # The first of these is gone in a moment, and who follows may only see the second.
        if line.startswith(("revert", "prove again")):
            self.give_up("%s is not proven and goes back; a group goes back as one" % self.host)

    def give_up(self, why):
        """Tell the changes of the other hosts that waiting cannot help. Whoever is not reached finds out when both have ended."""
        if not self.told:
            self.told = True
            folders = {host: self._load("begins", host).get("folder") for host in self.others}
            requests = {host: {"folder": folder, "why": why} for host, folder in folders.items() if folder}
            fan_out.ask(self.action, requests, "host_change:give_up", self.task_vars["hostvars"], ASK_S)

    def ended(self, outcome, message):
        """Leave how this host ended."""
        workspace.save("%s.%s.%s" % ("ended", self.state, self.host), {"outcome": outcome, "message": message})
        if outcome not in ("done", "unchanged"):
            self.give_up("%s ended %s; a group changes as one" % (self.host, outcome))

    def failure(self):
        """Wait until all have ended. :returns: why the group is not what was wanted, or None."""
        until = time.monotonic() + change.dead_man_s(self.instances)
        while time.monotonic() < until and not all(self._load("ended", host) for host in self.others):
            time.sleep(POLL_S)
        for host in self.others:
            ended = self._load("ended", host)
            if ended.get("outcome") not in ("done", "unchanged"):
                return "%s, of the same group, ended %s%s" % (
                    host,
                    ended.get("outcome") or "without a word",
                    ": " + ended["message"] if ended.get("message") else "",
                )
        return None
