# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live lines: what they say of each host, and the plain ones that stand for them in a log."""

from __future__ import annotations

import io
import json
import sys
import time
import types

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.callback import progress


def host(name):
    return types.SimpleNamespace(get_name=lambda: name)


def task(name, run_once=False, parent=None):
    return types.SimpleNamespace(get_name=lambda: "role : " + name, run_once=run_once, _parent=parent)


def result(name, what, old=False, **content):
    """What ansible-core hands over, as 2.19 does, or as those before it."""
    fields = {"host": host(name), "task": what, "result": content}
    return types.SimpleNamespace(**({"_" + key: value for key, value in fields.items()} if old else fields))


@pytest.fixture
def plain(monkeypatch):
    """The callback without a terminal, and what it printed."""
    monkeypatch.setenv("CI", "true")
    made, said = progress.CallbackModule(), []
    made._display = types.SimpleNamespace(display=lambda text, color=None: said.append(text))
    made.v2_playbook_on_start(None)
    return made, said


@pytest.mark.parametrize("old", [False, True], ids=["2.19", "2.16"])
def test_each_host_and_task_is_one_line(plain, old):
    callback, said = plain
    work = task("Pull")
    callback.v2_runner_on_start(host("a2-1"), work)
    callback.v2_runner_on_ok(result("a2-1", work, old, changed=True))
    callback.v2_runner_on_start(host("a2-2"), work)
    callback.v2_runner_on_failed(result("a2-2", work, old, msg="no space left;\n remedy: free the disk"))
    callback.v2_runner_on_unreachable(result("a2-3", work, old, msg="timed out"))
    assert said[0] == "a2-1: Pull: ok, 0 s: changed"
    assert said[1] == "a2-2: Pull: failed, 0 s: no space left; remedy: free the disk"
    assert said[2].startswith("a2-3: Pull: failed: cannot be reached: timed out; playbooks/preflight.yml")


def test_the_end_names_every_host_that_failed(plain):
    callback, said = plain
    callback.v2_runner_on_failed(result("a2-2", task("Prove"), msg="no answer; look at its journal"))
    callback.v2_playbook_on_stats(types.SimpleNamespace(processed={"a2-1": 1, "a2-2": 1}, failures={"a2-2": 1}, dark={}, changed={"a2-1": 1}))
    assert said[-2:] == ["\n2 hosts: 1 ok, 1 failed; 1 changed", "a2-2: Prove: no answer; look at its journal"]


def test_a_task_that_runs_once_is_of_all_hosts(plain):
    callback, said = plain
    callback.v2_runner_on_start(host("a2-1"), task("Plan", True))
    callback.v2_runner_on_ok(result("a2-1", task("Plan", True)))
    assert said[-1].startswith("all hosts: Plan: ok") and not callback.state.hosts


def test_what_a_block_rescues_is_not_the_hosts_end(plain):
    callback, _said = plain
    inner = task("Change", parent=types.SimpleNamespace(rescue=[1], _parent=None))
    callback.v2_runner_on_failed(result("a2-1", inner, msg="no"))
    assert callback.state.hosts["a2-1"].state == "waits"
    callback.v2_runner_on_start(host("a2-1"), task("Let it in again"))
    assert callback.state.hosts["a2-1"].state == "running"


def test_a_host_that_failed_stays_failed(plain):
    callback, _said = plain
    callback.v2_runner_on_failed(result("a2-1", task("Change"), msg="no"))
    callback.v2_runner_on_start(host("a2-1"), task("Next"))
    assert (callback.state.hosts["a2-1"].state, callback.state.hosts["a2-1"].message) == ("failed", "no")


def test_a_journal_tells_the_step_and_its_usual_time(tmp_path):
    state = progress.State()
    state.journal = progress.Journal(tmp_path)
    state.read_journal(0.0)
    event = {"event": "step.begin", "host": "a2-1", "step": "drain", "time": time.time(), "expected_s": 8.0}
    (tmp_path / "journal.jsonl").write_text(json.dumps(event) + "\n" + json.dumps(dict(event, host="a2-2"))[:20])
    state.read_journal(100.0)
    assert list(state.hosts) == ["a2-1"] and state.hosts["a2-1"].stage == "drain"
    assert state.hosts["a2-1"].words(103.0) == "3 s of about 8 s"
    (tmp_path / "journal.jsonl").write_text(json.dumps(event) + "\n" + json.dumps(dict(event, host="a2-2")) + "\n")
    state.read_journal(100.0)
    assert list(state.hosts) == ["a2-1", "a2-2"]


def test_a_rollout_that_begins_names_its_journal(plain, tmp_path):
    callback, _said = plain
    callback.v2_runner_on_ok(result("a2-1", task("Take the lease", True), directory=str(tmp_path), batches=[["a2-1"]]))
    assert callback.state.journal.path == str(tmp_path / "journal.jsonl")


def test_what_failed_comes_first_and_the_rest_is_counted():
    state = progress.State()
    for number in range(30):
        state.host("h%d" % number).begin("x", 0.0)
    state.host("h29").end("failed", "no")
    shown, more = state.rows(5, 1.0)
    assert [name for name, _host in shown] == ["h29", "h0", "h1", "h2", "h3"] and more == [("running", 25)]


def test_the_lines_of_a_terminal(monkeypatch):
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), force_terminal=True, width=100, height=20)
    state, outputs = progress.State(), (sys.stdout, sys.stderr)
    screen = progress.Screen(state, console)
    try:
        state.host("a2-1").begin("Prove", time.monotonic() - 5, 18.0)
        state.host("a2-2").begin("Prove", time.monotonic())
        state.host("a2-2").end("failed", "[no] answer")
        with console.capture() as seen:
            console.print(screen.render())
        screen.ended("a2-2", state.host("a2-2"), 1.0)
    finally:
        screen.close()
    lines = seen.get().splitlines()
    assert "a2-2" in lines[0] and "[no] answer" in lines[0] and "5 s of about 18 s" in lines[1]
    assert (sys.stdout, sys.stderr) == outputs and not screen.thread.join(5) and not screen.thread.is_alive()
    assert console.file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in console.file.getvalue(), "the cursor is shown again"


@pytest.mark.parametrize("name, value", [("CI", "true"), ("TERM", "dumb")])
def test_lines_stay_plain_where_nobody_watches(monkeypatch, name, value):
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert progress.live_wanted() is progress.HAS_RICH
    monkeypatch.setenv(name, value)
    assert progress.live_wanted() is False


def test_lines_stay_plain_without_rich(monkeypatch):
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(progress, "HAS_RICH", False)
    assert progress.live_wanted() is False
