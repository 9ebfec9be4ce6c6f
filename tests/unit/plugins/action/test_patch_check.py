# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""patch_check from its arguments to its result and its report."""

from __future__ import annotations

import json
import shutil
import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import patch_check

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def act(monkeypatch, tmp_path):
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    sets = tmp_path / "catalogue" / "patch_sets"
    sets.mkdir(parents=True)
    (sets / "one.yml").write_text("name: one\npatches:\n  - {file: 1.patch, tree: /src/one, sha256: null}\n")
    (tmp_path / "1.patch").write_bytes(b"--- a/m\n+++ b/m\n@@ -1 +1 @@\n-a\r\n+b\r\n")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "m").write_bytes(b"a\r\n")

    def run(**args):
        made = object.__new__(patch_check.ActionModule)
        args = dict({"patch_set": "one", "patch_directory": str(tmp_path), "trees": str(tmp_path), "images_lock": str(tmp_path / "lock.yml"),
                     "catalogue_directories": [str(tmp_path / "catalogue")], "report_directory": str(tmp_path / "reports")}, **args)
        made._task = types.SimpleNamespace(args=args, check_mode=False)
        made._display = types.SimpleNamespace(display=lambda text, color=None: None)
        made.validate_argument_spec = lambda spec: (None, {key: args.get(key, rule.get("default")) for key, rule in spec.items()})
        return made.run(task_vars={})

    run.folder = tmp_path
    return run


def test_a_set_that_applies(act):
    result = act()
    assert "failed" not in result and result["changed"] is False
    with open(result["report"], encoding="utf-8") as stream:
        kept = json.load(stream)
    assert kept["patches"][0]["verdict"] == "applies" and kept["patches"][0]["round_trip"] is True and len(kept["id"]) == 12
    assert (act.folder / "one" / "m").read_bytes() == b"a\r\n"


def test_a_conflict_fails_and_the_report_is_there_all_the_same(act):
    (act.folder / "one" / "m").write_bytes(b"x\r\n")
    result = act()
    assert result["failed"] and "m hunk 1 (line 1)" in result["msg"] and result["report"] in result["msg"]
    assert json.loads((act.folder / result["report"]).read_text())["patches"][0]["files"][0]["found"] == ["x\\r"]


@pytest.mark.parametrize("args, words", [
    ({"patch_set": "two"}, "there is no patch set 'two'"),
    ({"patch_directory": "/nonexistent"}, "patch /nonexistent/1.patch cannot be read"),
    ({"trees": "/nonexistent"}, "unpack them there"),
    ({"catalogue_directories": ["/nonexistent"]}, "the catalogue directory /nonexistent does not exist"),
    ({"trees": ""}, "patch set one names no base image"),
])
def test_what_cannot_be_checked_is_one_line(act, args, words):
    result = act(**args)
    assert result["failed"] and words in result["msg"] and "\n" not in result["msg"]


def test_a_patch_is_held_to_the_lock_file(act):
    (act.folder / "lock.yml").write_text("patches: {1.patch: '%s'}\n" % ("0" * 64))
    assert "wanted " + "0" * 64 in act()["msg"]
