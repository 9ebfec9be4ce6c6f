# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rehearsal_image module against a docker that keeps its images in one JSON file, and a registry on the loopback."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal
from ansible_collections.vllm_ascend.fleet.plugins.modules import rehearsal_image as module

FAKE = r'''#!%(python)s -IS
import json, os, sys
PATH = %(path)r
with open(PATH) as stream:
    state = json.load(stream)
words = sys.argv[1:]
if words[:2] == ["image", "inspect"]:
    found = state["images"].get(words[2])
    print(json.dumps([found]) if found else "no such image")
    sys.exit(0 if found else 1)
state["calls"].append(words[0])
code = 0
if words[0] in state["broken"]:
    sys.stderr.write("the daemon says no\n")
    code = 1
elif words[0] == "build":
    labels = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--label")
    state["images"][words[words.index("--tag") + 1]] = {"Id": "sha256:%%d" %% len(state["calls"]), "Config": {"Labels": labels}}
elif words[0] == "push":
    state["pushed"].append(words[1])
with open(PATH, "w") as stream:
    json.dump(state, stream)
sys.exit(code)
'''


class Failed(Exception):
    pass


class Docker:
    def __init__(self, folder):
        self.folder, self.path = folder, folder / "docker.json"
        self.change(images={"base": {"Id": "sha256:base", "Config": {"Labels": None}}}, calls=[], broken=[], pushed=[])
        command = folder / "docker"
        command.write_text(FAKE % {"python": sys.executable, "path": str(self.path)})
        command.chmod(0o755)
        self.context = folder / "context"
        self.context.mkdir()
        (self.context / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")

    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def change(self, **more):
        self.path.write_text(json.dumps(dict(self.read(), **more)))

    def run(self, check=False, **more):
        options = dict({"tag": "node", "path": str(self.context), "build_args": {"BASE": "base"}, "publish": [],
                        "engine": str(self.folder / "docker")}, **more)
        image = module.Image(Stub(options, check))
        if options["path"]:
            image.build()
        found = image.inspect(options["tag"])
        if found:
            image.publish(found)
        return image.actions


class Stub:
    """As much of AnsibleModule as the image uses."""

    def __init__(self, params, check_mode):
        self.params, self.check_mode = params, check_mode

    def get_bin_path(self, name, required):
        return name

    def run_command(self, words, environ_update=None):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, **(environ_update or {})),
                              check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def fail_json(self, msg, **unused):
        raise Failed(msg)


@pytest.fixture
def docker(tmp_path):
    return Docker(tmp_path)


@pytest.fixture
def registry():
    """A registry that holds the image whose id is in ``held``."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/v2/ascend/x/manifests/v1" and self.server.held
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"config": {"digest": self.server.held}}).encode())

        def log_message(self, *unused):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.held = None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_check_then_real_then_nothing(docker):
    assert docker.run(check=True) == ["build node"] and docker.read()["calls"] == []
    assert docker.run() == ["build node"]
    assert docker.run(check=True) == [] and docker.run() == []
    assert docker.read()["images"]["node"]["Config"]["Labels"][rehearsal.LABEL] == "image"


@pytest.mark.parametrize("change", ["content", "mode", "base", "argument"])
def test_whatever_the_image_is_made_of_builds_it_again(docker, change):
    docker.run()
    more = {}
    if change == "content":
        (docker.context / "extra").write_text("1")
    elif change == "mode":
        (docker.context / "Dockerfile").chmod(0o600)
    elif change == "base":
        docker.change(images=dict(docker.read()["images"], base={"Id": "sha256:new", "Config": {"Labels": None}}))
    else:
        more = {"build_args": {"BASE": "base", "X": "1"}}
    assert docker.run(**more) == ["build node"]


def test_a_folder_without_dockerfile_and_a_failed_build_are_sentences(docker):
    with pytest.raises(Failed, match="holds no Dockerfile; path names the folder to build node from"):
        docker.run(path=str(docker.folder))
    docker.change(broken=["build"])
    with pytest.raises(Failed, match="build --network failed with 1: the daemon says no"):
        docker.run()


def test_only_what_the_registry_lacks_is_pushed(docker, registry):
    docker.run()
    name = "127.0.0.1:%d/ascend/x:v1" % registry.server_port
    assert docker.run(publish=[name], check=True) == ["push " + name] and docker.read()["pushed"] == []
    assert docker.run(publish=[name]) == ["push " + name] and docker.read()["pushed"] == [name]
    registry.held = docker.read()["images"]["node"]["Id"]
    assert docker.run(publish=[name]) == []
    registry.held = "sha256:another"
    assert docker.run(publish=[name]) == ["push " + name]


def test_the_pushed_name_does_not_stay_behind_even_after_a_failure(docker, registry):
    docker.run()
    docker.change(broken=["push"])
    with pytest.raises(Failed, match="push 127.0.0.1:.* failed with 1"):
        docker.run(publish=["127.0.0.1:%d/ascend/x:v1" % registry.server_port])
    assert docker.read()["calls"][-1] == "rmi"
