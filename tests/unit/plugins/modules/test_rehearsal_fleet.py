# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rehearsal_fleet module against a docker that keeps its state in one JSON file."""

from __future__ import annotations

import json
import os
import sys

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent, rehearsal
from ansible_collections.vllm_ascend.fleet.plugins.modules import rehearsal_fleet as module

FAKE = r'''#!%(python)s -IS
import fcntl, json, os, sys
PATH = %(path)r
lock = open(PATH + ".lock", "w")  # containers are made in parallel
fcntl.flock(lock, fcntl.LOCK_EX)
with open(PATH) as stream:
    state = json.load(stream)
words = sys.argv[1:]
kind = words[0]


def done(code=0, out="", err=""):
    with open(PATH, "w") as stream:
        json.dump(state, stream)
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


def label_filter():
    return [words[at + 1].split("=", 1)[1] for at, word in enumerate(words) if word == "--filter"]


def option(name):
    return words[words.index(name) + 1]


if words[1] == "inspect":
    found = state[kind].get(words[2])
    done(0 if found else 1, json.dumps([found]) if found else "", "" if found else "no such " + kind)
if words[1] == "ls":
    wanted = [text.partition("=") for text in label_filter()]
    show = (lambda name, entry: entry["Labels"][words[-1].split('"')[1]]) if "{{.Label" in words[-1] else (lambda name, entry: name)
    names = [show(name, entry) for name, entry in sorted(state[kind].items())
             if all((name2 in entry["Labels"] if not value else entry["Labels"].get(name2) == value) for name2, _x, value in wanted)]
    done(0, "\n".join(names) + "\n" if names else "")
if kind == "exec":
    done(0, "loaded.service loaded failed\n" if "list-units" in words else state["systemd"] + "\n")
if kind == "port":
    done(0, "127.0.0.1:49153\n")
state["calls"].append(" ".join(words[:2]))
if kind in state["broken"]:
    done(1, "", "the daemon says no")
if kind == "create":
    labels = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--label")
    state["container"][option("--name")] = {"Labels": labels, "Config": {"Labels": labels}, "State": {"Running": False}}
elif kind == "start":
    state["container"][words[1]]["State"]["Running"] = True
elif kind == "rm":
    del state["container"][words[-1]]
elif words[1] == "create":
    entry = {"Labels": dict([option("--label").split("=", 1)])}
    if kind == "network":
        entry["IPAM"] = {"Config": [{"Subnet": option("--subnet")}]}
    state[kind][words[-1]] = entry
elif words[1] == "rm":
    del state[kind][words[-1]]
done()
'''

NODE = {"name": "a2-1", "address": "172.31.240.11", "platform": "a2"}
REGISTRIES = [{"name": "registry.rehearsal", "kind": "fleet", "address": "172.31.240.2", "port": 5000},
              {"name": "quay.io", "kind": "upstream", "address": "172.31.240.3", "port": 443}]


class Docker:
    def __init__(self, tmp_path):
        self.path, self.folder = tmp_path / "docker.json", tmp_path
        image = {"Id": "sha256:1", "Labels": {rehearsal.LABEL: "image"}}
        self.write({"image": {"node": image, "registry": image}, "container": {}, "network": {}, "volume": {}, "calls": [], "broken": [],
                    "systemd": "running"})
        command = tmp_path / "docker"
        command.write_text(FAKE % {"python": sys.executable, "path": str(self.path)})
        command.chmod(0o755)
        (tmp_path / "host_keys").mkdir()
        for name in ("ca.crt", "registry.crt", "registry.key", "id_ed25519", "id_ed25519.pub", *intent.SECRET_VARIABLES,
                     "host_keys/a2-1", "host_keys/a2-1.pub"):
            (tmp_path / name).write_text(name + "\n")
        (tmp_path / "registry.names").write_text("DNS:quay.io,DNS:registry.rehearsal\n")
        (tmp_path / "known_hosts").write_text("172.31.240.11,a2-1 host_keys/a2-1.pub\n")
        (tmp_path / "watchers").write_text("8192")

    def read(self):
        return json.loads(self.path.read_text())

    def write(self, state):
        self.path.write_text(json.dumps(state))

    def change(self, **more):
        self.write(dict(self.read(), **more))

    def run(self, check=False, **more):
        options = dict({"state": "present", "name": "rehearsal", "subnet": "172.31.240.0/24", "nodes": [NODE], "registries": REGISTRIES,
                        "node_image": "node", "registry_image": "registry", "state_directory": str(self.folder),
                        "timeout_s": 1, "engine": str(self.folder / "docker")}, **more)
        fleet = module.Fleet(Stub(options, check))
        result = fleet.present() if options["state"] == "present" else fleet.absent()
        return fleet.actions, result


class Stub:
    """As much of AnsibleModule as the fleet uses."""

    def __init__(self, params, check_mode):
        self.params, self.check_mode = params, check_mode

    def get_bin_path(self, name, required):
        assert required and os.access(name, os.X_OK)
        return name


