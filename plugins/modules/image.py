#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Have a container image on this host, proven by its digest
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Makes sure that the image with one digest is on this host. When it is, nothing is asked of the network.
  - Otherwise all mirrors are asked at the same time for the digest that they hold. One that disagrees with the wanted digest is named and
    never used in that run. The image is pulled by digest from the fastest of the others, by a short measurement, and from the next one when
    a pull dies or crawls.
  - The architecture is compared before the pull and after it.
  - The pull is a detached job of the host, as M(vllm_ascend.fleet.job) runs them, which needs root. The task follows it, shows bytes and rate as a
    line from time to time, and opens a lost connection again. A run that was broken off finds the pull where it is by then.
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
  - vllm_ascend.fleet.container_engine
options:
  reference:
    description:
      - The image, as C(registry/repository@sha256:...), or C(registry/repository:tag) together with O(digest).
    type: str
    required: true
  digest:
    description:
      - The wanted digest, unless O(reference) has one.
      - Without any digest the mirrors are asked each time, and what the registry of O(reference) says is taken.
    type: str
  mirrors:
    description:
      - References of the same image at every place it may be pulled from. When empty, O(reference) alone is used.
    type: list
    elements: str
    default: []
  architecture:
    description: Architecture that the image must have, in the words of the registries (V(amd64), V(arm64)).
    type: str
  state:
    description:
      - V(present) pulls what is missing.
      - V(absent) removes this one reference, and refuses while a container uses the image.
    type: str
    choices: [present, absent]
    default: present
  state_directory:
    description: Where jobs are kept, in the folder C(jobs).
    type: path
    default: /var/lib/vllm-ascend-fleet
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
  systemd_run:
    description: The C(systemd-run) to use.
    type: str
    default: systemd-run
  bundle:
    description:
      - Has the image copied from a bundle on the controller instead of pulled, see M(vllm_ascend.fleet.bundle). The plan names it.
      - The image is then known to the host's engine as C(127.0.0.1:5380/repository@sha256:...).
    type: dict
    suboptions:
      folder:
        description: Folder of the bundle.
        type: path
        required: true
      blobs:
        description: Bytes by sha256 of what the image consists of.
        type: dict
        required: true
  patience_s:
    description: Seconds during which a lost connection is opened again and again. Read by the action.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Have the patched image, from the fleet's own registry
  vllm_ascend.fleet.image:
    reference: registry.example.net:5000/ascend/vllm-ascend@sha256:4c2f6a1f0e4f6a4f7c7c3cf1f6a1a6e8a4a39b8cc7a3e1b2d8f7a6b5c4d3e2f1
    architecture: arm64
    registry_username: fleet
    registry_password: "{{ vault_registry_password }}"

- name: Have the public image, from whichever mirror is fastest
  vllm_ascend.fleet.image:
    reference: quay.io/ascend/vllm-ascend:v0.18.0rc1
    digest: sha256:4c2f6a1f0e4f6a4f7c7c3cf1f6a1a6e8a4a39b8cc7a3e1b2d8f7a6b5c4d3e2f1
    mirrors:
      - m.daocloud.io/quay.io/ascend/vllm-ascend:v0.18.0rc1
      - quay.nju.edu.cn/ascend/vllm-ascend:v0.18.0rc1
      - quay.io/ascend/vllm-ascend:v0.18.0rc1
"""

RETURN = r"""
id:
  description: Image id in the engine. Null in check mode when the image is not there, and after a removal.
  returned: success
  type: str
  sample: sha256:0d1f...
digest:
  description: Digest of the image.
  returned: success
  type: str
local_reference:
  description: Name by digest that this engine resolves without asking a registry; that of the mirror when it came from a mirror.
  returned: success
  type: str
mirror:
  description: Reference from which it was pulled, null when it was there.
  returned: success
  type: str
liars:
  description: Mirrors that announced another digest and were put aside.
  returned: success and failure after the mirrors were asked
  type: list
  elements: dict
  contains:
    reference:
      description: The image as that mirror spells it.
      type: str
    digest:
      description: The digest that it announced.
      type: str
speeds:
  description: The mirrors in the order in which they were used, with the measured bytes per second, null when it could not be measured.
  returned: after a pull, when more than one mirror could be used
  type: list
  elements: dict
note:
  description: How the digest was found when none was given, and what went wrong on the way to success.
  returned: success
  type: str
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
elapsed_s:
  description: Seconds that the module ran.
  returned: success
  type: float
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_supply


def remove(options, check_mode):
    """The result of removing one reference; CommandError or SupplyError when a container stands on it."""
    result = dict(image_supply.empty(), diff={"before": {"image": None}, "after": {"image": None}})
    engine = container_cli.Engine(*container_cli.find_engine(options["engine"], options["engine_path"]))
    reference = options["reference"]
    found = engine.image(reference)
    if found is None:
        return result
    users = engine.containers_of(reference)
    if users:
        raise image_supply.SupplyError("image %s is used by the containers %s; remove them first" % (reference, ", ".join(users)))
    if not check_mode:
        engine.run(["rmi", reference])
    result["diff"]["before"]["image"] = reference
    return dict(result, changed=True, actions=["remove " + reference])


def main():
    module = AnsibleModule(argument_spec=image_supply.ARGUMENTS, required_together=image_supply.TOGETHER, supports_check_mode=True)
    options, started = module.params, time.monotonic()
    if options["state"] == "present":
        result = image_supply.answer(options, module.check_mode, module.tmpdir)
        if result.get("failed"):
            module.fail_json(**result)
        for sentence in image_supply.warnings(result):
            module.warn(sentence)
        module.exit_json(**result)
    try:
        result = remove(options, module.check_mode)
    except image_supply.SupplyError as error:
        module.fail_json(msg=str(error))
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), **{key: error.result[key] for key in ("cmd", "rc", "stdout", "stderr")})
    module.exit_json(elapsed_s=round(time.monotonic() - started, 3), **result)


if __name__ == "__main__":
    main()
