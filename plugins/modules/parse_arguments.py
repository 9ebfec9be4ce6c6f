#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: parse_arguments
short_description: Have an engine's own parser read the arguments of instances
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Runs C(vllm serve) of each instance's own image with its own arguments in a throw-away container without devices and network. A flag
    that nobody knows stands last, so that the parser reads all others and then ends before anything is loaded.
  - Fails when a parser objects. A parser that does not come to reading, for whatever reason, is a warning and not a verdict.
  - Changes nothing. The image must be on the host; it is never pulled.
options:
  instances:
    description: The instances, as the plan gives them. Read are C(name), C(image_reference), C(arguments), C(environment) and C(mounts).
    type: list
    elements: dict
    required: true
  timeout_s:
    description: Deadline for each parser, in seconds.
    type: float
    default: 180
  engine:
    description: The container engine; found out when not given.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine's command.
    type: path
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Have the engine's own parser read the arguments
  vllm_ascend.fleet.parse_arguments:
    instances: "{{ plan.hosts[inventory_hostname].instances }}"
"""

RETURN = r"""
instances:
  description: For each instance by name C(status), V(pass), V(fail) or V(unknown), and C(found), what its parser said.
  returned: always
  type: dict
  sample: {gemma-4-e2b-it: {status: pass, found: null}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, parse_host


def main():
    module = AnsibleModule(
        argument_spec=dict(
            instances=dict(type="list", elements="dict", required=True),
            timeout_s=dict(type="float", default=180),
            engine=dict(type="str", choices=["docker", "podman"]),
            engine_path=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    instances, results = module.params["instances"], {}
    refused = None
    try:
        if instances:
            engine = container_cli.Engine(*container_cli.find_engine(module.params["engine"], module.params["engine_path"]))
            refused, unsure, results = parse_host.refusals(engine, instances, module.params["timeout_s"])
            for text in unsure:
                module.warn(text)
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), instances=results, **error.result)
    except KeyError as error:
        module.fail_json(msg="instances: each needs %s, as the plan gives them" % error, instances=results)
    if refused:
        module.fail_json(msg=refused, instances=results)
    module.exit_json(changed=False, instances=results)


if __name__ == "__main__":
    main()
