# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All files or none, in a folder of ours."""

from __future__ import annotations

import json
import os
import stat
import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import file_set as action
from ansible_collections.vllm_ascend.fleet.plugins.modules import file_set as module


def run(path, check_mode=False, **given):
    params = dict({"directory": str(path), "files": {}, "keep": [], "prune": False, "validate": {}, "mode": "0644"}, **given)
    return module.run(params, check_mode)


def tree(path):
    return sorted(os.path.relpath(os.path.join(folder, name), str(path)) for folder, dummy, names in os.walk(str(path)) for name in names)


def test_four_steps(tmp_path):
    path, files = tmp_path / "new", {"rules/a.yml": "a\n", "b.json": [{"x": 1}]}
    check = run(path, True, files=files, prune=True)
    assert check["changed"] and not path.exists()
    real = run(path, files=files, prune=True)
    assert real["actions"] == check["actions"] == ["write b.json", "write rules/a.yml"] and real["diff"] == check["diff"]
    assert not run(path, True, files=files, prune=True)["changed"] and not run(path, files=files, prune=True)["changed"]
    assert json.loads((path / "b.json").read_text()) == [{"x": 1}] and tree(path) == [module.MARKER, "b.json", "rules/a.yml"]
    assert stat.S_IMODE(os.stat(str(path / "b.json")).st_mode) == 0o644


def test_what_is_not_named_any_more_goes_and_what_is_kept_stays(tmp_path):
    run(tmp_path / "n", files={"a": "1", "b": "2", "c": "3"}, prune=True)
    done = run(tmp_path / "n", files={"a": "1"}, keep=["b"], prune=True)
    assert done["actions"] == ["remove c"] and done["diff"][0]["before"] == "3" and tree(tmp_path / "n") == [module.MARKER, "a", "b"]


def test_a_folder_of_others_is_never_pruned(tmp_path):
    (tmp_path / "theirs.yml").write_text("x")
    with pytest.raises(module.FileSetError, match="holds files that are not ours \\(theirs.yml\\); give another folder"):
        run(tmp_path, files={"a": "1"}, prune=True)
    assert run(tmp_path, files={"a": "1"})["actions"] == ["write a"] and tree(tmp_path) == ["a", "theirs.yml"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", module.MARKER])
def test_nothing_leaves_the_folder(tmp_path, path):
    with pytest.raises(module.FileSetError, match="is no path below the folder"):
        run(tmp_path, files={path: "x"})
    with pytest.raises(module.FileSetError, match="no file mode"):
        run(tmp_path, files={"a": "x"}, mode="rw")


def test_when_a_tool_objects_nothing_is_written(tmp_path):
    run(tmp_path / "n", files={"rules/a.yml": "good\n", "b": "1"}, prune=True)
    checks = {"rules/*.yml": ["/bin/sh", "-c", 'grep -q good "$1" || { echo "$1: bad rule" >&2; exit 3; }', "sh", "{file}"], "other/*": ["false"]}
    for check_mode in (True, False):
        with pytest.raises(module.FileSetError, match=r"objects to rules/a.yml: rules/a.yml: bad rule; nothing was written"):
            run(tmp_path / "n", check_mode, files={"rules/a.yml": "wrong\n", "b": "2"}, prune=True, validate=checks)
    assert (tmp_path / "n" / "b").read_text() == "1"
    assert run(tmp_path / "n", files={"rules/a.yml": "good too\n"}, prune=True, validate=checks)["unchecked"] == []


def test_a_tool_that_is_not_there_is_told(tmp_path):
    assert run(tmp_path, files={"a": "x"}, validate={"a": ["no-such-tool", "{file}"]})["unchecked"] == ["no-such-tool"]


@pytest.fixture
def act(monkeypatch):
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})

    def call(source, **args):
        made, given = object.__new__(action.ActionModule), []
        made._task = types.SimpleNamespace(args=args, check_mode=False)
        made._find_needle = lambda folder, name: str(source)
        made._execute_module = lambda module_name, module_args, task_vars: given.append(module_args) or {"changed": True}
        return made.run(task_vars={}), given

    return call


def test_sources_reach_the_module_as_texts_with_their_braces(act, tmp_path):
    (tmp_path / "r.yml").write_text('for: "@down_for@"\nsummary: "{{ $labels.host }}"\n')
    result, (given,) = act(tmp_path / "r.yml", directory="/d", sources={"rules/r.yml": {"file": "r.yml", "replace": {"down_for": "2m"}}}, files={"a": "b"})
    assert result["changed"] and given == {"directory": "/d", "files": {"a": "b", "rules/r.yml": 'for: "2m"\nsummary: "{{ $labels.host }}"\n'}}


@pytest.mark.parametrize("values, words", [({}, "no value for @down_for@"), ({"down_for": 1, "up_for": 2}, "there is no @up_for@ in it")])
def test_a_name_without_a_value_or_a_place_is_refused(act, tmp_path, values, words):
    (tmp_path / "r.yml").write_text("for: @down_for@\n")
    result, given = act(tmp_path / "r.yml", directory="/d", sources={"r.yml": {"file": "r.yml", "replace": values}})
    assert result["failed"] and words in result["msg"] and given == []


def test_a_source_that_is_not_there_is_told(act, tmp_path):
    result, given = act(tmp_path / "missing", directory="/d", sources={"r.yml": {"file": "r.yml"}})
    assert result["failed"] and "r.yml cannot be read on the controller" in result["msg"]
