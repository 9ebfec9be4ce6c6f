#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_copy
short_description: Copy an image from one of its mirrors into the fleet's registry
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Copies the image of one architecture blob by blob, byte for byte, with no container engine between. What the registry has is not copied again, so a run
    that was cut off is gone on with by the next.
  - The mirrors are asked for the digest first. One that announces another digest is put aside, the others are used fastest first. Where one breaks off, the
    next one goes on; what is damaged is thrown away.
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
options:
  origin:
    description: The image, as C(registry/repository:tag).
    type: str
    required: true
  digest:
    description: Digest that the image must have. When unset, what the registry of O(origin) says is taken and returned, to be locked.
    type: str
  mirrors:
    description: References of the image at every place it may be copied from. When empty they are made from O(registries).
    type: list
    elements: str
    default: []
  registries:
    description: Mirrors by origin registry, in the form of C(catalogue/images.yml).
    type: dict
    default: {}
  architecture:
    description: Architecture of the image in the words of the registries (V(amd64), V(arm64)).
    type: str
    required: true
  target:
    description: Where to copy to, as C(registry/repository:tag).
    type: str
    required: true
  known:
    description: Digest that an earlier run returned for the same O(digest). While the target has it no mirror is asked.
    type: str
  registry_username:
    description: User name for the registry of O(target). It is sent to that registry alone, never to a mirror.
    type: str
  registry_password:
    description: Password or token that belongs to O(registry_username).
    type: str
  timeout_s:
    description: Seconds for the whole task, every retry and mirror included.
    type: int
    default: 7200
"""

EXAMPLES = r"""
- name: Have the image in the fleet's registry
  vllm_ascend.fleet.registry_copy:
    origin: quay.io/ascend/vllm-ascend:v0.18.0rc1
    registries:
      quay.io:
        mirrors:
          - kind: host
            host: quay.nju.edu.cn
          - kind: origin
    architecture: arm64
    target: registry.example.net:5000/ascend/vllm-ascend:v0.18.0rc1-plain-arm64
    registry_username: fleet
    registry_password: "{{ vault_registry_password }}"
"""

RETURN = r"""
origin:
  description: The image.
  returned: success
  type: str
target:
  description: Where it is in the fleet's registry.
  returned: success
  type: str
digest:
  description: Digest there, which is that of the one architecture; null in check mode while it is not there.
  returned: success
  type: str
base_digest:
  description: Digest of the image at its origin.
  returned: success
  type: str
bytes:
  description: Bytes that were copied.
  returned: success
  type: int
liars:
  description: Mirrors that announced another digest and were put aside.
  returned: after the mirrors were asked
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
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_supply, registry, registry_copy


def insecure():
    """Which registries the host's engine speaks plain HTTP with; a host without one speaks it with none."""
    try:
        return container_cli.Engine(*container_cli.find_engine()).insecure_registries()
    except container_cli.CommandError:
        return registry_copy.nobody


def main():
    module = AnsibleModule(
        argument_spec=dict(
            origin=dict(type="str", required=True), digest=dict(type="str"), mirrors=dict(type="list", elements="str", default=[]),
            registries=dict(type="dict", default={}), architecture=dict(type="str", required=True), target=dict(type="str", required=True),
            known=dict(type="str"), registry_username=dict(type="str"), registry_password=dict(type="str", no_log=True),
            timeout_s=dict(type="int", default=7200),
        ),
        required_together=[("registry_username", "registry_password")],
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        result = registry_copy.Copy(module.params, module.check_mode, insecure()).run()
    except image_supply.SupplyError as error:
        module.fail_json(msg=str(error), **error.facts)
    except registry.RegistryError as error:
        module.fail_json(msg=str(error), status=error.status)
    for sentence in image_supply.warnings(dict(result, digest=result["base_digest"])) + ([result["note"]] if module.check_mode and result["note"] else []):
        module.warn(sentence)
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    result["diff"] = {"before": {"digest": None if result["changed"] else result["digest"]}, "after": {"digest": result["digest"] or "to be copied"}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
