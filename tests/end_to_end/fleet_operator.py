# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks and commands against the rehearsal fleet, as its operator would."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Another checkout on the same machine brings a fleet of its own: an inventory with another rehearsal_fleet_name and subnet. Several are
# separated by colons, as where an operator's own and the one that leads to its simulated hosts are used together.
INVENTORY = os.environ.get("REHEARSAL_INVENTORY") or str(ROOT / "inventories" / "rehearsal")


def using(inventory):
    """The arguments that name an inventory, or several."""
    return [word for path in str(inventory).split(":") for word in ("-i", path)]


@functools.lru_cache(maxsize=None)
def described(inventory=INVENTORY):
    """({host: address} of an inventory, the state folder of its fleet)."""
    listed = json.loads(subprocess.run([BIN / "ansible-inventory", *using(inventory), "--list"], cwd=ROOT, capture_output=True, check=True).stdout)
    shown = json.loads(subprocess.run([BIN / "ansible", "localhost", *using(inventory), "-m", "ansible.builtin.debug", "-a",
                                       "var=rehearsal_fleet_state_directory", "-o"], cwd=ROOT, capture_output=True, text=True,
                                      check=True).stdout.partition("=>")[2])
    hosts = listed["_meta"]["hostvars"]
    return {host: known["ansible_host"] for host, known in hosts.items() if "ansible_host" in known}, Path(
        shown["rehearsal_fleet_state_directory"])


def __getattr__(name):
    """ADDRESSES and STATE, when first asked for: rehearse.yml may have to write the inventory that knows them."""
    if name in ("ADDRESSES", "STATE"):
        return described()[name == "STATE"]
    raise AttributeError(name)


class Play:
    """One finished ansible-playbook."""

    def __init__(self, done):
        self.rc, self.output = done.returncode, done.stdout

    @property
    def changed(self):
        """{host: changed} of the recap."""
        return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.MULTILINE)}

    def succeeded(self):
        assert self.rc == 0, self.output[-6000:]
        return self

    def refused(self, *words):
        """It failed with these words, and without a traceback or a Jinja error in sight."""
        assert self.rc != 0, self.output[-6000:]
        for word in words:
            assert word in self.output, f"{word!r} is not said:\n{self.output[-6000:]}"
        for noise in ("Traceback", "undefined", "templating", "MODULE FAILURE"):
            assert noise not in self.output, f"{noise!r} is said:\n{self.output[-6000:]}"
        return self


def run(argv, cwd=ROOT, timeout=900, **environment):
    base = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", LC_ALL="C.UTF-8", ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0")
    return Play(subprocess.run([str(word) for word in argv], cwd=cwd, env={**base, **environment}, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False))


def play(playbook, *arguments, inventory=INVENTORY, **options):
    """Run ansible-playbook as the README says."""
    return run([BIN / "ansible-playbook", playbook, *using(inventory), *arguments], **options)


def module(host, name, arguments):
    """Run one module of the collection on a host."""
    return run([BIN / "ansible", host, *using(INVENTORY), "-m", name, "-a", json.dumps(arguments)])


def on(host, *command, check=True, given=b"", inventory=INVENTORY):
    """Run a command on a node over SSH, with some bytes as its input; its output."""
    addresses, state = described(inventory)
    argv = ["ssh", "-o", "BatchMode=yes", "-i", state / "id_ed25519", "-o", f"UserKnownHostsFile={state / 'known_hosts'}", f"root@{addresses[host]}"]
    done = subprocess.run([*argv, *command], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    output = done.stdout.decode(errors="replace")
    assert not check or done.returncode == 0, f"{command} on {host}: {output}"
    return output
