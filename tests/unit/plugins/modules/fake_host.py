# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a folder: real files, with a systemctl and a docker that keep their state in one JSON file."""

from __future__ import annotations

import json
import os
import sys

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release_host

OLD, NEW = "a" * 12, "b" * 12

FAKE = r'''#!%(python)s -IS
import json, os, re, sys
ROOT = %(root)r
with open(os.path.join(ROOT, "state.json")) as stream:
    state = json.load(stream)
tool, args = os.path.basename(sys.argv[0]), sys.argv[1:]
names = [a for a in args[1:] if not a.startswith("-")]
units, containers = state["units"], state["containers"]
if not (tool == "systemctl" and args[0] == "show") and args[:2] not in (["container", "inspect"], ["image", "inspect"]) and args[0] != "ps":
    state["calls"].append(" ".join([tool] + args))


def on_disk(unit):
    path = os.path.join(ROOT, "units", unit)
    return open(path).read() if os.path.exists(path) else None


def done(rc=0, out="", err=""):
    with open(os.path.join(ROOT, "state.json"), "w") as stream:
        json.dump(state, stream)
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(rc)


if args[0] in state["broken"]:
    state["broken"].remove(args[0])
    done(1, "", "Job for it failed because of a lever.\n")
if tool == "systemctl":
    if args[0] == "show":
        blocks = []
        for name in names:
            unit = units.get(name, {})
            loaded = unit.get("loaded")
            blocks.append("\n".join("%%s=%%s" %% pair for pair in [
                ("Id", name), ("LoadState", unit.get("load_state") or ("loaded" if loaded else "not-found")),
                ("ActiveState", unit.get("active", "inactive")), ("UnitFileState", "enabled" if unit.get("enabled") else "disabled"),
                ("NeedDaemonReload", "yes" if loaded and loaded != on_disk(name) else "no"),
                ("FragmentPath", os.path.join(ROOT, "units", name) if loaded else "")]))
        done(0, "\n\n".join(blocks) + "\n")
    if args[0] == "daemon-reload" and not state["deaf"]:
        for name in set(units) | set(os.listdir(os.path.join(ROOT, "units"))):
            units.setdefault(name, {})["loaded"] = on_disk(name)
    for name in names:
        unit = units.setdefault(name, {})
        if args[0] == "stop":
            unit["active"] = "inactive"
            containers.pop(name[:-8], None)
        elif args[0] == "start":
            unit["active"] = "active"
            label = re.search(r"release (\w+)", unit["loaded"]).group(1)
            containers[name[:-8]] = {"instance": name[12:-8], "release": label, "running": True}
        elif args[0] in ("enable", "disable"):
            unit["enabled"] = args[0] == "enable"
    done()
if args[:2] == ["image", "inspect"]:
    if args[2] in state["gone"]:
        done(1, "[]\n", "Error: No such image: %%s\n" %% args[2])
    done(0, json.dumps([{"Id": "sha256:1", "RepoDigests": [args[2]], "Architecture": "amd64"}]) + "\n")
if args[:2] == ["container", "inspect"]:
    if state["down"]:
        done(1, "[]\n", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n")
    found, missing = [], ""
    for name in args[2:]:
        one = containers.get(name)
        if one is None or one.get("ghost"):
            missing += "Error: No such container: %%s\n" %% name
            continue
        labels = {"vllm-ascend-fleet.instance": one["instance"], "vllm-ascend-fleet.release": one["release"]}
        config = {"Labels": labels if one["instance"] else None, "Image": "image"}
        found.append({"Id": name, "Name": "/" + name, "Config": config, "State": {"Running": one["running"]}})
    done(1 if missing else 0, json.dumps(found) + "\n", missing)
if args[0] == "ps":
    wanted = args[-1].rsplit("=", 1)[1]
    done(0, "".join(name + "\n" for name in sorted(containers) if containers[name]["instance"] == wanted))
if args[0] == "rm":
    for name in names:
        del containers[name]
    done()
done(2, "", "unexpected call\n")
'''


class World:
    """A host in a folder."""

    def __init__(self, root):
        self.root = str(root)
        os.mkdir(self.path("units"))
        self.save({"units": {}, "containers": {}, "calls": [], "broken": [], "deaf": False, "down": False, "gone": []})
        for tool in ("systemctl", "docker"):
            with open(self.path(tool), "w") as stream:
                stream.write(FAKE % {"python": sys.executable, "root": self.root})
            os.chmod(self.path(tool), 0o755)

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def save(self, state):
        with open(self.path("state.json"), "w") as stream:
            json.dump(state, stream)

    @property
    def state(self):
        with open(self.path("state.json")) as stream:
            return json.load(stream)

    def change(self, **values):
        self.save(dict(self.state, **values))

    def calls(self):
        calls = self.state["calls"]
        self.change(calls=[])
        return calls

    def run(self, instances, check_mode=False, **params):
        params = dict({
            "state": "present", "secrets": {}, "keep": 3, "engine": "docker", "engine_path": self.path("docker"),
            "systemctl": self.path("systemctl"), "state_directory": self.path("state"), "unit_directory": self.path("units"),
            "secret_directory": self.path("secrets")}, **params)
        return release_host.run(dict(params, instances=instances), check_mode)

    def tree(self):
        found = {}
        for folder, dummy, files in os.walk(self.root):
            for name in files:
                path = os.path.join(folder, name)
                if name not in ("state.json", "systemctl", "docker"):
                    with open(path) as stream:
                        found[os.path.relpath(path, self.root)] = stream.read()
        for name in ("one", "two"):
            for link in ("current", "previous"):
                path = self.path("state", "instances", name, link)
                if os.path.islink(path):
                    found[name + " " + link] = os.readlink(path)
        return found


def instance(name, release_id, environment="A=1\n", **more):
    unit = "vllm-ascend-%s.service" % name
    text = "%s instance %s, release %s.\n[Service]\n" % (domain.MARKER, name, release_id)
    files = {unit: text, "environment": environment, "manifest.json": '{"release": "%s"}\n' % release_id}
    return dict({"name": name, "unit": unit, "container": unit[:-8], "release": {"id": release_id, "files": files}}, **more)
