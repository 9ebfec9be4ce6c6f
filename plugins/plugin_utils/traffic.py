# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a host's instances out of the fleet's traffic and lets them in again: at our gateways, by hooks of the operator's own, or, without
either, not at all. Runs on the controller."""

from __future__ import annotations

import os
import subprocess
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import recovery, spanning
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, workspace

ASK_S = 30.0
HOOK_S = 120.0


class TrafficError(Exception):
    """Traffic could not be moved, or is not proven to have stopped; the text says what and where."""


class Traffic:
    """The traffic of hosts in one rollout."""

    def __init__(self, rollout):
        self.rollout, self.action, self.task_vars = rollout, rollout.action, rollout.task_vars
        self.settings = rollout.settings["traffic"]

    def servers(self, host):
        """What of a host is behind the gateway: installed instances that serve a model."""
        survey = workspace.load("surveys").get(host) or {}
        return [{"host": host, "instance": each["name"], "model": each["served_model_name"], "port": each["port"]}
                for each in recovery.installed(survey) if each.get("served_model_name") and each.get("port") and not spanning.is_member(each)]

    def drain(self, host):
        """Out of the gateway, and proven to be idle. :returns: what was found. :raises TrafficError: when it is not."""
        servers = self.servers(host)
        moved = self.move(host, servers, "drain")
        found = {"moved": moved, "cut": 0}
        if not servers:
            return found
        rules = self.rollout.rules
        asked = {"instances": servers, "deadline_s": rules["drain_deadline_s"], "window_s": rules["drain_window_s"], "note": self._note("draining")}
        answer = self._ask({host: asked}, "drain_host:answer", rules["drain_deadline_s"] + ASK_S)[host]
        if answer.get("failed") or answer.get("unreachable"):
            raise TrafficError("%s: whether its requests are finished is not known: %s" % (host, answer["msg"]))
        found.update(instances=answer["instances"], elapsed_s=answer["elapsed_s"])
        unknown = [name for name, each in answer["instances"].items() if each.get("error")]
        if unknown:
            raise TrafficError("%s: whether %s is idle is not known: %s" % (host, ", ".join(unknown), answer["instances"][unknown[0]]["error"]))
        busy = {name: each for name, each in answer["instances"].items() if not each["drained"]}
        moving = [name for name, each in busy.items() if each.get("still_arriving")]
        if moving and moved:
            raise TrafficError(
                "%s: the gateway says that %s is out, but requests still arrive there; somebody goes past the gateway" % (host, ", ".join(moving))
            )
        if busy and rules["drain_at_deadline"] == "cut":
            found["cut"] = sum(each["running"] + each["waiting"] for each in busy.values())
            return found
        if busy:
            raise TrafficError("%s: %d request(s) still run after %s s: %s; drain_at_deadline is %s" % (
                host, sum(each["running"] + each["waiting"] for each in busy.values()), rules["drain_deadline_s"], ", ".join(sorted(busy)),
                rules["drain_at_deadline"]))
        return found

    def admit(self, host):
        """Into the gateway again."""
        return {"moved": self.move(host, self.servers(host), "ready")}

    def move(self, host, servers, state):
        """Tell all gateways, or the operator's hook. :returns: what was told. :raises TrafficError: when one of them did not do it."""
        told = []
        hook = self.settings["hooks"].get("drain" if state == "drain" else "admit")
        if hook:
            for server in servers:
                self._hook(hook, server, state)
                told.append("hook for %(instance)s" % server)
        if self.settings["gateways"] and servers:
            answers = self._ask({gateway: {"act": "set", "servers": servers, "state": state} for gateway in self.settings["gateways"]},
                                "gateway_host:answer", ASK_S)
            for gateway, answer in sorted(answers.items()):
                if answer.get("failed") or answer.get("unreachable"):
                    raise TrafficError("gateway %s did not take %s %s: %s" % (gateway, host, "out" if state == "drain" else "in", answer["msg"]))
                told.append("gateway %s" % gateway)
        return told

    def _ask(self, requests, entry, deadline_s):
        return fan_out.ask(self.action, requests, entry, self.task_vars["hostvars"], deadline_s)

    def _note(self, state):
        """What a host is to remember before the act."""
        fence = self.rollout.fence()
        return dict(state=state, since=time.time(), **({"epoch": fence["epoch"], "owner": fence["owner"]} if fence else {}))

    def _hook(self, command, server, state):
        hostvars = self.task_vars["hostvars"]
        environment = dict(os.environ, FLEET_HOST=server["host"], FLEET_INSTANCE=server["instance"], FLEET_MODEL=server["model"],
                           FLEET_ADDRESS=str(hostvars[server["host"]].get("ansible_host", server["host"])), FLEET_PORT=str(server["port"]), FLEET_STATE=state)
        words = [command] if isinstance(command, str) else list(command)
        try:
            done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HOOK_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrafficError("the hook %s for %s on %s: %s" % (words[0], server["instance"], server["host"], error)) from error
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no reason").splitlines()[-1]
            raise TrafficError("the hook %s for %s on %s ended with %d: %s" % (words[0], server["instance"], server["host"], done.returncode, last))
