# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Following a job over connections that come and go; the module's answers are a list, time is a number."""

from __future__ import annotations

import types

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import job
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import follow


class World:
    """Answers in their order, and a clock that only sleep and a call move."""

    def __init__(self, *answers, call_s=1.0):
        self.answers, self.now, self.call_s, self.calls, self.shown = list(answers), 0.0, call_s, [], []

    def execute(self, arguments):
        self.calls.append(arguments)
        self.now += self.call_s
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, **arguments):
        def sleep(seconds):
            self.now += seconds

        patience = arguments.pop("patience_s", 300)
        return follow(self.execute, self.shown.append, dict({"id": "one"}, **arguments), patience, lambda: self.now, sleep)


def running(progress):
    return {"job": {"state": "running", "progress": progress}}


DONE = {"job": {"state": "succeeded", "progress": "all"}}
LOST = AnsibleConnectionFailure("Failed to connect to the host via ssh")


def test_each_step_is_shown_once_and_the_next_call_waits_for_another():
    world = World(running("1 of 2"), running("1 of 2"), running("2 of 2"), DONE)
    assert world.follow() == DONE
    assert world.shown == ["1 of 2", "2 of 2", "all"]
    assert [call["seen"] for call in world.calls] == ["", "1 of 2", "1 of 2", "2 of 2"]
    assert all(call["state"] == "followed" and call["wait_s"] == 30 for call in world.calls)


def test_a_connection_that_drops_is_opened_again_and_told_once():
    world = World(running("1 of 2"), LOST, LOST, LOST, DONE)
    assert world.follow() == DONE
    assert [line for line in world.shown if "the connection is lost" in line] == [world.shown[1]]


def test_patience_ends_and_begins_anew_with_each_answer():
    world = World(LOST, running("a"), LOST, LOST)
    with pytest.raises(AnsibleConnectionFailure):
        world.follow(patience_s=60)
    assert 60 <= world.now < 120 and len([line for line in world.shown if "lost" in line]) == 2


def test_a_limit_returns_what_runs():
    world = World(running("1"), call_s=10)
    assert world.follow(wait_s=25)["job"]["state"] == "running"
    assert world.now == 30 and world.calls[-1]["wait_s"] == 5


def test_a_failure_of_the_module_ends_the_wait():
    world = World({"failed": True, "msg": "there is no job one on this host; start it first"})
    assert world.follow()["failed"] and len(world.calls) == 1


@pytest.fixture
def act(monkeypatch):
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})

    def run(check_mode=False, **args):
        made, shown, calls = object.__new__(job.ActionModule), [], []
        made._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        made._display = types.SimpleNamespace(display=shown.append)
        made._execute_module = lambda module_name, module_args, task_vars: calls.append(module_args) or DONE
        assert made.run(task_vars={"inventory_hostname": "a2-1"}) == DONE
        return shown, calls

    return run


def test_following_names_host_and_job(act):
    assert act(id="pull", state="followed")[0] == ["a2-1: pull: all"]
    assert act(id="pull", state="followed", quiet=True)[0] == []


def test_all_else_is_the_modules(act):
    assert act(id="pull", argv=["true"]) == ([], [{"id": "pull", "argv": ["true"]}])
    assert act(check_mode=True, id="pull", state="followed") == ([], [{"id": "pull", "state": "followed"}])
