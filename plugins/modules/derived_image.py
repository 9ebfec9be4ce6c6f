#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: derived_image
short_description: Build the patched image once and publish it to the fleet's registry
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Runs on one builder host. When the target is already in the registry with the same patch set and base, nothing is done.
  - Otherwise the base image is pulled by digest through the mirrors, patched as a series that is all or nothing, given its closed set of Python
    pins, proven by imports, labelled, and pushed.
  - Without a patch set the base image is copied to the target as it is.
  - The patch files are looked at on the controller first. A missing or altered one fails before anything is transferred.
  - A failed build leaves no partial image and no file behind. The base image stays, since the next try needs it.
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
  - vllm_ascend.fleet.container_engine
attributes:
  action:
    description: Has an action plugin of the same name, which checks and transfers the files of the controller.
    support: full
options:
  origin:
    description: The base image, as C(registry/repository:tag).
    type: str
    required: true
  digest:
    description: Digest that the base image must have. When unset, what the registry of O(origin) says is taken and returned, to be locked.
    type: str
  mirrors:
    description: References of the base image at every place it may be pulled from. When empty they are made from O(registries).
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
  patch_set:
    description:
      - The manifest of the patch set, with C(id), C(name), C(patches) (each C(file), C(tree), C(sha256)) and C(python) (C(pins), C(constraints)).
      - When unset, the base image is published unpatched.
    type: dict
  patch_dir:
    description: Folder on the controller that holds the patch files.
    type: path
  wheelhouse:
    description: Folder on the controller with the wheels of the pins. With it the build has no network at all.
    type: path
  pip_index_url:
    description: Package index for the pins when there is no O(wheelhouse). It must not carry credentials, they would stay in the image.
    type: str
  target:
    description: Where to publish, as C(registry/repository:tag).
    type: str
    required: true
  nearby:
    description:
      - The base image by digest in the registry of O(target), as M(vllm_ascend.fleet.registry_copy) left it for the same O(digest). It is taken
        from there before any mirror is asked.
    type: str
  staged:
    description: Set by the action plugin, folder on the builder that holds what it transferred.
    type: path
"""

EXAMPLES = r"""
- name: Publish the image with Gemma 4
  vllm_ascend.fleet.derived_image:
    origin: quay.io/ascend/vllm-ascend:v0.18.0rc1
    architecture: arm64
    patch_dir: /srv/patches
    patch_set:
      name: gemma4-v0.18.0rc1
      patches:
        - file: 0001-Add-Gemma4-support-in-vllm.patch
          tree: /vllm-workspace/vllm
        - file: 0002-Add-Gemma4-runtime-fixes-in-vllm-ascend.patch
          tree: /vllm-workspace/vllm-ascend
      python:
        pins: [transformers==5.5.0]
        constraints: ["numpy<2"]
    target: registry.example.net:5000/ascend/vllm-ascend:v0.18.0rc1-gemma4
    registry_username: fleet
    registry_password: "{{ vault_registry_password }}"
"""

RETURN = r"""
origin:
  description: The base image.
  returned: success
  type: str
target:
  description: Where the image is published.
  returned: success
  type: str
digest:
  description: Digest of the published image; null in check mode while it is not there.
  returned: success
  type: str
base_digest:
  description: Digest of the base image.
  returned: success
  type: str
cann:
  description: CANN version inside of the image, null when it has no toolkit.
  returned: success
  type: str
patches:
  description: The sha256 of each patch file.
  returned: success
  type: dict
verdicts:
  description: What was found for each patch on the trees of the base image, see M(vllm_ascend.fleet.patch_series).
  returned: after a build
  type: list
  elements: dict
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

import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_derive, image_supply, registry


def main():
    module = AnsibleModule(
        argument_spec=dict(
            image_supply.ENGINE_OPTIONS,
            origin=dict(type="str", required=True), digest=dict(type="str"), mirrors=dict(type="list", elements="str", default=[]),
            registries=dict(type="dict", default={}), architecture=dict(type="str", required=True), patch_set=dict(type="dict"),
            patch_dir=dict(type="path"), wheelhouse=dict(type="path"), pip_index_url=dict(type="str"), target=dict(type="str", required=True),
            staged=dict(type="path"), nearby=dict(type="str"),
        ),
        required_together=[("registry_username", "registry_password")],
        supports_check_mode=True,
    )
    options, started = module.params, time.monotonic()
    private = tempfile.mkdtemp(prefix="vllm-ascend-fleet-", dir=module.tmpdir)
    try:
        engine = image_supply.engine_for(options, private, options["target"])
        result = image_derive.Derivation(engine, options, private, module.check_mode, started + options["timeout_s"]).run()
    except image_supply.SupplyError as error:
        module.fail_json(msg=str(error), **error.facts)
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), **{key: error.result[key] for key in ("cmd", "rc", "stdout", "stderr")})
    except registry.RegistryError as error:
        module.fail_json(msg=str(error), status=error.status)
    finally:
        shutil.rmtree(private)
    for sentence in image_supply.warnings(result):
        module.warn(sentence)
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    result["diff"] = {"before": {"digest": None if result["changed"] else result["digest"]}, "after": {"digest": result["digest"] or "to be built"}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
