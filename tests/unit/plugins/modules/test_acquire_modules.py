# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules patch_series, image, derived_image and registry_copy from their arguments to their JSON; docker is a small program."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from ansible.module_utils import basic

from ansible_collections.vllm_ascend.fleet.plugins.modules import derived_image, image, patch_series, registry_copy

DIGEST = "sha256:" + "a" * 64

DOCKER = r'''#!%(python)s
import json, os, sys
root, args = %(root)r, sys.argv[1:]
with open(os.path.join(root, "calls"), "a") as stream:
    config = os.environ.get("DOCKER_CONFIG")
    mode = oct(os.stat(config).st_mode & 0o777) if config else None
    stream.write(json.dumps({"args": args, "mode": mode, "config": os.listdir(config) if config else None}) + "\n")
images = json.load(open(os.path.join(root, "images.json")))
if args[:2] == ["image", "inspect"]:
    if args[2] not in images:
        sys.exit("Error: No such image: " + args[2])
    print(json.dumps([{"Id": "sha256:1", "RepoDigests": [args[2]], "RepoTags": [], "Architecture": images[args[2]], "Config": {"Labels": {}}}]))
elif args[0] == "info":
    print("{}")
elif args[0] == "ps":
    print("one\tr.invalid/used:1")
elif args[0] == "rmi":
    del images[args[1]]
    json.dump(images, open(os.path.join(root, "images.json"), "w"))
'''


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run a module's main(); its JSON, with "failed" when it failed."""

    def run(module, _check=False, **arguments):
        arguments = dict(arguments, _ansible_check_mode=_check, _ansible_tmpdir=str(tmp_path), _ansible_remote_tmp=str(tmp_path))
        try:
            from ansible.module_utils.testing import patch_module_args

            context = patch_module_args(arguments)
        except ImportError:
            monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode("utf-8"))
            context = contextlib.suppress()
        with context, pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


class Docker:
    def __init__(self, root):
        self.root = str(root)
        self.path = os.path.join(self.root, "docker")
        with open(self.path, "w") as stream:
            stream.write(DOCKER % {"python": sys.executable, "root": self.root})
        os.chmod(self.path, 0o755)
        self.have()

    def have(self):
        with open(os.path.join(self.root, "images.json"), "w") as stream:
            json.dump({"r.invalid/n@" + DIGEST: "amd64", "r.invalid/used:1": "amd64", "r.invalid/free:1": "amd64"}, stream)

    @property
    def calls(self):
        with open(os.path.join(self.root, "calls")) as stream:
            return [json.loads(line) for line in stream]


@pytest.fixture
def docker(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    return Docker(folder)


def test_present_image(call, docker, tmp_path):
    done = call(image, reference="r.invalid/n@" + DIGEST, engine_path=docker.path, architecture="amd64", registry_username="fleet", registry_password="s3cret")
    assert (done["changed"], done["digest"], done["actions"]) == (False, DIGEST, [])
    assert done["diff"] == {"before": {"image": "r.invalid/n@" + DIGEST}, "after": {"image": "r.invalid/n@" + DIGEST}}
    assert [each for each in os.listdir(str(tmp_path)) if "fleet" in each] == [], "the private folder is gone"
    assert "s3cret" not in json.dumps(docker.calls)


def test_absent_in_four_steps(call, docker):
    arguments = dict(reference="r.invalid/free:1", state="absent", engine_path=docker.path)
    results = [call(image, check, **arguments) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[0]["actions"] == results[1]["actions"] == ["remove r.invalid/free:1"]
    assert results[1]["diff"] == {"before": {"image": "r.invalid/free:1"}, "after": {"image": None}}


def test_absent_spares_what_a_container_uses(call, docker):
    done = call(image, reference="r.invalid/used:1", state="absent", engine_path=docker.path)
    assert done["failed"] and done["msg"] == "image r.invalid/used:1 is used by the containers one; remove them first"


@pytest.mark.parametrize("reference, words", [("r.invalid/N:1", "is not a repository name"), ("r.invalid/n@sha256:1", "is not a digest")])
def test_bad_reference_is_no_traceback(call, docker, reference, words):
    done = call(image, reference=reference, engine_path=docker.path)
    assert done["failed"] and words in done["msg"] and "\n" not in done["msg"]


def test_no_engine(call):
    done = call(image, reference="r.invalid/n:1", engine_path="/nonexistent/docker")
    assert done["failed"] and "/nonexistent/docker was not found" in done["msg"]


def test_derived_image_refuses_an_index_with_credentials(call, docker):
    done = call(derived_image, origin="r.invalid/n:1", target="r.invalid/t:1", architecture="amd64", engine_path=docker.path,
                pip_index_url="https://me:s3cret@index.example.net/simple")
    assert done["failed"] and "wheelhouse" in done["msg"]


@pytest.fixture
def source(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.check_call(["git", "init", "-q", str(tree)])
    (tree / "m.py").write_bytes(b"a\r\nb\r\n")
    patch = tmp_path / "1.patch"
    patch.write_bytes(b"--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n a\r\n-b\r\n+c\r\n")
    return tree, {"patches": [{"file": str(patch), "tree": str(tree)}]}


def test_patch_series_in_four_steps_and_back(call, source):
    tree, arguments = source
    results = [call(patch_series, check, **arguments) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[0]["diff"] == results[1]["diff"] and results[0]["actions"] == results[1]["actions"]
    assert results[1]["diff"][0]["before"] == "a\r\nb\r\n" and results[1]["diff"][0]["after"] == "a\r\nc\r\n"
    assert (tree / "m.py").read_bytes() == b"a\r\nc\r\n"
    assert call(patch_series, state="absent", **arguments)["changed"]
    assert (tree / "m.py").read_bytes() == b"a\r\nb\r\n"


def test_patch_series_conflict_returns_the_verdicts(call, source):
    tree, arguments = source
    (tree / "m.py").write_bytes(b"a\r\nx\r\n")
    done = call(patch_series, **arguments)
    assert done["failed"] and "m.py hunk 1 (line 2)" in done["msg"]
    assert done["verdicts"][0]["files"][0]["found"] == ["x\\r"]


def test_a_copy_into_a_registry_that_is_not_there(call, monkeypatch):
    monkeypatch.setattr(registry_copy, "insecure", lambda: registry_copy.registry_copy.nobody)
    answer = call(registry_copy, origin="127.0.0.1:1/a/b:v1", architecture="amd64", target="127.0.0.1:2/a/b:v1", timeout_s=5)
    assert answer["failed"] and answer["msg"].startswith("the fleet's registry does not answer for 127.0.0.1:2/a/b:v1: 127.0.0.1:2 cannot be reached")
    half = call(registry_copy, origin="a/b:v1", architecture="amd64", target="c/d:v1", registry_username="fleet")
    assert half["failed"] and "registry_password" in half["msg"]
