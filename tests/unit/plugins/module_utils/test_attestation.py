# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The patched files of a container: what is judged, and how they are read below a root that somebody else fills."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import attestation

ORIGIN = "/w/vllm/vllm/__init__.py"
RECORD = json.dumps({"files": {"/w/vllm": {"a.py": "1" * 64, "gone.py": None}, "/w/ascend": {"b.py": "2" * 64}}, "imported": ORIGIN}).encode()
FILES = {"/w/vllm/a.py": "1" * 64, "/w/vllm/gone.py": None, "/w/ascend/b.py": "2" * 64}
LABELS = {attestation.SET_LABEL: "abc", attestation.RECORD_LABEL: attestation.sha256(RECORD)}
SEEN = {"labels": LABELS, "record": RECORD, "files": FILES, "imported": ORIGIN, "error": None}


@pytest.mark.parametrize("change, status, words", [
    ({}, "pass", "3 patched files are as built; vllm is imported from " + ORIGIN),
    ({"files": dict(FILES, **{"/w/vllm/a.py": "9" * 64})}, "fail", "/w/vllm/a.py was changed"),
    ({"files": dict(FILES, **{"/w/vllm/a.py": None})}, "fail", "/w/vllm/a.py is missing"),
    ({"files": dict(FILES, **{"/w/vllm/gone.py": "9" * 64})}, "fail", "/w/vllm/gone.py should be gone"),
    ({"imported": "/usr/lib/vllm/__init__.py"}, "fail", "imported from /usr/lib/vllm/__init__.py, not from " + ORIGIN),
    ({"imported": None}, "fail", "imported from nowhere"),
    ({"record": RECORD.replace(b"1" * 64, b"9" * 64), "files": dict(FILES, **{"/w/vllm/a.py": "9" * 64})}, "fail", "patch_set.json was changed"),
    ({"record": None}, "fail", "patch_set.json is not there"),
    ({"record": b"[]", "labels": {attestation.SET_LABEL: "abc"}}, "fail", "no record of patched files"),
    ({"labels": dict(LABELS, **{attestation.SET_LABEL: "xyz"})}, "fail", "built with patch set xyz"),
    ({"labels": {}}, "fail", "carries no patch set"),
    ({"labels": {attestation.SET_LABEL: "abc"}}, "pass", "which no label of this older image proves"),
    ({"error": "the container does not run"}, "unknown", "does not run"),
])
def test_judgement(change, status, words):
    verdict, found = attestation.judge(dict(SEEN, **change), "abc")
    assert verdict == status and words in found


class Engine:
    def __init__(self, rc=0, out=ORIGIN + "\n", err=""):
        self.answer, self.calls = {"rc": rc, "stdout": out, "stderr": err}, []

    def run(self, args, check=True):
        self.calls.append(args)
        return self.answer


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container whose first process is this test and whose root is a folder."""
    monkeypatch.setattr(attestation, "inside", lambda root, path, real=attestation.inside: real(str(tmp_path), path))
    for path, text in ((attestation.RECORD, ""), ("/w/vllm/a.py", "a"), ("/real/b.py", "b")):
        os.makedirs(os.path.dirname(str(tmp_path) + path), exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    # Absolute, as within the container; on the host this path is not there.
    os.symlink("/real", str(tmp_path / "w" / "ascend"))
    record = {"files": {"/w/vllm": {"a.py": attestation.sha256(b"a"), "gone.py": None}, "/w/ascend": {"b.py": attestation.sha256(b"b")}}, "imported": ORIGIN}
    (tmp_path / attestation.RECORD[1:]).write_text(json.dumps(record))
    labels = {attestation.SET_LABEL: "abc", attestation.RECORD_LABEL: attestation.sha256(json.dumps(record).encode())}
    return {"Id": "c0ffee", "Config": {"Labels": labels}, "State": {"Pid": os.getpid()}}


def test_files_are_read_within_the_container(container, tmp_path):
    engine = Engine()
    assert attestation.judge(attestation.read(container, engine), "abc")[0] == "pass"
    assert engine.calls[0][:1] == ["exec"] and engine.calls[0][-4:] == ["c0ffee", "python3", "-c", attestation.FIND]
    (tmp_path / "w" / "vllm" / "a.py").write_text("tampered")
    assert attestation.judge(attestation.read(container, engine), "abc") == ("fail", "/w/vllm/a.py was changed")


def test_a_mere_look_starts_nothing_in_the_container(container, tmp_path):
    engine = Engine()
    assert attestation.judge(attestation.read(container, engine, False), "abc") == ("pass", "3 patched files are as built")
    (tmp_path / "w" / "vllm" / "a.py").write_text("tampered")
    assert attestation.judge(attestation.read(container, engine, False), "abc")[0] == "fail" and engine.calls == []


def test_the_search_path_is_that_of_the_engine(container):
    pid = os.fork()
    if not pid:
        os.execve("/bin/sleep", ["sleep", "60"], {"PYTHONPATH": "/evil:/w"})
    try:
        engine = Engine(out="/evil/vllm/__init__.py\n")
        while True:
            with open("/proc/%d/environ" % pid, "rb") as stream:
                if b"/evil" in stream.read():
                    break
        found = attestation.judge(attestation.read(dict(container, State={"Pid": pid}), engine), "abc")
        assert found[0] == "fail" and "imported from /evil/vllm" in found[1] and "PYTHONPATH=/evil:/w" in engine.calls[0]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("state, engine, words", [
    ({"Pid": 0}, Engine(), "does not run"), (None, Engine(rc=126, err="exec failed: no python3\n"), "no python3")])
def test_what_cannot_be_seen_is_unknown(container, state, engine, words):
    found = attestation.judge(attestation.read(dict(container, State=state or container["State"]), engine), "abc")
    assert found[0] == "unknown" and words in found[1]


def test_an_image_without_a_set_is_asked_no_more(container):
    engine = Engine()
    container["Config"]["Labels"] = {}
    assert attestation.judge(attestation.read(container, engine), "abc")[0] == "fail" and engine.calls == []


@pytest.mark.parametrize("links, path, where", [
    ({}, "/a/b", "/a/b"), ({"/a": "/c"}, "/a/b", "/c/b"), ({"/a": "../../../etc"}, "/a/b", "/etc/b"), ({"/a/b": "d"}, "/a/b", "/a/d"),
    ({"/a": "/b", "/b": "/a"}, "/a/x", None)])
def test_no_link_leads_out(tmp_path, links, path, where):
    for name, target in links.items():
        os.makedirs(os.path.dirname(str(tmp_path) + name), exist_ok=True)
        os.symlink(target, str(tmp_path) + name)
    found = attestation.inside(str(tmp_path), path)
    assert found.startswith(str(tmp_path)) and (where is None or found == str(tmp_path) + where)
