#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_image
short_description: Build an image of the rehearsal fleet when its sources changed, and publish it
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Builds a folder with a Dockerfile into a local image. The image carries the hash of the folder, of O(build_args) and of the base
    image as a label, and is built again only when that hash changed.
  - With O(publish), the image is also pushed to a registry unless that registry already holds this very image.
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: none
options:
  tag:
    description: Local name of the image.
    type: str
    required: true
  path:
    description: Folder with the Dockerfile. Without it, the image has to be there already.
    type: path
  build_args:
    description: Build arguments; V(BASE), when given, names a local image whose content counts as a source.
    type: dict
    default: {}
  publish:
    description: Names to push the image to, such as V(127.0.0.1:5005/ascend/vllm-ascend:v0.18.0rc1). Loopback registries speak plain HTTP.
    type: list
    elements: str
    default: []
  engine:
    description: Command of the container engine.
    type: str
    default: docker
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Build the image of the simulated hosts
  vllm_ascend.fleet.rehearsal_image:
    tag: vllm-ascend-fleet/rehearsal-node:latest
    path: /usr/share/rehearsal/node
    build_args:
      BASE: vllm-ascend-fleet/rehearsal-base:bookworm
"""

RETURN = r"""
id:
  description: Id of the local image; empty in check mode when it is not built yet.
  returned: success
  type: str
  sample: sha256:b37c2d391152
actions:
  description: What was done, or would be done.
  returned: success
  type: list
  elements: str
  sample: [build vllm-ascend-fleet/rehearsal-node:latest]
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal

MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def folder_files(path):
    """{relative path: (mode, content)} of a build folder; links count by their target's name."""
    found = {}
    for root, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            full = os.path.join(root, name)
            if os.path.islink(full):
                found[os.path.relpath(full, path)] = (0, os.readlink(full).encode("utf-8"))
                continue
            with open(full, "rb") as handle:
                found[os.path.relpath(full, path)] = (os.stat(full).st_mode, handle.read())
    return found


class Image:
    def __init__(self, module):
        self.module, self.options, self.actions = module, module.params, []
        self.engine = module.get_bin_path(self.options["engine"], required=True)

    def inspect(self, tag):
        code, out, unused = self.module.run_command([self.engine, "image", "inspect", tag])
        return json.loads(out)[0] if code == 0 else None

    def run(self, words, **environment):
        code, out, err = self.module.run_command([self.engine] + words, environ_update=dict({"LC_ALL": "C"}, **environment))
        if code:
            self.module.fail_json(msg="%s failed with %d: %s" % (" ".join(words[:2]), code, (err.strip() or out.strip())[-600:]),
                                  cmd=words, rc=code, stdout=out, stderr=err)

    def build(self):
        tag, path, arguments = (self.options[key] for key in ("tag", "path", "build_args"))
        if not os.path.isfile(os.path.join(path, "Dockerfile")):
            self.module.fail_json(msg="%s holds no Dockerfile; path names the folder to build %s from" % (path, tag))
        counted = dict(arguments)
        if "BASE" in arguments:
            counted["BASE"] = (self.inspect(arguments["BASE"]) or {}).get("Id", arguments["BASE"])
        content = rehearsal.directory_hash(folder_files(path), counted)
        known = self.inspect(tag)
        if known and (known["Config"].get("Labels") or {}).get(rehearsal.CONTENT_LABEL) == content:
            return
        self.actions.append("build %s" % tag)
        if self.module.check_mode:
            return
        # The host's network, so that name resolution and proxies are those of the machine that builds.
        words = ["build", "--network", "host", "--tag", tag, "--label", "%s=%s" % (rehearsal.CONTENT_LABEL, content),
                 "--label", "%s=image" % rehearsal.LABEL]
        for name, value in sorted(arguments.items()):
            words += ["--build-arg", "%s=%s" % (name, value)]
        # The classic builder: docker.io of Debian comes without the plugin that the newer one needs.
        self.run(words + [path], DOCKER_BUILDKIT="0")

    def published(self, name, image_id):
        """Whether the registry holds this very image under this name."""
        host, unused, rest = name.partition("/")
        repository, unused, tag = rest.rpartition(":")
        try:
            answer = open_url("http://%s/v2/%s/manifests/%s" % (host, repository, tag), headers={"Accept": MANIFESTS}, timeout=10,
                              use_proxy=False)
            manifest, digest = json.loads(answer.read().decode("utf-8")), answer.headers.get("Docker-Content-Digest")
        except (OSError, ValueError):
            return False
        return image_id in (manifest.get("config", {}).get("digest"), digest)

    def publish(self, image):
        for name in self.options["publish"]:
            if self.published(name, image["Id"]):
                continue
            self.actions.append("push %s" % name)
            if not self.module.check_mode:
                self.run(["tag", self.options["tag"], name])
                try:
                    self.run(["push", name])
                finally:
                    self.module.run_command([self.engine, "rmi", "--no-prune", name])


def main():
    module = AnsibleModule(
        argument_spec=dict(
            tag=dict(type="str", required=True),
            path=dict(type="path"),
            build_args=dict(type="dict", default={}),
            publish=dict(type="list", elements="str", default=[]),
            engine=dict(type="str", default="docker"),
        ),
        supports_check_mode=True,
    )
    image = Image(module)
    if module.params["path"]:
        image.build()
    found = image.inspect(module.params["tag"])
    if found is None and not module.check_mode:
        module.fail_json(msg="there is no local image %s to publish; build it first" % module.params["tag"])
    if found:
        image.publish(found)
    module.exit_json(changed=bool(image.actions), id=(found or {}).get("Id", ""), actions=image.actions)


if __name__ == "__main__":
    main()
