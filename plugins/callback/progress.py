# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line for each host, kept up to date while a playbook runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: One live line for each host
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Shows for each host what it is at, for how long, how long that usually takes where a rollout's journal tells, and what failed with its remedy.
  - Needs a terminal and the Python package C(rich) on the controller. Without either, in CI (the variable E(CI)) and with E(TERM=dumb) it prints one
    plain line for each host and task instead.
requirements:
  - E(ANSIBLE_STDOUT_CALLBACK=vllm_ascend.fleet.progress), or C(stdout_callback) in C(ansible.cfg)
  - rich 13 or later, for the live lines
options: {}
"""

EXAMPLES = r"""
# ANSIBLE_STDOUT_CALLBACK=vllm_ascend.fleet.progress ansible-playbook playbooks/upgrade.yml -i prod
"""

import atexit
import json
import os
import sys
import threading
import time

from ansible.plugins.callback import CallbackBase

try:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
    HAS_RICH = True
except ImportError:
    HAS_RICH = False

ALL = "all hosts"
REFRESH_S = 0.25
# Lines of the terminal that are left to what was said before.
LEFT = 6
RANK = {"failed": 0, "running": 1, "waits": 2, "ok": 3}


def seconds(value):
    """A time that a person would say."""
    return "%.0f s" % value if value < 90 else "%d min %02d s" % divmod(round(value), 60)


class Host:
    """What is known of one host, or of all of them for a task that runs once."""

    def __init__(self):
        self.state, self.stage, self.began, self.expected, self.message = "waits", "", None, None, ""

    def begin(self, stage, now, expected=None):
        if self.state != "failed":
            self.state, self.stage, self.began, self.expected, self.message = "running", stage, now, expected, ""

    def end(self, state, message=""):
        if self.state != "failed":
            self.state, self.message = state, message

    def words(self, now):
        """What stands beside the stage."""
        if self.state != "running":
            return self.message
        usual = " of about %s" % seconds(self.expected) if self.expected else ""
        return "%s%s" % (seconds(now - self.began), usual)


class Journal:
    """What a rollout's journal adds, read as it grows: the step of each host, and how long it usually takes."""

    def __init__(self, directory):
        self.path, self.at = os.path.join(str(directory), "journal.jsonl"), 0

    def news(self):
        """Whole events since the last call."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.at)
                text = stream.read()
        except OSError:
            return []
        whole = text[:text.rfind(b"\n") + 1]
        self.at += len(whole)
        events = []
        for line in whole.splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events


class State:
    """What the whole run is at."""

    def __init__(self):
        self.hosts, self.journal, self.task, self.play = {}, None, "", ""

    def host(self, name):
        return self.hosts.setdefault(name, Host())

    def read_journal(self, now):
        for event in self.journal.news() if self.journal else ():
            if event.get("event") == "step.begin" and event.get("host"):
                # What was written before this run looked may be long over.
                began = now - max(0.0, time.time() - event["time"])
                self.host(event["host"]).begin(event["step"], began, event.get("expected_s"))

    def rows(self, room, now):
        """([(name, host)] for so many lines, [how many more are in each state])."""
        order = sorted(self.hosts, key=lambda name: RANK[self.hosts[name].state])
        shown = order[:max(room, 1)]
        left = [self.hosts[name].state for name in order[len(shown):]]
        return [(name, self.hosts[name]) for name in shown], [(state, left.count(state)) for state in RANK if state in left]


class Plain:
    """One line for each host and task, for logs."""

    def __init__(self, display):
        self.display = display

    def headline(self, text):
        self.display("\n" + text)

    def ended(self, name, host, elapsed):
        took = ", %s" % seconds(elapsed) if elapsed is not None else ""
        self.display("%s: %s: %s%s%s" % (name, host.stage, host.state, took, ": " + host.message if host.message else ""),
                     color="red" if host.state == "failed" else None)

    def close(self):
        pass


class Screen:
    """Live lines below what is printed."""

    def __init__(self, state, console=None):
        self.state, self.lock, self.done = state, threading.RLock(), threading.Event()
        # Ansible puts a lock before each write to sys.stdout and holds it while it forks; whoever draws must never wait for that.
        self.console = console or Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"), highlight=False)
        self.outputs = sys.stdout, sys.stderr
        self.live = Live(get_renderable=self.render, console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop",
                         redirect_stderr=sys.stderr.isatty())
        self.live.start()
        # A fork while the other thread draws would leave a lock in the child that nobody ever opens.
        os.register_at_fork(before=self.lock.acquire, after_in_parent=self.lock.release, after_in_child=self.in_child)
        self.thread = threading.Thread(target=self.tick, daemon=True)
        self.thread.start()
        atexit.register(self.close)

    def in_child(self):
        """A worker has no lines of its own."""
        self.lock.release()
        if self.done.is_set():
            return
        self.done.set()
        sys.stdout, sys.stderr = self.outputs
        atexit.unregister(self.close)

    def tick(self):
        while not self.done.wait(REFRESH_S):
            with self.lock:
                if not self.done.is_set():
                    self.state.read_journal(time.monotonic())
                    self.live.refresh()

    def render(self):
        now = time.monotonic()
        shown, more = self.state.rows(self.console.height - LEFT, now)
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for _column in range(3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        styles = {"failed": "bold red", "running": "cyan", "waits": "dim", "ok": "green"}
        marks = {"failed": "x", "running": ">", "waits": " ", "ok": "."}
        for name, host in shown:
            style = styles[host.state]
            table.add_row(Text("%s %s" % (marks[host.state], name), style=style), Text(host.stage), Text(host.words(now), style=style))
        if more:
            table.add_row(Text("  and %s" % ", ".join("%d %s" % (count, state) for state, count in more), style="dim"), "", "")
        return table

    def headline(self, text):
        with self.lock:
            self.console.print(Text(text, style="bold"))

    def ended(self, name, host, elapsed):
        if host.state == "failed":
            with self.lock:
                self.console.print(Text("%s: %s: %s" % (name, host.stage, host.message), style="bold red"))

    def close(self):
        """Leave the terminal as it was."""
        if not self.done.is_set():
            self.done.set()
            with self.lock:
                self.live.stop()


def live_wanted():
    """Whether somebody watches a terminal that can show it."""
    return HAS_RICH and sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"


class CallbackModule(CallbackBase):
    """See the documentation of vllm_ascend.fleet.progress."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "vllm_ascend.fleet.progress"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.state, self.view, self.failures = State(), None, {}

    # -- what Ansible tells --------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook):
        self.view = Screen(self.state) if live_wanted() else Plain(self._display.display)

    def v2_playbook_on_play_start(self, play):
        name = play.get_name().strip()
        if name != self.state.play:
            self.state.play = name
            self._screen().headline(name)

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.state.task = short_name(task)

    def v2_playbook_on_handler_task_start(self, task):
        self.state.task = short_name(task)

    def v2_runner_on_start(self, host, task):
        self.state.host(self._name(host, task)).begin(short_name(task), time.monotonic())

    def v2_runner_on_ok(self, result):
        content = content_of(result)
        if content.get("directory") and isinstance(content.get("batches"), list):
            self.state.journal = Journal(content["directory"])
        self._end(result, "ok", "changed" if content.get("changed") else "")

    def v2_runner_on_skipped(self, result):
        host = self.state.host(self._name(host_of(result), task_of(result)))
        host.end("ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if ignore_errors:
            self._end(result, "ok", "failed, which this playbook allows")
            return
        content = content_of(result)
        self._end(result, "failed", " ".join(str(content.get("msg") or content.get("censored") or "failed without a message").split()))

    def v2_runner_on_unreachable(self, result):
        self._end(
            result, "failed", "cannot be reached: %s; playbooks/preflight.yml says at which step" % " ".join(str(content_of(result).get("msg") or "").split())
        )

    def v2_on_file_diff(self, result):
        found = content_of(result).get("diff")
        if found and content_of(result).get("changed"):
            text = self._get_diff(found)
            if text:
                self._display.display(text)

    def v2_playbook_on_no_hosts_matched(self):
        self._screen().headline("no hosts matched")

    def v2_playbook_on_stats(self, stats):
        self._screen().close()
        hosts = sorted(stats.processed)
        bad = [host for host in hosts if stats.failures.get(host) or stats.dark.get(host)]
        changed = sum(1 for host in hosts if stats.changed.get(host))
        self._display.display(
            "\n%d hosts: %d ok, %d failed; %d changed" % (len(hosts), len(hosts) - len(bad), len(bad), changed), color="red" if bad else "green"
        )
        for host in bad:
            self._display.display("%s: %s" % (host, self.failures.get(host, "see above")), color="red")

    # -- and what is made of it ----------------------------------------------------------------------------------------

    def _screen(self):
        if self.view is None:
            self.v2_playbook_on_start(None)
        return self.view

    @staticmethod
    def _name(host, task):
        return ALL if getattr(task, "run_once", False) is True else host.get_name()

    def _end(self, result, state, message):
        host, task = host_of(result), task_of(result)
        name = self._name(host, task)
        line = self.state.host(name)
        if state == "failed":
            # What a rescue brings back begins again with its next task.
            self.failures[host.get_name()] = "%s: %s" % (short_name(task), message)
        elapsed = time.monotonic() - line.began if line.began is not None else None
        line.stage = short_name(task)
        line.end(state, message)
        self._screen().ended(name, line, elapsed)
        if name == ALL:
            del self.state.hosts[ALL]
        elif state == "failed" and rescued(task):
            line.state = "waits"


def rescued(task):
    """Whether a failure of this task is caught by a block around it."""
    block = getattr(task, "_parent", None)
    while block is not None:
        if getattr(block, "rescue", None):
            return True
        block = getattr(block, "_parent", None)
    return False


def short_name(task):
    """A task without the name of its role."""
    return task.get_name().strip().rpartition(" : ")[2]


def host_of(result):
    """What ansible-core 2.19 calls host, and earlier ones _host."""
    return result.host if hasattr(result, "host") else result._host


def task_of(result):
    """As :func:`host_of`."""
    return result.task if hasattr(result, "task") else result._task


def content_of(result):
    """As :func:`host_of`."""
    return result.result if hasattr(result, "result") else result._result
