# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions that run on the controller, over host variables that are a plain dictionary."""

from __future__ import annotations

import json
import tarfile
import types

import pytest
from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import diagnose, plan, record, status, survey
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, reaching, workspace


class HostVars(dict):
    """What Ansible hands to an action as hostvars."""

    raw_get = dict.__getitem__


@pytest.fixture
def act(monkeypatch, tmp_path_factory):
    """Run an action with arguments and host variables; the result and what was shown."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path_factory.mktemp("run")))

    def run(module, hosts=None, execute=None, check_mode=False, **args):
        made = object.__new__(module.ActionModule)
        made._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        made._play_context = made._templar = None
        shown = []
        made._display = types.SimpleNamespace(display=lambda text, color=None: shown.append(text))
        made._execute_module = execute
        made._templar = None
        made.validate_argument_spec = lambda spec: (None, {key: args.get(key, rule.get("default")) for key, rule in spec.items()})
        hosts = HostVars(hosts or {})
        variables = {"hostvars": hosts, "ansible_play_hosts_all": list(hosts), "inventory_hostname": next(iter(hosts), None)}
        return made.run(task_vars=variables), "\n".join(shown)

    return run


@pytest.fixture
def answers(monkeypatch):
    """What each host says when it is looked at."""
    said = {}
    monkeypatch.setattr(fan_out, "ask", lambda action, requests, entry, hostvars, deadline_s: {
        host: dict({"proof": {}, "load": {}}, **said[host]) for host in requests})
    monkeypatch.setattr(reaching, "reach", lambda hosts, *_more: {host: {"status": "pass", "findings": [], "sure": False, "kind": None} for host in hosts})
    return said


def test_survey_keeps_what_each_host_found_for_later_tasks(act, answers):
    answers["a2-1"] = {"survey": {"schema": 1, "instances": {"one": {"release": "r", "manifest": {"model": "M"}}}}, "asked_epoch_s": [4.0, 6.0]}
    answers["a2-2"] = {"survey": {"schema": 1, "instances": {}}}
    result, _shown = act(survey, {"a2-2": {}, "a2-1": {}}, request={})
    assert result["installed"] == {"a2-2": [], "a2-1": ["one"]} and result["known"] == ["one"] and result["changed"] is False
    kept = workspace.load("surveys")
    assert list(kept) == ["a2-2", "a2-1"] and kept["a2-1"]["controller_epoch_s"] == 5.0


def test_survey_of_a_host_that_refuses_the_login_says_so(act, answers):
    answers["a2-1"] = {"unreachable": True, "msg": "root@192.0.2.1: Permission denied (publickey)."}
    result, _shown = act(survey, {"a2-1": {}}, request={})
    assert "SSH refuses the login" in result["unreachable_hosts"]["a2-1"] and "failed" not in result
    assert workspace.load("surveys")["a2-1"]["kind"] == "authentication"


def test_plan_names_a_misspelt_variable_before_any_host_is_asked(act):
    result, shown = act(plan, {"a2-1": {"fleet_instnces": []}}, stage="intent")
    assert result["failed"] and "fleet_instnces" in result["msg"] and "no host was changed" in result["msg"]
    assert "fleet_instances" in shown


def test_plan_asks_every_host_of_the_play(act):
    result, _shown = act(plan, {"a2-1": {}, "a2-2": {}}, stage="intent")
    assert sorted(workspace.load("requests")) == ["a2-1", "a2-2"] and result["changed"] is False


def test_status_has_a_row_for_a_host_that_does_not_answer(act, tmp_path):
    workspace.save("surveys", {"a2-1": {"unreachable": True, "error": "no route"}})
    workspace.save("proof", {})
    result, shown = act(status, {"a2-1": {}}, report_directory=str(tmp_path))
    assert [row["host"] for row in result["instances"]] == ["a2-1"] and "no route" in shown


def test_status_without_a_survey_is_one_line(act):
    assert act(status, {"a2-1": {}})[0]["msg"] == "no earlier task of this run left surveys; run the whole playbook"


def test_record_keeps_the_failure_of_a_host(act, tmp_path):
    workspace.save("plan", {"hosts": {"a2-1": {"instances": [{
        "name": "qwen", "model": "Qwen3-0.6B", "devices": ["/dev/davinci3"], "port": 8000, "patch_set": None}]}}})
    workspace.save("differences", {})
    workspace.save("run", {"directory": str(tmp_path)})
    result, shown = act(record, {"a2-1": {"__fleet_failure": "no answer"}})
    assert result["failed_hosts"] == ["a2-1"] and "failed" in shown
    assert json.loads((tmp_path / "run.json").read_text())["instances"][0]["reason"] == "no answer"
    assert json.loads((tmp_path / "report.json").read_text())["verdict"]["where"] == "a2-1" and "no answer" in (tmp_path / "index.html").read_text()


FILES = {"one/journal.txt": "a line\n", "npu-smi.txt": "healthy\n"}


def test_diagnose_prints_what_the_host_said(act):
    result, shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"files": dict(FILES)}, instances=[])
    assert "a2-1: one\na line" in shown and result["files"] == FILES


def test_diagnose_packs_an_archive_that_only_its_owner_may_read(act, tmp_path):
    archive = tmp_path / "new" / "a2-1.tar.gz"
    workspace.save("surveys", {"a2-1": {"host": {"api_key": "x", "note": "planted"}}})
    result, _shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"files": dict(FILES)}, instances=[], archive=str(archive),
                         secrets=["planted"])
    assert result["archive"] == str(archive) and "files" not in result
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as packed:
        assert sorted(packed.getnames()) == ["a2-1/npu-smi.txt", "a2-1/one/journal.txt", "a2-1/survey.json"]
        assert b"planted" not in packed.extractfile("a2-1/survey.json").read()


def test_diagnose_says_why_it_cannot_write(act, tmp_path):
    (tmp_path / "file").write_text("")
    result, _shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"files": dict(FILES)}, archive=str(tmp_path / "file" / "x.tar.gz"))
    assert result["failed"] and "cannot be written on the controller" in result["msg"]


def test_diagnose_hands_on_a_failure(act):
    result, _shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"failed": True, "msg": "no"}, archive="/x")
    assert result == {"failed": True, "msg": "no"}


def test_plan_learns_from_every_builder(act, tmp_path):
    lock = tmp_path / "images.lock.yml"
    hosts = {host: {"fleet_images_lock": str(lock), "__acquire_built": {"results": [
        {"target": f"r:5000/x:{host}", "origin": f"q/x:{host}", "digest": "sha256:1", "base_digest": "sha256:2"}, {"skipped": True}]}}
        for host in ("a2-1", "a3-1")}
    hosts["a2-2"] = {"fleet_images_lock": str(lock), "__acquire_built": {"skipped": True, "results": []}}
    given = {"stage": "complete"}
    workspace.save("surveys", {})
    workspace.save("run", {"directory": str(tmp_path), "nonce": "0", "overrides": {}})
    assert act(plan, hosts, check_mode=True, **given)[0]["changed"] and not lock.exists()
    assert act(plan, hosts, **given)[0]["changed"] is True
    assert [f"r:5000/x:{host}:" in lock.read_text() for host in ("a2-1", "a3-1")] == [True, True]
    assert act(plan, hosts, **given)[0]["changed"] is False
