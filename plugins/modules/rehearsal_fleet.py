#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_fleet
short_description: Run simulated Ascend hosts and their registries as containers
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Brings up one container for each node, with systemd, sshd and a container engine inside, and one that plays all registries, on a
    network of their own. Returns when every one has finished its start.
  - Keys, certificates and passwords are made when they are missing.
  - A container whose description, image or files changed is made anew, with an empty engine; the registries keep their images.
  - Raises the kernel's limit of inotify instances until the next boot when so many hosts would not find enough.
  - Containers of the same fleet that are no longer described are removed.
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: none
options:
  name:
    description: Name of the fleet; every container, volume and network of it starts with this.
    type: str
    default: rehearsal
  state:
    description: V(absent) removes containers, volumes, the network and the images that were built for it.
    type: str
    choices: [present, absent]
    default: present
  subnet:
    description: Network of the fleet, in CIDR notation.
    type: str
    default: 172.31.240.0/24
  nodes:
    description:
      - "The simulated hosts: C(name), C(address), C(platform) (V(a2), V(a3), V(310p), or V(none) for a host without NPU), and optionally
        C(chips), C(driver_version), C(firmware_version), C(models), C(models_directory) and C(weights), a list of C(path), C(size_gb),
        C(context) and C(quantized)."
      - M(vllm_ascend.fleet.rehearsal_inventory) reads them out of an inventory.
    type: list
    elements: dict
    default: []
  registries:
    description:
      - "The registries to play: C(name), C(kind) (V(fleet), V(upstream) or V(mirror)), C(address), C(port), and for mirrors C(prefix),
        the path that the mirror puts in front."
    type: list
    elements: dict
    default: []
  node_image:
    description: Image of the simulated hosts.
    type: str
    default: vllm-ascend-fleet/rehearsal-node:latest
  registry_image:
    description: Image of the registries.
    type: str
    default: vllm-ascend-fleet/rehearsal-registry:latest
  state_directory:
    description: Folder of the keys, certificates and passwords of the fleet.
    type: path
    required: true
  timeout_s:
    description: Seconds that a container may take to finish its start.
    type: int
    default: 120
  engine:
    description: Command of the container engine.
    type: str
    default: docker
seealso:
  - module: vllm_ascend.fleet.rehearsal_inventory
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Run one simulated Atlas 800 A2 and a registry
  vllm_ascend.fleet.rehearsal_fleet:
    state_directory: ~/.local/state/vllm_ascend_fleet/rehearsal
    nodes:
      - {name: a2-1, address: 172.31.240.11, platform: a2}
    registries:
      - {name: registry.rehearsal, kind: fleet, address: 172.31.240.2, port: 5000}
      - {name: quay.io, kind: upstream, address: 172.31.240.3, port: 443}

- name: Remove it
  vllm_ascend.fleet.rehearsal_fleet:
    state: absent
    state_directory: ~/.local/state/vllm_ascend_fleet/rehearsal
"""

RETURN = r"""
actions:
  description: What was done, or would be done.
  returned: success
  type: list
  elements: str
  sample: [create rehearsal-a2-1]
nodes:
  description: State of every container by name, as C(systemctl is-system-running) says, with the failed units.
  returned: when O(state=present)
  type: dict
  sample: {rehearsal-a2-1: {state: running, failed_units: []}}
publish:
  description: Where on this machine's loopback images are pushed into the upstream registry; empty while it does not run.
  returned: when O(state=present)
  type: str
  sample: 127.0.0.1:49153
alone:
  description: Whether no container of another rehearsal fleet is left on this machine.
  returned: when O(state=absent)
  type: bool
