# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of module image: which work is a job, and what becomes of its end."""

from __future__ import annotations

import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import image

RUNNING = {"job": {"state": "running", "progress": "1 MB", "folder": "/f", "id": "image-1", "log": [], "reason": None, "result": None}}
LEFT = {"changed": True, "digest": "sha256:1", "liars": [{"reference": "m/n:1", "digest": "sha256:2"}]}


@pytest.fixture
def act(monkeypatch):
    """Run the action; the host's answers are a list. Returns (result, lines, warnings, entries that were asked)."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def run(*answers, check_mode=False, **args):
        made, answers, lines, warnings, asked = object.__new__(image.ActionModule), list(answers), [], [], []
        made._task = types.SimpleNamespace(args=dict({"reference": "r/n:1"}, **args), check_mode=check_mode)
        made._display = types.SimpleNamespace(display=lines.append, warning=warnings.append)
        made.validate_argument_spec = lambda spec, **more: (None, dict({name: value.get("default") for name, value in spec.items()}, **made._task.args))
        made._execute_module = lambda module_name, module_args, task_vars: asked.append("module") or {"changed": False}
        monkeypatch.setattr(image.lean, "execute", lambda action, entry, given, task_vars: asked.append(entry) or answers.pop(0))
        return made.run(task_vars={"inventory_hostname": "a2-1"}), lines, warnings, asked

    return run


def test_present_costs_one_question(act):
    result, lines, dummy, asked = act({"changed": False, "job": None})
    assert result == {"changed": False} and lines == [] and asked == ["image_job:begin"]


def test_a_pull_is_followed_and_its_result_is_the_tasks(act):
    ended = {"job": dict(RUNNING["job"], state="succeeded", progress="2 MB", result=LEFT)}
    result, lines, warnings, asked = act(RUNNING, RUNNING, ended)
    assert result == LEFT and lines == ["a2-1: 1 MB", "a2-1: 2 MB"] and asked == ["image_job:begin", "job_host:answer", "job_host:answer"]
    assert warnings == ["a2-1: mirror put aside: m/n:1 announces sha256:2 instead of sha256:1"]


@pytest.mark.parametrize("answers, words", [
    ([{"failed": True, "msg": "no container engine"}], "a2-1: no container engine"),
    ([RUNNING, {"job": dict(RUNNING["job"], state="failed", result={"failed": True, "msg": "no mirror"})}], "a2-1: no mirror"),
    ([RUNNING, {"job": dict(RUNNING["job"], state="lost", reason="the host was started anew while it ran")}],
     "a2-1: job image-1: the host was started anew while it ran; see /f/log on this host"),
])
def test_a_failure_is_told_with_its_host(act, answers, words):
    result = act(*answers)[0]
    assert result["failed"] and result["msg"] == words


def test_what_pulls_nothing_is_the_modules(act):
    assert act(check_mode=True)[3] == ["module"] and act(state="absent")[3] == ["module"]


def test_an_image_of_a_bundle_is_sent_and_loaded(act, monkeypatch):
    sent = []
    monkeypatch.setattr(image.bundling, "send", lambda action, options, given, names, task_vars: sent.append((options["reference"], names)) or {})
    digest, given = "sha256:" + "a" * 64, {"folder": "/b", "blobs": {"c" * 64: 1}}
    running = {"job": dict(RUNNING["job"], state="running")}
    done = {"job": dict(RUNNING["job"], state="succeeded", result={"changed": True, "digest": digest})}
    result, dummy, dummy, asked = act({"blobs": ["c" * 64]}, running, done, reference="r:1/n:1", digest=digest, bundle=given, registry_password="s3cret")
    assert result["changed"] and asked[:2] == ["bundle_host:lacking", "image_job:begin"]
    assert sent == [("127.0.0.1:5380/n@" + digest, ["c" * 64])]
    result, dummy, dummy, asked = act({"changed": False, "blobs": None}, reference="r:1/n:1", digest=digest, bundle=given)
    assert asked == ["bundle_host:lacking"] and not result["changed"] and len(sent) == 1
