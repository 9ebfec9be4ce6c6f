#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patch_series
short_description: Apply an ordered series of patches to work trees, or take it out, all or nothing
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Judges every patch first, then writes all trees or none. When anything fails the trees are bit for bit as before.
  - A patch may build on one before it. Patches are taken out in reverse order.
  - A tree must be the top folder of its repository, or lie in no repository at all, because C(git apply) silently skips files elsewhere.
  - Line ends are never converted. The owner of the tree and the configuration of git have no influence.
requirements:
  - git
options:
  patches:
    description: The patches, in the order in which they are applied.
    type: list
    elements: dict
    required: true
    suboptions:
      file:
        description: Path of the patch file on this host. Bring it there as binary, not through a template.
        type: path
        required: true
      tree:
        description: Top folder of the sources to patch.
        type: path
        required: true
      sha256:
        description: What the patch file must hash to.
        type: str
  state:
    description: Whether the series is to be in the trees.
    type: str
    choices: [present, absent]
    default: present
  git:
    description: Path of git, when it is not in the usual places.
    type: path
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Have both Gemma 4 patches in the sources
  vllm_ascend.fleet.patch_series:
    patches:
      - file: /root/patches/0001-Add-Gemma4-support-in-vllm.patch
        tree: /vllm-workspace/vllm
      - file: /root/patches/0002-Add-Gemma4-runtime-fixes-in-vllm-ascend.patch
        tree: /vllm-workspace/vllm-ascend

- name: Take them out again, the second one first
  vllm_ascend.fleet.patch_series:
    state: absent
    patches:
      - file: /root/patches/0001-Add-Gemma4-support-in-vllm.patch
        tree: /vllm-workspace/vllm
      - file: /root/patches/0002-Add-Gemma4-runtime-fixes-in-vllm-ascend.patch
        tree: /vllm-workspace/vllm-ascend
"""

RETURN = r"""
verdicts:
  description: What was found for each patch, before anything was written.
  returned: success, and failure after the trees were read
  type: list
  elements: dict
  contains:
    patch:
      description: Name of the patch file.
      type: str
    tree:
      description: The tree.
      type: str
    sha256:
      description: Hash of the patch file.
      type: str
    verdict:
      description: One of C(applies), C(already_there), C(partly_there), C(conflicts).
      type: str
    files:
      description:
        - State of each file that the patch names. For a conflict also the number of the hunk, the line, and the expected and found lines.
      type: list
      elements: dict
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: [apply 0001-Add-Gemma4-support-in-vllm.patch to /vllm-workspace/vllm]
files:
  description: For each tree, the sha256 of every file that the series names as it is afterwards; null for a file that is not there.
  returned: success
  type: dict
"""

import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import patch_series


def file_diff(changes):
    """What ansible shows for ``--diff``: one entry for each file."""
    return [
        dict(
            before_header="%s/%s" % (tree, name), after_header="%s/%s" % (tree, name),
            before=text(before), after=text(after),
        )
        for tree, name, before, after in changes
    ]


def text(state):
    """The content of a file state for a diff."""
    return state[2].decode("utf-8", "backslashreplace") if state and state[2] is not None else ""


def main():
    module = AnsibleModule(
        argument_spec=dict(
            patches=dict(
                type="list", elements="dict", required=True,
                options=dict(file=dict(type="path", required=True), tree=dict(type="path", required=True), sha256=dict(type="str")),
            ),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            git=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    git = module.params["git"] or module.get_bin_path("git", required=True)
    workdir = tempfile.mkdtemp(prefix="vllm-ascend-fleet-", dir=module.tmpdir)
    try:
        result = patch_series.run_series(module.params["patches"], module.params["state"], not module.check_mode, git, workdir)
    except patch_series.PatchError as error:
        module.fail_json(msg=str(error), verdicts=error.verdicts)
    finally:
        shutil.rmtree(workdir)
    module.exit_json(diff=file_diff(result.pop("change")), **result)


if __name__ == "__main__":
    main()
