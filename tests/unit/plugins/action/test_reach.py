# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage before the survey, and what the survey makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import reach
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, looking, reaching, ssh_target

GOOD = {"status": "pass", "cells": ["ok"] * 7, "findings": [], "kind": None, "sure": False}
FACTS = {"host": "a2-2", "hostname": "192.0.2.2", "port": 22, "addresses": ["192.0.2.2"], "error": "Connection refused"}
REFUSED = reachability.judge(FACTS, (3, 8), "2.19.4")


def act(module, arguments, execute=None, hosts=("a2-1", "a2-2")):
    action = object.__new__(module.ActionModule)
    shown, notes = [], []
    action._display = types.SimpleNamespace(display=shown.append, vv=notes.append)
    action._task, action._play_context = types.SimpleNamespace(args=arguments, async_val=0), None
    action.validate_argument_spec = lambda spec: (None, {name: arguments.get(name, rule.get("default")) for name, rule in spec.items()})
    action._execute_module = execute
    task_vars = {"hostvars": dict.fromkeys(hosts, {}), "ansible_play_hosts_all": list(hosts), "inventory_hostname": "a2-2"}
    return action.run(task_vars=task_vars), shown, notes


@pytest.fixture(autouse=True)
def probing(monkeypatch):
    asked = []

    def probe(hosts, hostvars, task, play_context, deadline_s):
        asked.append((hosts, deadline_s))
        return {host: REFUSED if host == "a2-2" else GOOD for host in hosts}
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(reaching, "reach", probe)
    return asked


def test_all_hosts_of_the_play_are_asked_and_shown(probing, tmp_path):
    result, shown, _notes = act(reach, {"directory": str(tmp_path)})
    assert probing == [(["a2-1", "a2-2"], 10.0)]
    assert result["unreachable_hosts"] == ["a2-2"] and result["changed"] is False
    assert "Connection refused" in shown[0] and "2 hosts: 1 pass, 1 fail, 0 unknown" in shown[0]
    assert json.loads((tmp_path / "reach.json").read_text())["hosts"] == {"a2-1": "pass", "a2-2": "fail"}


def test_quiet_shows_nothing():
    assert act(reach, {"quiet": True})[1] == []


def test_a_host_that_is_not_in_the_inventory_is_named():
    assert "a2-9" in act(reach, {"hosts": ["a2-9"]})[0]["msg"]


def test_a_missing_library_is_one_line(monkeypatch):
    def missing(*arguments):
        raise ssh_target.ProbeError("paramiko is not installed")
    monkeypatch.setattr(reaching, "reach", missing)
    assert act(reach, {})[0] == {"failed": True, "msg": "paramiko is not installed"}


def looked(answer, reach=None):
    """The survey of a2-2 after it said that, or was not asked."""
    asked = []

    def ask(action, requests, entry, hostvars, deadline_s):
        asked.extend(requests)
        return {host: dict({"proof": {}, "load": {}}, **answer) for host in requests}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "ask", ask)
        notes = []
        action = types.SimpleNamespace(_display=types.SimpleNamespace(vv=notes.append), _task=None, _play_context=None)
        found = looking.look(action, {"hostvars": {"a2-2": {}}}, ["a2-2"], reach={"a2-2": reach} if reach else None)[0]["a2-2"]
    return found, asked, notes


@pytest.fixture(autouse=True)
def own_workspace(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


UNREACHABLE = {"unreachable": True, "msg": "ssh: connect to host 192.0.2.2 port 22: Connection refused"}


def test_a_host_that_surely_fails_is_not_tried(probing):
    found, asked, _notes = looked({}, REFUSED)
    assert found["unreachable"] and found["kind"] == "port" and "reach.port" in found["error"]
    assert probing == [] and asked == []


def test_what_ansible_gets_through_to_counts_more_than_the_probe(probing):
    found = looked({"survey": {"schema": 1}}, dict(REFUSED, sure=False))[0]
    assert found["schema"] == 1 and "controller_epoch_s" in found


def test_a_survey_that_answers_asks_no_probe(probing):
    looked({"survey": {"schema": 1}})
    assert probing == []


def test_only_a_host_without_survey_is_asked_why(probing):
    found = looked(UNREACHABLE)[0]
    assert probing == [(["a2-2"], looking.REACH_DEADLINE_S)]
    assert "systemctl enable --now sshd" in found["remedy"]


@pytest.mark.parametrize("error", [ssh_target.ProbeError("no paramiko"), AnsibleError("no such option")])
def test_without_a_probe_ansibles_own_words_count(error, monkeypatch):
    def missing(*arguments):
        raise error
    monkeypatch.setattr(reaching, "reach", missing)
    found, _asked, notes = looked({"unreachable": True, "msg": "Permission denied (publickey)."})
    assert found["kind"] == "authentication" and str(error) in notes[0]


def test_a_probe_that_finds_nothing_leaves_ansibles_words(monkeypatch):
    monkeypatch.setattr(reaching, "reach", lambda *arguments: {"a2-2": GOOD})
    assert looked({"failed": True, "msg": "No space left on device"})[0]["kind"] == "disk"


def test_a_run_that_asks_nobody_does_not_load_paramiko():
    code = "import sys; from ansible_collections.vllm_ascend.fleet.plugins.action import reach, survey; print('paramiko' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    assert run.stdout.strip() == "False"
