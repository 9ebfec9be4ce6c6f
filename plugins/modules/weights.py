#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights
short_description: Have the whole weights of a model in a folder
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Checks a model's folder by the headers of its safetensors files and by its index. A file that is cut off, a Git-LFS pointer and an HTML error
    page are never taken for weights. When the folder is whole, nothing is asked of the network.
  - Otherwise the files come from O(source) into a folder below, are judged there as a whole, and are renamed into place, C(config.json) last.
    A killed download goes on where it stopped. Free space is looked at before anything is transferred.
  - A folder that several hosts share has one writer at a time, by a lock file. The others wait and then find it whole.
  - The sha256 of every file is written once to C(weights.sha256), in the form of C(sha256sum).
options:
  path:
    description: Folder of the model.
    type: path
    required: true
  source:
    description: Where the files come from, when the folder is not whole. Without it such a folder fails the task.
    type: dict
    suboptions:
      kind:
        description:
          - V(http) is a folder of an HTTP server that has a C(weights.sha256) or lists its files. V(folder) is a folder of this host.
          - V(huggingface) and V(modelscope) are run through their own clients, which must be on this host.
        type: str
        required: true
        choices: [http, folder, huggingface, modelscope]
      location:
        description: The URL, the path, or the repository as C(owner/name).
        type: str
        required: true
      endpoint:
        description: Address of the hub, when it is not the public one.
        type: str
      token:
        description: Token of the hub. It is handed on by environment only.
        type: str
      size_gb:
        description: Size of a hub's repository in GB (10^9 bytes), for the look at the free space.
        type: float
        default: 0.0
  manifest:
    description: V(auto) writes the manifest unless the files are mostly holes, as those of a rehearsal are.
    type: str
    choices: [auto, always, never]
    default: auto
  verify:
    description: Hash every file and compare with the manifest that is there.
    type: bool
    default: false
  timeout_s:
    description: Seconds for a hub's client, and to wait for another writer.
    type: int
    default: 86400
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Have the weights, from a server in the LAN
  vllm_ascend.fleet.weights:
    path: /models/gemma-4-E2B-it
    source:
      kind: http
      location: http://192.0.2.10/models/gemma-4-E2B-it

- name: Refuse a folder that is not whole, and compare every byte
  vllm_ascend.fleet.weights:
    path: /models/gemma-4-E2B-it
    verify: true
"""

RETURN = r"""
problems:
  description: What was wrong with the folder before.
  returned: success
  type: list
  elements: str
manifest:
  description: C(present), C(written) or C(skipped). In check mode C(written) is what would be.
  returned: success
  type: str
files:
  description: Number of files of the model.
  returned: success
  type: int
size_bytes:
  description: Their size.
  returned: success
  type: int
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

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import weights


def run(options, check_mode):
    """The module's result. Raises WeightsError or OSError."""
    source, path = options["source"] or {}, options["path"]
    hub = {}
    if source.get("kind") in weights.CLIENTS:
        hub = dict(timeout_s=options["timeout_s"], endpoint=source["endpoint"], token=source["token"])
    result = weights.ensure(path, source.get("kind"), source.get("location"), check_mode, options["timeout_s"],
                            int((source.get("size_gb") or 0) * 1e9), **hub)
    result["manifest"] = "skipped"
    if not (check_mode and result["changed"]):
        noted = weights.ensure_manifest(path, options["manifest"], options["verify"], check_mode, options["timeout_s"])
        result.update(changed=result["changed"] or noted["changed"], actions=result["actions"] + noted["actions"], manifest=noted["manifest"])
    files = weights.listing(path) if os.path.isdir(path) else {}
    result.update(files=len(files), size_bytes=sum(state.st_size for state in files.values()))
    return result


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            source=dict(type="dict", options=dict(
                kind=dict(type="str", required=True, choices=["http", "folder", "huggingface", "modelscope"]),
                location=dict(type="str", required=True), endpoint=dict(type="str"), token=dict(type="str", no_log=True),
                size_gb=dict(type="float", default=0.0),
            )),
            manifest=dict(type="str", choices=["auto", "always", "never"], default="auto"),
            verify=dict(type="bool", default=False), timeout_s=dict(type="int", default=86400),
        ),
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        result = run(module.params, module.check_mode)
    except weights.WeightsError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or module.params["path"], error.strerror or error))
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    result["diff"] = {"before": {"problems": result["problems"]}, "after": {"problems": []}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
