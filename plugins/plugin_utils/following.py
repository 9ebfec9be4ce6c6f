# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows a detached job of a host from the controller, over as many connections as it takes."""

from __future__ import annotations

import time

from ansible.errors import AnsibleConnectionFailure

# One call of the module lasts no longer, so that a connection that died silently is noticed.
SLICE_S = 30.0
# Between two looks, so that a job with much to say does not keep its host busy telling it.
PACE_S = 2.0
RETRY_S = 5.0


def follow(execute, show, arguments, patience_s=300, clock=time.monotonic, sleep=time.sleep):
    """Wait for a job and show each step.

    :param execute: runs the module job with arguments; returns its result or raises AnsibleConnectionFailure.
    :param show: is called with a line for each step.
    :param dict arguments: of the module; "wait_s" limits the whole; with "pace_s" the host itself keeps the pace, and tells an end at once.
    :param patience_s: how long a lost connection is opened again and again.
    :returns: the module's last result.
    :raises AnsibleConnectionFailure: when patience is over.
    """
    until = clock() + arguments["wait_s"] if arguments.get("wait_s") else None
    seen, lost_since = "", None
    while True:
        left = SLICE_S if until is None else max(0.01, min(SLICE_S, until - clock()))
        began = clock()
        try:
            result = execute(dict(arguments, state="followed", wait_s=left, seen=seen))
        except AnsibleConnectionFailure as error:
            if lost_since is None:
                show("the connection is lost, the job goes on; trying to reach it again for %d s" % patience_s)
                lost_since = began
            if clock() - lost_since >= patience_s:
                raise error
            sleep(RETRY_S)
            continue
        lost_since = None
        job = result.get("job") or {}
        if job.get("progress") and job["progress"] != seen:
            seen = job["progress"]
            show(seen)
        if job.get("state") != "running" or (until is not None and clock() >= until):
            return result
        if not arguments.get("pace_s"):
            sleep(max(0.0, PACE_S - (clock() - began)))
