#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: Make or prove the one folder from which a fleet without a network is deployed
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - A bundle holds the images of the plan as an OCI image layout, the patch files, the packages of the pins, what the controller's Python needs,
    this collection, a list of its parts in CycloneDX, and a manifest with one root hash over all. C(playbooks/bundle.yml) makes one.
  - The stages V(images) and V(seal) take the plan that M(vllm_ascend.fleet.plan) has completed in the same run.
options:
  stage:
    description:
      - V(verify) hashes every file of the bundle on the controller. What is missing, altered or too much fails the task. The plan of this run is then
        made from the bundle. Use it with C(run_once), before the plan.
      - V(images) brings the images that this host was chosen for from the registry into the bundle. It is followed as a job of the host.
      - V(seal) adds the rest and writes the hashes. A pin without a package fails the task. Use it with C(run_once).
    type: str
    choices: [verify, images, seal]
    required: true
  path:
    description: Folder of the bundle on the controller.
    type: path
    required: true
  root:
    description: With V(stage=verify), the root hash that the bundle must have, as whoever made it told.
    type: str
    default: ""
  patch_directory:
    description: Folder on the controller with the patch files.
    type: path
    default: ""
  wheelhouse:
    description: Folder on the controller with the packages of the patch sets' pins. When empty they are downloaded for this controller's Python.
    type: path
    default: ""
  python:
    description: Folder on the controller with the packages that this controller's Ansible consists of. When empty they are downloaded.
    type: path
    default: ""
  pip_index_url:
    description: Package index to download from, without credentials.
    type: str
    default: ""
  weights:
    description: Folder on the controller with one folder for each model, whose files are listed with their hashes.
    type: path
    default: ""
  copy_weights:
    description: Have the weights themselves in the bundle too.
    type: bool
    default: false
  images_lock:
    description: The lock file with the digests that the fleet has settled on.
    type: path
    default: images.lock.yml
  registry_username:
    description: User name for the fleet's registry.
    type: str
    default: ""
  registry_password:
    description: Password for the fleet's registry.
    type: str
    default: ""
  timeout_s:
    description: Seconds for one image.
    type: int
    default: 7200
seealso:
  - module: vllm_ascend.fleet.image
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Prove the bundle before any host is touched
  vllm_ascend.fleet.bundle:
    stage: verify
    path: /media/usb/bundle
  run_once: true
"""

RETURN = r"""
root:
  description: The root hash.
  returned: with V(stage=verify) and V(stage=seal)
  type: str
images:
  description: The images, with V(stage=verify) all without their registry, with V(stage=images) those of this host.
  returned: with V(stage=verify) and V(stage=images)
  type: list
  elements: str
files:
  description: How many files the manifest names.
  returned: with V(stage=seal)
  type: int
bytes:
  description: Size of the bundle.
  returned: with V(stage=seal)
  type: int
"""
