# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the weights of a model to one host and from there to the others: hosts that have them serve those that do not. Controller only."""

from __future__ import annotations

import secrets

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, program

LOOK_S = 300.0
SERVE_S = 60.0


def wave(donors, waiting, width):
    """Who fetches from whom next: {host: donor}, each donor serving `width` at a time at most.

    With two for each the number of those that have it triples with every wave, as long as the donors' links carry two at once.
    """
    return {host: donors[number % len(donors)] for number, host in enumerate(waiting[:len(donors) * width])}


class Distribution:
    """One model's folder on its way over the hosts of a run."""

    def __init__(self, action, hostvars, path, options):
        """:param dict options: "source" (URL of the folder), "width", "timeout_s", "manifest"."""
        self.action, self.hostvars, self.path, self.options = action, hostvars, path, options
        self.token, self.ports, self.transfers, self.problems = secrets.token_hex(16), {}, [], []

    def ask(self, requests, deadline_s):
        """{host: answer} of those that did it; what the others say is kept."""
        asked = {host: dict(request, path=self.path, state_directory=self.state_directory(host)) for host, request in requests.items()}
        answers = fan_out.ask(self.action, asked, "weights_host:answer", self.hostvars, deadline_s)
        for host, answer in sorted(answers.items()):
            if answer.get("failed") or answer.get("unreachable"):
                self.problems.append(f"{host}: {answer.get('msg') or 'it ran no program'}")
        return {host: answer for host, answer in answers.items() if not (answer.get("failed") or answer.get("unreachable"))}

    def state_directory(self, host):
        return str(self.hostvars[host].get("fleet_state_directory") or "/var/lib/vllm-ascend-fleet")

    def address(self, host):
        found = str(self.hostvars[host].get("fleet_address") or self.hostvars[host].get("ansible_host") or host)
        return f"[{found}]" if ":" in found else found

    def run(self, hosts):
        """Have the folder whole on as many hosts as can be. :returns: whether anything was transferred."""
        looked = self.ask({host: {"act": "look"} for host in hosts}, LOOK_S)
        donors = [host for host in hosts if host in looked and not looked[host]["problems"]]
        waiting = [host for host in hosts if host in looked and looked[host]["problems"]]
        if len(waiting) + len(donors) < 2 or not waiting:
            return False
        while waiting and not donors:
            # The one transfer from afar; when it fails here it may work from the next.
            donors = self.fetch({waiting.pop(0): self.options["source"]})
        try:
            while waiting and donors:
                self.serve([host for host in donors if host not in self.ports][:-(-len(waiting) // self.options["width"])])
                serving = [host for host in donors if host in self.ports]
                if not serving:
                    break
                chosen = wave(serving, waiting, self.options["width"])
                waiting = waiting[len(chosen):]
                donors += self.fetch({host: f"http://{self.address(donor)}:{self.ports[donor]}/{self.token}" for host, donor in chosen.items()}, chosen)
        finally:
            if self.ports:
                self.ask({host: {"act": "stop"} for host in self.ports}, SERVE_S)
        return bool(self.transfers)

    def serve(self, hosts):
        """Have those hosts serve their folder."""
        request = {"act": "serve", "program": program.text("weights_host:main", {}).decode("ascii"), "token": self.token, "seconds": self.options["timeout_s"]}
        self.ports.update((host, answer["port"]) for host, answer in self.ask(dict.fromkeys(hosts, request), SERVE_S).items())

    def fetch(self, sources, donors=None):
        """Have hosts fetch, all at once. :returns: those that are whole now."""
        done = self.ask({host: {"act": "fetch", "kind": "http", "where": where, "timeout_s": self.options["timeout_s"], "manifest": self.options["manifest"]}
                         for host, where in sources.items()}, self.options["timeout_s"])
        for host, answer in sorted(done.items()):
            origin = (donors or {}).get(host) or self.options["source"]
            self.transfers.append({"host": host, "path": self.path, "from": origin, "elapsed_s": answer["elapsed_s"]})
            self.action._display.display(f"{host}: {self.path} from {origin} in {answer['elapsed_s']:.1f} s")
        return sorted(done)
