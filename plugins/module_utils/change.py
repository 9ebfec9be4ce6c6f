# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a host from what runs to what is wanted, as one transaction: what goes back together, and what a host remembers. Pure."""

from __future__ import annotations

import json

STATES = ("present", "previous", "restarted", "started", "stopped", "absent")
# Of a host, as its state file and the journal name them; see docs/architecture.md.
HOST_STATES = ("serving", "draining", "stopped", "starting", "proving", "failed", "reverted", "down", "quarantined", "unknown")
# How a change ends. "held" is a change that did not begin.
OUTCOMES = ("unchanged", "done", "reverted", "down", "failed")
UNFINISHED = ("draining", "stopped", "starting", "proving", "failed")
# Not the prefix of instances, whose units are found by it.
DEAD_MAN = "fleet-revert"
# Systemd's own clock and the last breath of a proof.
DEAD_MAN_MARGIN_S = 120.0


class Fenced(ValueError):
    """The host has seen a later controller; the text names it."""


def read_state(text):
    """The content of a host's state file; {} when there is none or it is none of ours."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_fence(state, fence):
    """Refuse a controller whose lease somebody else has taken over.

    :param dict state: of the host. :param fence: {"epoch", "owner"} of who asks, or None of a run without a lease.
    :raises Fenced: naming the later one.
    """
    seen = state.get("epoch") or 0
    if fence and fence["epoch"] < seen:
        raise Fenced("this host follows the rollout of %s (epoch %d), which took over from this one (epoch %d); nothing was changed" % (
            state.get("owner") or "another controller", seen, fence["epoch"]))


def origin(state, current):
    """Where a host goes back to: {instance: release or None} as it was before the first step that nobody has confirmed.

    :param dict state: of the host, maybe of a change that was cut off. :param dict current: {instance: release} as found now.
    """
    before = dict(current)
    if state.get("state") in UNFINISHED:
        before.update((name, release) for name, release in (state.get("before") or {}).items() if name in current)
    return before


def dead_man_s(instances, drain_s=0.0):
    """After how many seconds a host that hears nothing goes back: all that a change may take by its own deadlines, and a margin.

    The load may take twice its deadline while its log shows progress, see endpoint.Prover.late.
    """
    longest = max([0.0] + [2.0 * float(entry.get("ready_timeout_s") or 900) + float(entry.get("stability_window_s") or 0) for entry in instances])
    stop = max([0.0] + [float(entry.get("stop_timeout_s") or 600) for entry in instances])
    return drain_s + stop + longest + DEAD_MAN_MARGIN_S


def together(failed, instances, before):
    """Which instances go back when some were not proven: those, and all that stand where one of them has to return to.

    :param set failed: names. :param list instances: as they are now, with devices and port.
    :param dict before: {name: manifest of the release before, or None}.
    :returns: set of names.
    """
    back = set(failed)
    while True:
        devices, ports = set(), set()
        for name in back:
            manifest = before.get(name) or {}
            devices.update(manifest.get("devices") or ())
            ports.add(manifest.get("port"))
        more = set(entry["name"] for entry in instances if entry["name"] not in back and (
            devices & set(entry.get("devices") or ()) or entry.get("port") in ports - set([None])))
        if not more:
            return back
        back |= more


def dead_man_units(program, python, seconds):
    """{file name: text} of the timer that brings back what ran before, and of what it runs.

    A timer of a clock would fire at once after a long power cut; this one counts again from the start of the host.
    """
    return {
        DEAD_MAN + ".service":
            "# Made by vllm_ascend.fleet: brings back what ran before a change that nobody confirmed.\n"
            "[Unit]\nDescription=Bring back what ran before a change that nobody confirmed\nAfter=network-online.target docker.service\n\n"
            "[Service]\nType=exec\nExecStart=%s %s revert\nKillMode=mixed\n" % (python, program),
        DEAD_MAN + ".timer":
            "# Made by vllm_ascend.fleet: armed before a change, disarmed when it is proven.\n"
            "[Unit]\nDescription=Bring back what ran before unless the change is confirmed in time\n\n"
            "[Timer]\nOnActiveSec=%d\nAccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n" % seconds,
    }