"""

import concurrent.futures
import hashlib
import io
import json
import os
import subprocess
import tarfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal, rehearsal_state


# Every systemd, message bus and container engine watches files; machines allow root 128 watchers, which some fifteen hosts use up.
WATCHERS = "/proc/sys/fs/inotify/max_user_instances"
WATCHERS_OF_A_HOST = 16


class EngineError(Exception):
    """A command of the container engine failed; the message names it and its error."""


class Engine:
    """The container engine's command line. Safe to use from several threads, unlike AnsibleModule.run_command."""

    def __init__(self, path):
        self.path = path

    def call(self, *words, **options):
        """Run one command; returns its standard output. ``given`` is its input, ``check=False`` returns None for a failure."""
        # AnsibleModule.run_command is not made for threads, and takes no bytes as input.
        result = subprocess.run(  # pylint: disable=ansible-bad-function
            [self.path] + list(words), input=options.get("given"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
            env=dict(os.environ, LC_ALL="C"))
        if result.returncode == 0:
            return result.stdout.decode("utf-8", "replace")
        if options.get("check", True):
            raise EngineError("%s %s failed: %s" % (self.path, " ".join(words[:2]), result.stderr.decode("utf-8", "replace").strip()))
        return None

    def inspect(self, kind, name):
        text = self.call(kind, "inspect", name, check=False)
        return json.loads(text)[0] if text else None


def file_contents(container, dry):
    """{path: bytes} of what the container is given; a file named by src is read here (in check mode it may not be made yet)."""
    found = {}
    for file in container["files"]:
        if "src" in file and dry and not os.path.exists(file["src"]):
            found[file["path"]] = b""
        elif "src" in file:
            with open(file["src"], "rb") as handle:
                found[file["path"]] = handle.read()
        else:
            found[file["path"]] = file["content"].encode("utf-8")
    return found


def archive(container, contents):
    """A tar stream with those files, owned by root."""
    stream = io.BytesIO()
    modes = {file["path"]: file["mode"] for file in container["files"]}
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folders = set()
        for path in sorted(contents):
            parent = os.path.dirname(path).lstrip("/")
            if parent not in folders:
                folders.add(parent)
                folder = tarfile.TarInfo(parent)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o700 if parent.endswith(".ssh") else 0o755
                tar.addfile(folder)
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(contents[path]), modes[path], 0
            tar.addfile(entry, io.BytesIO(contents[path]))
    return stream.getvalue()


class Fleet:
    def __init__(self, module):
        self.module, self.options, self.actions = module, module.params, []
        self.engine = Engine(module.get_bin_path(self.options["engine"], required=True))
        self.name = self.options["name"]
        self.dry = module.check_mode

    def act(self, what):
        """Remember an action; True when it is to be done now."""
        self.actions.append(what)
        return not self.dry

    def ours_and_others(self):
        """The fleet of each container of any rehearsal fleet on this machine."""
        form = '{{.Label "%s"}}' % rehearsal.LABEL
        return self.engine.call("container", "ls", "--all", "--filter", "label=%s" % rehearsal.LABEL, "--format", form).split()

    def ours(self, kind, form):
        words = [kind, "ls", "--filter", "label=%s=%s" % (rehearsal.LABEL, self.name), "--format", form]
        return self.engine.call(*(words + (["--all"] if kind == "container" else []))).split()

    # --- present

    def described(self):
        keys = ("name", "subnet", "nodes", "registries", "node_image", "registry_image", "state_directory")
        return rehearsal.containers({key: self.options[key] for key in keys})

    def ensure_state(self):
        nodes = [(rehearsal.label(node["name"]), sorted(set([node["address"], node["name"]]))) for node in self.options["nodes"]]
        names = [registry["name"] for registry in self.options["registries"]]
        self.actions += rehearsal_state.ensure(self.options["state_directory"], nodes, names, self.dry)

    def ensure_watchers(self, hosts):
        with open(WATCHERS, encoding="ascii") as handle:
            allowed = int(handle.read())
        wanted = (len(self.ours_and_others()) + hosts) * WATCHERS_OF_A_HOST + 128
        if allowed < wanted and self.act("raise fs.inotify.max_user_instances from %d to %d until the next boot" % (allowed, 4 * wanted)):
            with open(WATCHERS, "w", encoding="ascii") as handle:
                handle.write(str(4 * wanted))

    def ensure_network(self):
        found = self.engine.inspect("network", self.name)
        subnet = self.options["subnet"]
        if found:
            known = [entry.get("Subnet") for entry in found["IPAM"]["Config"]]
            if subnet not in known:
                raise rehearsal.RehearsalError("network %s exists with subnet %s, wanted %s; remove the old fleet with rehearse_clean.yml"
                                               % (self.name, ", ".join(known), subnet))
        elif self.act("create network %s" % self.name):
            self.engine.call("network", "create", "--subnet", subnet, "--label", "%s=%s" % (rehearsal.LABEL, self.name), self.name)

    def ensure_container(self, container):
        """Create, re-create or start one container; returns whether it was made anew."""
        name = container["name"]
        image = self.engine.inspect("image", container["image"])
        if image is None and not self.dry:
            raise rehearsal.RehearsalError("image %s is not here; rehearse.yml builds it" % container["image"])
        contents = file_contents(container, self.dry)
        content = rehearsal.content_hash(container, (image or {}).get("Id"),
                                         {path: hashlib.sha256(text).hexdigest() for path, text in contents.items()})
        found = self.engine.inspect("container", name)
        if found and found["Config"]["Labels"].get(rehearsal.CONTENT_LABEL) == content:
            if not found["State"]["Running"] and self.act("start %s" % name):
                self.engine.call("start", name)
            return False
        if found and found["Config"]["Labels"].get(rehearsal.LABEL) != self.name:
            raise rehearsal.RehearsalError("a container named %s exists that is not of this fleet; rename it or set rehearsal_fleet_name"
                                           % name)
        if self.act("%s %s" % ("re-create" if found else "create", name)):
            if found:
                self.engine.call("rm", "--force", "--volumes", name)
            for volume in container["volumes"].values():
                if found and not container["keep_volumes"]:
                    self.engine.call("volume", "rm", volume)
                self.engine.call("volume", "create", "--label", "%s=%s" % (rehearsal.LABEL, self.name), volume)
            self.engine.call("create", *rehearsal.run_arguments(container, self.name, self.name, content))
            self.engine.call("cp", "-", name + ":/", given=archive(container, contents))
            self.engine.call("start", name)
        return True

    def wait(self, name, fresh):
        """Poll until systemd has finished the start; a fresh container with failed units is an error."""
        deadline = time.monotonic() + self.options["timeout_s"]
        state = "unknown"
        while time.monotonic() < deadline:
            # "running" may be said while the units of multi-user.target are not even queued.
            asked = "systemctl is-active --quiet multi-user.target && systemctl is-system-running; :"
            state = (self.engine.call("exec", name, "sh", "-c", asked, check=False) or "unknown").strip()
            if state in ("running", "degraded"):
                break
            time.sleep(0.2)
        else:
            raise rehearsal.RehearsalError("%s did not finish its start within %d s (systemd says %s); see docker exec %s "
                                           "systemctl list-jobs" % (name, self.options["timeout_s"], state, name))
        failed = []
        if state == "degraded":
            failed = self.engine.call("exec", name, "systemctl", "list-units", "--failed", "--plain", "--no-legend").split("\n")
            failed = [line.split()[0] for line in failed if line.strip()]
        if failed and fresh:
            raise rehearsal.RehearsalError("%s started with failed units %s; see docker exec %s journalctl -u %s"
                                           % (name, ", ".join(failed), name, failed[0]))
        return {"state": state, "failed_units": failed}

    def remove(self, names):
        for name in names:
            if self.act("remove %s" % name):
                self.engine.call("rm", "--force", "--volumes", name)

    def present(self):
        containers = self.described()
        self.ensure_state()
        self.ensure_watchers(len(containers))
        self.ensure_network()
        wanted = [container["name"] for container in containers]
        self.remove(sorted(set(self.ours("container", "{{.Names}}")) - set(wanted)))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            fresh = list(pool.map(self.ensure_container, containers))
            nodes = {} if self.dry else dict(zip(wanted, pool.map(self.wait, wanted, fresh)))
        return {"nodes": nodes, "publish": self.publishes(containers[0]["name"])}

    def publishes(self, registry):
        """Where the registry's door for pushing is on this machine; docker chooses the port at each start."""
        shown = self.engine.call("port", registry, "%d/tcp" % rehearsal.PUBLISH_PORT, check=False) or ""
        return shown.split("\n")[0].strip()

    # --- absent

    def absent(self):
        self.remove(self.ours("container", "{{.Names}}"))
        for kind, form in (("volume", "{{.Name}}"), ("network", "{{.Name}}")):
            for name in self.ours(kind, form):
                if self.act("remove %s %s" % (kind, name)):
                    self.engine.call(kind, "rm", name)
        alone = not set(self.ours_and_others()) - set([self.name])
        if alone:  # otherwise another fleet runs on the same images
            images = self.engine.call("image", "ls", "--filter", "label=%s=image" % rehearsal.LABEL, "--format", "{{.ID}}").split()
            self.remove_images(sorted(set(images)))
        return {"alone": alone}

    def remove_images(self, images):
        """Children have to go before their parents, and an unnamed parent goes with its last child: so in rounds."""
        for image in images:
            self.act("remove image %s" % image)
        while images and not self.dry:
            left = [image for image in images if self.engine.inspect("image", image)
                    and self.engine.call("image", "rm", "--force", image, check=False) is None]
            if len(left) == len(images):
                self.engine.call("image", "rm", "--force", left[0])
            images = left


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", default="rehearsal"),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            subnet=dict(type="str", default="172.31.240.0/24"),
            nodes=dict(type="list", elements="dict", default=[]),
            registries=dict(type="list", elements="dict", default=[]),
            node_image=dict(type="str", default="vllm-ascend-fleet/rehearsal-node:latest"),
            registry_image=dict(type="str", default="vllm-ascend-fleet/rehearsal-registry:latest"),
            state_directory=dict(type="path", required=True),
            timeout_s=dict(type="int", default=120),
            engine=dict(type="str", default="docker"),
        ),
        supports_check_mode=True,
    )
    fleet = Fleet(module)
    try:
        result = fleet.present() if module.params["state"] == "present" else fleet.absent()
    except (rehearsal.RehearsalError, EngineError, OSError) as error:
        module.fail_json(msg=str(error), actions=fleet.actions)
    module.exit_json(changed=bool(fleet.actions), actions=fleet.actions, **result)


if __name__ == "__main__":
    main()
