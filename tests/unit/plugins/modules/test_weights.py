# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module weights from its arguments to its JSON, in four steps."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from ansible.module_utils import basic

from ansible_collections.vllm_ascend.fleet.plugins.modules import weights


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the module's main(); its JSON, with "failed" when it failed."""

    def run(_check=False, **arguments):
        arguments = dict(arguments, _ansible_check_mode=_check)
        try:
            from ansible.module_utils.testing import patch_module_args

            context = patch_module_args(arguments)
        except ImportError:
            monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode("utf-8"))
            context = contextlib.suppress()
        with context, pytest.raises(SystemExit):
            weights.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    text = json.dumps({"a": {"dtype": "U8", "shape": [4096], "data_offsets": [0, 4096]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\1" * 4096)
    (folder / "config.json").write_text("{}")
    return folder


def test_from_a_folder_in_four_steps(call, source, tmp_path):
    arguments = dict(path=str(tmp_path / "m"), source={"kind": "folder", "location": str(source)})
    results = [call(check, **arguments) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[0]["diff"] == results[1]["diff"] and results[0]["actions"] == results[1]["actions"][:1]
    assert [each["files"] for each in results] == [0, 2, 2, 2]
    assert [each["manifest"] for each in results] == ["skipped", "written", "present", "present"]


def test_a_whole_folder_needs_no_source(call, source):
    assert call(path=str(source), manifest="never")["changed"] is False


def test_a_folder_that_is_not_whole_is_one_line(call, source):
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-1])
    done = call(path=str(source))
    assert done["failed"] and "model.safetensors: cut off" in done["msg"] and "name a source" in done["msg"] and "\n" not in done["msg"]


def test_verify_reads_every_byte(call, source):
    assert call(path=str(source))["manifest"] == "written"
    data = bytearray((source / "model.safetensors").read_bytes())
    data[-1] = 7
    (source / "model.safetensors").write_bytes(bytes(data))
    assert call(path=str(source))["changed"] is False
    assert "is not that of the manifest" in call(path=str(source), verify=True)["msg"]


def test_a_folder_that_may_not_be_made_is_one_line(call, source):
    done = call(path="/proc/none/m", source={"kind": "folder", "location": str(source)})
    assert done["failed"] and "/proc/none" in done["msg"] and "\n" not in done["msg"]
