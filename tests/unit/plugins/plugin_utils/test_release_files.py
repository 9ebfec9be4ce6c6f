# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release holds, and that systemd reads back every argument that was put in."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import release_files

INSTANCE = {
    "name": "gemma-4-e2b-it", "model": "gemma-4-E2B-it", "served_model_name": "gemma-4-E2B-it", "unit": "vllm-ascend-gemma-4-e2b-it.service",
    "container": "vllm-ascend-gemma-4-e2b-it", "port": 8000, "shm_size": "10g", "devices": ["/dev/davinci0"],
    "common_devices": ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"],
    "mounts": [{"source": "/models/gemma-4-E2B-it", "target": "/models/gemma-4-E2B-it", "read_only": True}],
    "image_reference": "registry.example.net:5000/ascend/vllm-ascend@sha256:" + "a" * 64,
    "arguments": ["/models/gemma-4-E2B-it", "--port", "8000", "--shutdown-timeout", "120"], "shutdown_timeout_s": 120, "stop_timeout_s": 150,
    "environment": {"LC_ALL": "C", "HCCL_OP_EXPANSION_MODE": "AIV"}, "secret": True, "provenance": {"port": "inventory"},
}
UGLY = ['{"a": "50% of $HOME", "b": ["\'", "\\"", "\\\\"]}', "; rm -rf /", "#comment", "", "two words", "tab\tand\nline", "${X}$$", "%i%%", "-", "ünï",
        "\\", "a\\", "@/bin/x", "\x01\x7f"]


def render(engine="docker", **changes):
    return release_files.render(dict(copy.deepcopy(INSTANCE), **changes), engine, "/usr/bin/" + engine)


def unit(engine="docker", **changes):
    return render(engine, **changes)["files"][INSTANCE["unit"]]


def settings(text):
    """{key: [value]} of a unit, continuation lines joined as systemd joins them."""
    found = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def words(line):
    """Split an Exec line as systemd.syntax(7) and systemd.service(5) describe it."""
    result = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', line):
        escapes = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
        word = plain or re.sub(r"\\(x[0-9a-f]{2}|.)", lambda m: chr(int(m.group(1)[1:], 16)) if len(m.group(1)) > 1 else escapes.get(
            m.group(1), m.group(1)), quoted, flags=re.S)
        assert "$" not in word.replace("$$", "") and "%" not in word.replace("%%", "")
        result.append(word.replace("%%", "%").replace("$$", "$"))
    return result


def test_every_argument_survives_the_unit():
    line = settings(unit(arguments=UGLY))["ExecStart"][0]
    assert words(line)[-len(UGLY):] == UGLY
    assert all(not part.lstrip().startswith(("#", ";")) for part in unit(arguments=UGLY).split("ExecStart=")[1].split("# Stopping")[0].splitlines()[1:])


def test_ansible_finds_nothing_to_template():
    assert not re.search("{[{%#]", "".join(render()["files"].values()))


def test_a_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        unit(arguments=["a\0b"])


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_container_gets_what_it_needs_and_no_more(engine):
    line = words(settings(unit(engine))["ExecStart"][0])
    assert line[:2] == ["/usr/bin/" + engine, "run"]
    options = line[:line.index(INSTANCE["image_reference"])]
    assert [options[i + 1] for i, word in enumerate(options) if word == "--device"] == INSTANCE["devices"] + INSTANCE["common_devices"]
    assert [options[i + 1] for i, word in enumerate(options) if word == "--mount"] == [
        "type=bind,source=/models/gemma-4-E2B-it,target=/models/gemma-4-E2B-it,readonly"]
    assert [options[i + 1] for i, word in enumerate(options) if word.startswith("--cap")] == ["ALL", "DAC_OVERRIDE"]
    assert "--privileged" not in options and "no-new-privileges" in options and "--init" in options
    assert options[options.index("--pull") + 1] == "never"
    assert [options[i + 1] for i, word in enumerate(options) if word == "--env-file"] == [
        "/var/lib/vllm-ascend-fleet/instances/gemma-4-e2b-it/releases/%s/environment" % render(engine)["id"],
        "/etc/vllm-ascend-fleet/gemma-4-e2b-it.secret"]
    assert line[-7:] == ["vllm", "serve"] + INSTANCE["arguments"]


def test_each_deadline_lies_inside_the_next():
    found = settings(unit())
    stop = words(found["ExecStop"][0])
    assert stop == ["-/usr/bin/docker", "stop", "-t", "150", "vllm-ascend-gemma-4-e2b-it"]
    assert INSTANCE["shutdown_timeout_s"] < int(stop[3]) < int(found["TimeoutStopSec"][0]) and int(stop[3]) < int(found["TimeoutStartSec"][0])
    assert found["Restart"] == ["always"] and found["KillMode"] == ["mixed"] and found["StartLimitBurst"] == ["5"]


def test_podman_needs_no_daemon_and_reaches_its_storage():
    found = settings(unit("podman"))
    assert "Requires" not in found and "ProtectSystem" not in found and "docker" not in unit("podman").lower()
    assert settings(unit())["Requires"] == ["docker.service"]


def test_the_id_follows_what_runs_and_nothing_else():
    one = render()
    assert re.match("^[0-9a-f]{12}$", one["id"]) and render() == one
    assert set(one["files"]) == {INSTANCE["unit"], "environment", "manifest.json"}
    same = render(provenance={"port": "elsewhere"}, ready_timeout_s=1800, max_model_len=4096)
    assert same["id"] == one["id"] and same["files"][INSTANCE["unit"]] == one["files"][INSTANCE["unit"]]
    assert json.loads(same["files"]["manifest.json"])["ready_timeout_s"] == 1800
    others = [render(port=8001, arguments=["x"]), render(environment={"LC_ALL": "C"}), render(devices=["/dev/davinci1"]), render("podman"),
              render(secret=False), render(image_reference="registry.example.net:5000/ascend/vllm-ascend@sha256:" + "b" * 64)]
    assert len(set(other["id"] for other in others) | {one["id"]}) == len(others) + 1


def test_the_module_accepts_what_was_rendered():
    release = render(secret=False)
    wanted = domain.normalise([dict(INSTANCE, secret=False, release=release)], "present", {})
    assert wanted[0]["release"] == release
    assert release["files"]["environment"] == "HCCL_OP_EXPANSION_MODE=AIV\nLC_ALL=C\n"
    assert "release=" + release["id"] in release["files"][INSTANCE["unit"]]


@pytest.mark.parametrize("changes, message", [
    ({"image_reference": None}, "has no image reference yet"),
    ({"mounts": [{"source": "/a,b", "target": "/a", "read_only": True}]}, "holds a comma"),
    ({"environment": {"A": "x\ny"}}, "value of environment variable A holds a line break"),
    ({"environment": {"A B": "x"}}, "variable name 'A B' is not usable"),
])
def test_what_no_file_can_carry_is_refused(changes, message):
    with pytest.raises((ValueError, domain.ReleaseError), match=message):
        render(**changes)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_systemd_finds_nothing_to_complain_about(tmp_path, engine):
    path = tmp_path / INSTANCE["unit"]
    tool = tmp_path / engine
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    release = release_files.render(dict(INSTANCE, arguments=UGLY), engine, str(tool))
    path.write_text(release["files"][INSTANCE["unit"]])
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False, env={
        "SYSTEMD_UNIT_PATH": "%s:" % tmp_path, "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0 and INSTANCE["unit"] not in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_docker_client_is_confined(tmp_path):
    path = tmp_path / INSTANCE["unit"]
    path.write_text(unit())
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=25", str(path)], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stdout
