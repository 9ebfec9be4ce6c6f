# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall before the instances of a host. This file does I/O; ``firewall`` decides."""

from __future__ import annotations

import os
import shutil

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, release_host
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import FIREWALL_TABLE, FIREWALL_UNIT

UNITS = "/etc/systemd/system"
QUICK_S = 60.0


def answer(arguments):
    """Bring the unit to what is wanted, and the rules with it.

    :param dict arguments: "text": of firewall.unit, None for no firewall; "check": whether to look only.
    :returns: {"changed", "before": the text that was there or None}. :raises ValueError: with one line for the user; what was before is back.
    """
    path = os.path.join(UNITS, FIREWALL_UNIT)
    before, text = release_host.read_text(path), arguments["text"]
    same = before == text and (text is None or (systemctl("is-active", "--quiet")["rc"] == 0 and in_force()))
    if not same and text is not None and not shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        raise ValueError("nft is missing, so nobody can be kept from the ports of the instances; install nftables, or say fleet_instance_access: everyone")
    if not same and not arguments["check"]:
        try:
            put(path, text)
        except ValueError:
            put(path, before)
            raise
    return {"changed": not same, "before": before}


def put(path, text):
    """Have this unit, or none. :raises ValueError: when systemd or the kernel does not take it."""
    if text is None:
        systemctl("disable", "--now")
        release_host.remove_file(path)
        systemctl("daemon-reload", unit=False)
        return
    release_host.write_text(path, text, 0o644)
    systemctl("daemon-reload", unit=False)
    # A reload replaces the rules without a moment in between.
    for verb in ("enable", "reload-or-restart"):
        done = systemctl(verb)
        if done["rc"] != 0:
            raise ValueError("the firewall of the instances did not start (%s); the one before is back; see: journalctl -u %s" % (
                container_cli.last_line(done["stderr"]) or "exit %s" % done["rc"], FIREWALL_UNIT))


def remove():
    """Leave no firewall behind. :returns: whether there was one."""
    return answer({"text": None, "check": False})["changed"]


def in_force():
    """Whether the kernel has the table; another tool may have flushed it."""
    return container_cli.run(["/usr/bin/env", "nft", "list", "table"] + list(FIREWALL_TABLE), QUICK_S)["rc"] == 0


def systemctl(*words, unit=True):
    """One command of systemctl about our unit."""
    return container_cli.run(["systemctl"] + list(words) + ([FIREWALL_UNIT] if unit else []), QUICK_S)
