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

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments, container_cli, release


def command(instance, name):
    """Arguments of the container engine that have the parser of an instance's image read its arguments."""
    line = ["run", "--rm", "--name", name, "--pull", "never", "--network", "none", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE",
            "--security-opt", "no-new-privileges", "--log-driver", "none", "--workdir", "/workspace"]
    for mount in instance.get("mounts") or ():
        line += ["--mount", "type=bind,source=%s,target=%s,readonly" % (mount["source"], mount["target"])]
    for key, value in sorted((instance.get("environment") or {}).items()):
        line += ["--env", "%s=%s" % (key, value)]
    return line + [instance["image_reference"]] + release.WITH_LIBRARY_PATH + ["vllm", "serve"] + instance["arguments"] + [arguments.PARSE_ONLY]


def read(engine, instance, timeout_s):
    """{"status", "found"} of one instance."""
    name = "vllm-ascend-parse-%s-%d" % (instance["name"], os.getpid())
    result = engine.run(command(instance, name), timeout_s=timeout_s, check=False)
    if result["timed_out"]:
        # Only the client was killed.
        engine.run(["rm", "--force", name], check=False)
        return {"status": "unknown", "found": "no end within %g s" % timeout_s}
    status, found = arguments.parser_verdict(result["rc"], result["stderr"])
    return {"status": status, "found": found}


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
    try:
        if instances:
            engine = container_cli.Engine(*container_cli.find_engine(module.params["engine"], module.params["engine_path"]))
        for instance in instances:
            results[instance["name"]] = read(engine, instance, module.params["timeout_s"])
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), instances=results, **error.result)
    except KeyError as error:
        module.fail_json(msg="instances: each needs %s, as the plan gives them" % error, instances=results)
    refused = []
    for instance in instances:
        result = results[instance["name"]]
        if result["status"] == "fail":
            refused.append("%s: the parser of %s refuses its arguments: %s" % (instance["name"], instance["image_reference"], result["found"]))
        elif result["status"] == "unknown":
            module.warn("%s: the parser of %s could not be asked: %s" % (instance["name"], instance["image_reference"], result["found"]))
    if refused:
        module.fail_json(msg="; ".join(refused) + "; correct them in the inventory (plan.yml shows from where each comes); nothing was stopped",
                         instances=results)
    module.exit_json(changed=False, instances=results)


if __name__ == "__main__":
    main()
