# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of derived_image: nothing travels before it is proven, and only when it is needed."""
from __future__ import annotations

import tarfile
import types

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import derived_image

PATCH = b"--- a/m\n+++ b/m\n@@ -1 +1 @@\n-a\r\n+b\r\n"


@pytest.fixture
def action(monkeypatch, tmp_path):
    """An action whose connection and modules are lists."""
    shell = types.SimpleNamespace(tmpdir=None, join_path=lambda *parts: "/".join(parts), quote=lambda text: "'%s'" % text)
    made = object.__new__(derived_image.ActionModule)
    made._connection = types.SimpleNamespace(_shell=shell)
    made.sent, made.modules, made.removed, made.answers = {}, [], [], []

    def make_tmp_path(remote_user=None):
        shell.tmpdir = "/remote/tmp"
        return shell.tmpdir

    def transfer(local, remote):
        with open(local, "rb") as stream:
            made.sent[remote] = stream.read()

    def execute(module_name, module_args, task_vars):
        made.modules.append(module_args)
        return made.answers.pop(0)

    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    made._make_tmp_path, made._transfer_file, made._execute_module = make_tmp_path, transfer, execute
    made._low_level_execute_command = lambda command, sudoable: made.sent.setdefault("commands", []).append(command)
    made._fixup_perms2 = lambda paths: None
    made._remove_tmp_path = made.removed.append

    def go(**args):
        made._task = types.SimpleNamespace(args=args)
        return made.run(task_vars={})

    made.go = go
    (tmp_path / "1.patch").write_bytes(PATCH)
    made.set = {"name": "set", "patches": [{"file": "1.patch", "tree": "/src"}]}
    made.dir = str(tmp_path)
    return made


def test_nothing_travels_when_the_target_is_there(action):
    action.answers = [{"changed": False, "digest": "sha256:1"}]
    assert action.go(patch_set=action.set, patch_dir=action.dir) == {"changed": False, "digest": "sha256:1"}
    assert action.sent == {} and action.removed == []
    assert len(action.modules[0]["patch_set"]["id"]) == 12 and action.modules[0]["patch_set"]["patches"][0]["sha256"]


def test_files_travel_as_they_are_when_asked_for(action, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    (wheels / "README").write_bytes(b"no wheel")
    action.answers = [{"changed": True, "needs_files": True}, {"changed": True, "digest": "sha256:1"}]
    result = action.go(patch_set=action.set, patch_dir=action.dir, wheelhouse=str(wheels))
    assert result == {"changed": True, "digest": "sha256:1"}
    assert action.sent["/remote/tmp/patches/0000/1.patch"] == PATCH
    (tmp_path / "back.tar").write_bytes(action.sent["/remote/tmp/wheelhouse.tar"])
    with tarfile.open(str(tmp_path / "back.tar")) as archive:
        assert archive.getnames() == ["a-1-py3-none-any.whl"]
    assert action.modules[1]["staged"] == "/remote/tmp" and action.removed == ["/remote/tmp"]


def test_folder_is_removed_when_the_build_breaks(action):
    action.answers = [{"needs_files": True}]
    with pytest.raises(IndexError):
        action.go(patch_set=action.set, patch_dir=action.dir)
    assert action.removed == ["/remote/tmp"]


@pytest.mark.parametrize("change, words", [
    ({"patch_dir": "/nonexistent"}, "1.patch cannot be read"),
    ({"patch_dir": None}, "patch_dir is not set"),
    ({"patch_set": {"name": "set", "patches": [{"file": "1.patch", "tree": "/src", "sha256": "0" * 64}]}}, "wanted " + "0" * 64),
    ({"wheelhouse": "/nonexistent"}, "is not a folder on the controller"),
    ({"staged": "/x"}, "belongs to the action plugin"),
])
def test_bad_input_reaches_no_host(action, change, words):
    with pytest.raises(AnsibleActionFail) as caught:
        action.go(**dict({"patch_set": action.set, "patch_dir": action.dir}, **change))
    assert words in str(caught.value) and action.modules == [] and action.sent == {}


def test_empty_wheelhouse(action, tmp_path):
    (tmp_path / "empty").mkdir()
    action.answers = [{"needs_files": True}]
    with pytest.raises(AnsibleActionFail) as caught:
        action.go(patch_set=action.set, patch_dir=action.dir, wheelhouse=str(tmp_path / "empty"))
    assert "holds no wheel" in str(caught.value)


def test_without_a_patch_set_no_folder_is_needed(action):
    action.answers = [{"changed": True}]
    assert action.go(origin="r/n:1") == {"changed": True}
