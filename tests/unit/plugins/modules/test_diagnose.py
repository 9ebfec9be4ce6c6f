# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of a host are scripts here; the planted secrets must not come out whatever the way."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.modules import diagnose

KEY, PASSWORD = "sk-planted-0123456789", "planted-registry-password"


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def params(tmp_path, monkeypatch):
    home = tmp_path / "state" / "instances" / "one" / "releases" / "a"
    home.mkdir(parents=True)
    (home / "environment").write_text("HF_TOKEN=hf_planted\nA=1\n")
    (home / "manifest.json").write_text("{}")
    (home.parent.parent / "current").symlink_to("releases/a")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "one.secret").write_text("VLLM_API_KEY=%s\n" % KEY)
    inspected = json.dumps([{"Name": "/vllm-ascend-one", "Config": {"Env": ["VLLM_API_KEY=" + KEY, "LC_ALL=C"]}}])
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "docker", "cat <<'EOF'\n%s\nEOF\n" % inspected)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return {
        "instances": [{"name": "one"}], "lines": 7, "everything": True, "secrets": [PASSWORD], "state_directory": str(tmp_path / "state"),
        "secret_directory": str(secrets), "engine": "docker", "npu_smi_path": script(tmp_path / "npu-smi", "echo healthy"),
        "journalctl": script(tmp_path / "journalctl", 'echo "$@"; echo "key %s, login with %s, token=abc"' % (KEY, PASSWORD)),
        "systemctl": script(tmp_path / "systemctl", 'echo "$@"')}


def test_no_secret_leaves_the_host(params):
    files = diagnose.collect(params)
    text = "\n".join(files.values())
    for secret in (KEY, PASSWORD, "hf_planted", "token=abc"):
        assert secret not in text
    assert "********" in files["one/journal.txt"]


def test_everything_is_there_and_the_container_stays_json(params):
    files = diagnose.collect(params)
    assert sorted(files) == ["kernel.txt", "npu-smi.txt", "one/container.json", "one/environment", "one/journal.txt", "one/manifest.json",
                             "one/systemd.txt", "one/unit.txt"]
    assert json.loads(files["one/container.json"])[0]["Config"]["Env"] == ["VLLM_API_KEY=********", "LC_ALL=C"]
    assert files["npu-smi.txt"] == "healthy\n" and "A=1" in files["one/environment"]
    assert "--unit vllm-ascend-one.service --lines 7" in files["one/journal.txt"]


def test_only_journals_unless_asked(params):
    assert sorted(diagnose.collect(dict(params, everything=False))) == ["one/journal.txt"]


def test_what_cannot_be_read_says_so_in_its_place(params, tmp_path):
    params["journalctl"] = script(tmp_path / "journalctl", "echo 'No journal files were found.' >&2; exit 1")
    files = diagnose.collect(dict(params, state_directory="/nowhere", npu_smi_path="/nowhere/npu-smi"))
    assert "No journal files were found." in files["one/journal.txt"]
    assert "No such file" in files["one/environment"] and "/nowhere/npu-smi" in files["npu-smi.txt"]
