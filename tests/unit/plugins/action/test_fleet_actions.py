# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions that run on the controller, over host variables that are a plain dictionary."""

from __future__ import annotations

import json
import tarfile
import types

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import diagnose, plan, record, status, survey


class HostVars(dict):
    """What Ansible hands to an action as hostvars."""

    raw_get = dict.__getitem__


@pytest.fixture
def act(monkeypatch):
    """Run an action with arguments and host variables; the result and what was shown."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})

    def run(module, hosts=None, execute=None, check_mode=False, **args):
        made = object.__new__(module.ActionModule)
        made._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        shown = []
        made._display = types.SimpleNamespace(display=lambda text, color=None: shown.append(text))
        made._execute_module = execute
        made._templar = None
        made.validate_argument_spec = lambda spec: (None, {key: args.get(key, rule.get("default")) for key, rule in spec.items()})
        hosts = HostVars(hosts or {})
        variables = {"hostvars": hosts, "ansible_play_hosts_all": list(hosts), "inventory_hostname": next(iter(hosts), None)}
        return made.run(task_vars=variables), "\n".join(shown)

    return run


def test_survey_hands_on_what_the_host_found(act):
    result, _shown = act(survey, execute=lambda **_kwargs: {"survey": {"schema": 1}}, request={})
    assert result["survey"]["schema"] == 1 and result["survey"]["controller_epoch_s"] > 0 and result["changed"] is False


def test_survey_of_a_host_that_refuses_the_login_says_so(act):
    def execute(**_kwargs):
        raise AnsibleConnectionFailure("root@192.0.2.1: Permission denied (publickey).")

    result, _shown = act(survey, execute=execute, request={})
    assert result["survey"]["unreachable"] and result["survey"]["kind"] == "authentication" and "failed" not in result


def test_plan_names_a_misspelt_variable_before_any_host_is_asked(act):
    result, shown = act(plan, {"a2-1": {"fleet_instnces": []}}, stage="intent")
    assert result["failed"] and "fleet_instnces" in result["msg"] and "no host was changed" in result["msg"]
    assert "fleet_instances" in shown


def test_plan_asks_every_host_of_the_play(act):
    result, _shown = act(plan, {"a2-1": {}, "a2-2": {}}, stage="intent")
    assert sorted(result["requests"]) == ["a2-1", "a2-2"] and result["changed"] is False


def test_status_has_a_row_for_a_host_that_was_not_asked(act):
    result, shown = act(status, {"a2-1": {}}, survey="looked", proof="proved")
    assert [row["host"] for row in result["instances"]] == ["a2-1"] and "was not asked" in shown


def test_record_keeps_the_failure_of_a_host(act, tmp_path):
    made = {"hosts": {"a2-1": {"instances": [{
        "name": "qwen", "model": "Qwen3-0.6B", "devices": ["/dev/davinci3"], "port": 8000, "patch_set": None}]}}}
    result, shown = act(record, {"a2-1": {"__fleet_failure": "no answer"}}, plan=made, differences={}, directory=str(tmp_path))
    assert result["failed_hosts"] == ["a2-1"] and "failed" in shown
    assert json.loads((tmp_path / "run.json").read_text())["instances"][0]["reason"] == "no answer"


FILES = {"one/journal.txt": "a line\n", "npu-smi.txt": "healthy\n"}


def test_diagnose_prints_what_the_host_said(act):
    result, shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"files": dict(FILES)}, instances=[])
    assert "a2-1: one\na line" in shown and result["files"] == FILES


def test_diagnose_packs_an_archive_that_only_its_owner_may_read(act, tmp_path):
    archive = tmp_path / "new" / "a2-1.tar.gz"
    result, _shown = act(diagnose, {"a2-1": {}}, execute=lambda **_kwargs: {"files": dict(FILES)}, instances=[], archive=str(archive),
                         survey={"host": {"api_key": "x", "note": "planted"}}, secrets=["planted"])
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
    given = {"stage": "complete", "built": []}
    assert act(plan, hosts, check_mode=True, **given)[0]["changed"] and not lock.exists()
    assert act(plan, hosts, **given)[0]["changed"] is True
    assert [f"r:5000/x:{host}:" in lock.read_text() for host in ("a2-1", "a3-1")] == [True, True]
    assert act(plan, hosts, **given)[0]["changed"] is False
