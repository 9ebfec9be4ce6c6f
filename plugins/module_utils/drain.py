# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an instance has nothing to do any more, as its own metrics tell it. Pure."""

from __future__ import annotations

# An engine that answers nothing for so long may do anything; what is not known is not zero.
SILENCE_S = 15.0


class Wait(object):
    """One instance that is to become idle.

    :param float window_s: how long it must have been idle. :param float now: of a clock that only goes forward.
    """

    def __init__(self, window_s, now):
        self.window_s, self.idle_since, self.heard, self.last, self.error, self.over, self.stopped = window_s, None, now, None, None, False, False
        self.total, self.arrived = None, 0

    def see(self, load, now, stopped=False, paused=None):
        """Take what the metrics say: of vllm_metrics.load; stopped: whether nothing runs that could answer; paused: by whom, until the deadline."""
        if stopped:
            self.over = self.stopped = True
            return
        if paused:
            self.error, self.idle_since, self.heard = paused, None, now
            return
        if load.get("error"):
            self.error, self.idle_since = load["error"], None
            self.over = now - self.heard >= SILENCE_S
            return
        self.error, self.heard = None, now
        total = load["finished"] + load["running"] + load["waiting"]
        # What has begun since the look before: it was not there when the gateway said "out".
        new = max(0, total - self.total) if self.total is not None else 0
        self.total, self.arrived, self.last = total, self.arrived + new, load
        if load["running"] + load["waiting"] or new:
            self.idle_since = None
            return
        self.idle_since = now if self.idle_since is None else self.idle_since
        self.over = now - self.idle_since >= self.window_s

    def verdict(self):
        """{"drained", "running", "waiting", "still_arriving", "error"} when the wait is over, or its deadline has passed."""
        last = self.last or {"running": 0, "waiting": 0}
        drained = self.stopped or (self.over and not self.error)
        return {
            "drained": drained,
            "running": last["running"],
            "waiting": last["waiting"],
            "arrived": self.arrived,
            "still_arriving": not drained and self.arrived > 0,
            "error": None if drained or (self.last and not self.error) else self.error or "nobody answered",
        }
