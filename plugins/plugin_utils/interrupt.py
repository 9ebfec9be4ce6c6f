# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C during a rollout: once lets the hosts at work finish and holds, twice stops at once. Runs on the controller."""

from __future__ import annotations

import os
import signal
import sys
import threading

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace

ONCE = ("\nCtrl-C: the hosts at work are finished, then the rollout holds. Once more stops at once: hosts in mid-change then finish or go back by "
        "themselves.\n")


def listen():
    """Take the first Ctrl-C from here on, in the process that runs the play; the second is Ansible's."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before) or getattr(before, "of_rollout", False):
        return
    player = os.getpid()

    def first(_number, _frame):
        signal.signal(signal.SIGINT, before)
        # Older cores leave their workers in the terminal's own process group: they are told as well.
        if os.getpid() == player:
            workspace.save("interrupt", True)
            sys.stderr.write(ONCE)

    first.of_rollout = True
    signal.signal(signal.SIGINT, first)


def asked():
    """Whether Ctrl-C was pressed in this run."""
    return workspace.load("interrupt", False)