@pytest.fixture
def docker(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WATCHERS", str(tmp_path / "watchers"))
    return Docker(tmp_path)


CREATED = ["create network rehearsal", "create rehearsal-a2-1", "create rehearsal-registry"]


def test_check_then_real_then_nothing(docker):
    actions, unused = docker.run(check=True)
    assert sorted(actions) == CREATED and docker.read()["calls"] == []
    actions, result = docker.run()
    assert sorted(actions) == CREATED
    assert result["publish"] == "127.0.0.1:49153" and result["nodes"]["rehearsal-a2-1"] == {"state": "running", "failed_units": []}
    assert docker.run(check=True)[0] == [] and docker.run()[0] == []


def test_a_stopped_node_is_started_and_not_made_anew(docker):
    docker.run()
    state = docker.read()
    state["container"]["rehearsal-a2-1"]["State"]["Running"] = False
    docker.write(state)
    assert docker.run()[0] == ["start rehearsal-a2-1"]


def test_a_changed_node_starts_empty_but_the_registry_keeps_its_images(docker):
    docker.run()
    docker.change(calls=[])
    assert docker.run(nodes=[dict(NODE, driver_version="26.0.rc1")])[0] == ["re-create rehearsal-a2-1"]
    calls = docker.read()["calls"]
    assert "volume rm" in calls and calls.count("rm --force") == 1
    (docker.folder / "registry.crt").write_text("another")
    docker.change(calls=[])
    assert docker.run(nodes=[dict(NODE, driver_version="26.0.rc1")])[0] == ["re-create rehearsal-registry"]
    assert "volume rm" not in docker.read()["calls"]


def test_a_node_that_left_the_inventory_goes(docker):
    docker.run()
    assert docker.run(nodes=[])[0] == ["write the known hosts", "remove rehearsal-a2-1"]


def test_a_container_of_somebody_else_is_not_touched(docker):
    docker.change(container={"rehearsal-a2-1": {"Labels": {}, "Config": {"Labels": {}}, "State": {"Running": True}}})
    with pytest.raises(rehearsal.RehearsalError, match="a container named rehearsal-a2-1 exists that is not of this fleet"):
        docker.run()
    assert "rehearsal-a2-1" in docker.read()["container"]


def test_another_subnet_is_refused_with_the_remedy(docker):
    docker.run()
    with pytest.raises(rehearsal.RehearsalError, match="network rehearsal exists with subnet 172.31.240.0/24, wanted 172.31.240.0/25.*rehearse_clean"):
        docker.run(subnet="172.31.240.0/25")


def test_a_fresh_node_with_failed_units_is_an_error_an_old_one_is_reported(docker):
    docker.change(systemd="degraded")
    with pytest.raises(rehearsal.RehearsalError, match="started with failed units loaded.service; see docker exec"):
        docker.run()
    unused, result = docker.run()
    assert result["nodes"]["rehearsal-a2-1"] == {"state": "degraded", "failed_units": ["loaded.service"]}


def test_a_start_that_never_ends_is_named(docker):
    docker.change(systemd="starting")
    with pytest.raises(rehearsal.RehearsalError, match="did not finish its start within 1 s .systemd says starting."):
        docker.run()


def test_a_missing_image_and_a_failing_engine_are_sentences(docker):
    with pytest.raises(rehearsal.RehearsalError, match="image other is not here; rehearse.yml builds it"):
        docker.run(node_image="other")
    docker.change(broken=["start"])
    with pytest.raises(module.EngineError, match="start rehearsal-.* failed: the daemon says no"):
        docker.run()


def test_absent_removes_what_is_ours_and_only_that(docker):
    docker.run()
    state = docker.read()
    state["volume"]["data"] = {"Labels": {}}
    docker.write(state)
    docker.run(state="absent")
    left = docker.read()
    assert (left["container"], left["network"], list(left["volume"]), left["image"]) == ({}, {}, ["data"], {})
    assert docker.run(state="absent")[0] == []


def test_images_stay_while_another_fleet_runs_on_them(docker):
    docker.run()
    docker.change(container=dict(docker.read()["container"], other={"Labels": {rehearsal.LABEL: "second"}, "Config": {}, "State": {}}))
    assert docker.run(state="absent")[1] == {"alone": False}
    assert sorted(docker.read()["image"]) == ["node", "registry"]


def test_a_machine_that_lets_too_few_files_be_watched_is_told_to_let_more(docker):
    (docker.folder / "watchers").write_text("128\n")
    assert "raise fs.inotify.max_user_instances from 128 to 640 until the next boot" in docker.run(check=True)[0]
    assert (docker.folder / "watchers").read_text() == "128\n"
    docker.run()
    assert (docker.folder / "watchers").read_text() == "640"
    assert docker.run()[0] == []


def test_an_image_that_cannot_go_is_an_error_and_not_an_endless_round(docker):
    docker.run()
    docker.change(broken=["image"])
    with pytest.raises(module.EngineError, match="image rm failed: the daemon says no"):
        docker.run(state="absent")
