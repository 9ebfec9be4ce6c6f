#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patch_check
short_description: Check a patch set against the true sources, without any host
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Judges every patch of a set on copies of the sources, on the controller. No host is touched and no NPU is needed.
  - The series is also put in and taken out again, after which every file of the sources must be bit for bit what it was.
  - A patch that the sources already contain is proposed for removal. One that fits only in part or not at all fails the task.
  - Without O(trees) the sources are taken out of the image by the controller's container engine. The image stays there afterwards.
options:
  patch_set:
    description: Name of a patch set of the catalogue.
    type: str
    required: true
  patch_directory:
    description: Folder on the controller with the patch files.
    type: path
    required: true
  trees:
    description:
      - Folder on the controller that holds the sources, each at its whole path below it (C(vllm-workspace/vllm)) or by its last name (C(vllm)).
    type: path
    default: ""
  platform:
    description: Platform of the catalogue whose variant of the base image is taken, such as V(310p).
    type: str
    default: ""
  image:
    description: Image to take the sources from, instead of the base image of the set.
    type: str
    default: ""
  registries:
    description: Mirrors by origin registry, in the form of C(catalogue/images.yml). When empty, those of the catalogue.
    type: dict
    default: {}
  catalogue_directories:
    description: Folders in the form of C(catalogue/), laid over the built-in one.
    type: list
    elements: path
    default: []
  images_lock:
    description: The lock file with the digests that the fleet has settled on.
    type: path
    default: images.lock.yml
  report_directory:
    description: Folder for the report.
    type: path
    default: reports
  engine:
    description: Container engine of the controller, when it has both.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine, when it is not in the usual places.
    type: path
  timeout_s:
    description: Seconds for the image.
    type: int
    default: 7200
seealso:
  - module: vllm_ascend.fleet.patch_series
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Judge the patches against the sources of their base image
  vllm_ascend.fleet.patch_check:
    patch_set: gemma4-v0.18.0rc1
    patch_directory: /srv/patches

- name: Judge them against sources that are unpacked here
  vllm_ascend.fleet.patch_check:
    patch_set: gemma4-v0.18.0rc1
    patch_directory: /srv/patches
    trees: /srv/sources
"""

RETURN = r"""
patch_set:
  description: Name of the set.
  returned: after the sources were read
  type: str
id:
  description: Id of the set, made from the hashes of its files.
  returned: after the sources were read
  type: str
source:
  description: The folder, or the image with its digest, that was judged.
  returned: after the sources were read
  type: dict
patches:
  description: The verdicts of M(vllm_ascend.fleet.patch_series), in order. Those of each file stand in RV(report) only.
  returned: after the sources were read
  type: list
  elements: dict
  contains:
    verdict:
      description: One of C(applies), C(already_there), C(partly_there), C(conflicts).
      type: str
    round_trip:
      description: Whether forward and back leaves the tree bit for bit as it was; null when it could not be tried.
      type: bool
    ok:
      description: Whether the patch can be used.
      type: bool
    proposal:
      description: What to do about it, or null.
      type: str
report:
  description: The report file.
  returned: after the sources were read
  type: str
"""
