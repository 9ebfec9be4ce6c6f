#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnose
short_description: Collect logs and evidence of instances, without secrets
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Reads the last lines of each instance's journal, and with O(everything=true) also its unit, environment, manifest and container, what
    systemd says of it, C(npu-smi info), and the kernel's last warnings.
  - Whatever stands in the secret files of the instances or in O(secrets), or looks like a secret, is hidden before it leaves the host.
  - Changes nothing. What cannot be read says so in its own place.
options:
  instances:
    description: Names of the instances, or dictionaries with C(name), C(unit) and C(container).
    type: list
    elements: raw
    required: true
  lines:
    description: How many lines of each journal.
    type: int
    default: 200
  everything:
    description: Collect all evidence, not only journals.
    type: bool
    default: false
  secrets:
    description: Texts that are hidden wherever they appear.
    type: list
    elements: str
    default: []
  archive:
    description: Write what was found into this archive on the controller instead of printing it.
    type: path
  state_directory:
    description: Where the releases are kept.
    type: path
    default: /var/lib/vllm-ascend-fleet
  secret_directory:
    description: Where the secrets are kept.
    type: path
    default: /etc/vllm-ascend-fleet
  engine:
    description: The container engine; found out when not given.
    type: str
    choices: [docker, podman]
  npu_smi_path:
    description: Path of C(npu-smi); found out when not given.
    type: path
  journalctl:
    description: The C(journalctl) to use.
    type: str
    default: journalctl
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Show the last lines of every journal
  vllm_ascend.fleet.diagnose:
    instances: [gemma-4-e2b-it]
    lines: 50
"""

RETURN = r"""
files:
  description: What was found, by name. Left out when O(archive) was written.
  returned: success
  type: dict
  sample: {gemma-4-e2b-it/journal.txt: "2026-11-21T10:00:00+0000 ..."}
archive:
  description: The archive that was written on the controller.
  returned: with O(archive)
  type: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint, survey_sources

TOOL_S = 30.0


def told(args):
    """Output of a command, or the reason why there is none."""
    result = container_cli.run(args, TOOL_S)
    if result["timed_out"]:
        return "%s: no answer within %.0f s\n" % (" ".join(args), TOOL_S)
    if result["rc"] != 0 and not result["stdout"].strip():
        return "%s: %s\n" % (" ".join(args), container_cli.last_line(result["stderr"]) or "exit %s" % result["rc"])
    return result["stdout"]


def file_text(path):
    """Text of a file, or the reason why there is none."""
    text, error = survey_sources.read_text(path)
    return text if error is None else error + "\n"


def known_secrets(directory, names):
    """Values of the instances' secret files."""
    values = []
    for name in names:
        text = survey_sources.read_text(os.path.join(directory, name + ".secret"))[0] or ""
        values += [line.split("=", 1)[1] for line in text.splitlines() if "=" in line]
    return values


def inspected(engine, container):
    """What the engine holds of a container."""
    result = engine.run(["container", "inspect", container], check=False)
    return result["stdout"] if result["rc"] == 0 else "%s: %s\n" % (container, container_cli.last_line(result["stderr"]) or "not found")


def hidden(text, secrets):
    """A text without secrets; JSON stays JSON."""
    try:
        return json.dumps(endpoint.redact_data(json.loads(text), secrets), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    except ValueError:
        return endpoint.redact(text, secrets)


def collect(params):
    """{name: text} of everything asked for, without secrets."""
    instances = [dict({"unit": "vllm-ascend-%s.service" % i["name"], "container": "vllm-ascend-%s" % i["name"]}, **i) for i in params["instances"]]
    secrets = params["secrets"] + known_secrets(params["secret_directory"], [instance["name"] for instance in instances])
    files, engine = {}, None
    for instance in instances:
        place = instance["name"] + "/"
        files[place + "journal.txt"] = told([
            params["journalctl"], "--unit", instance["unit"], "--lines", str(params["lines"]), "--output", "short-iso", "--no-pager", "--quiet"])
        if not params["everything"]:
            continue
        files[place + "unit.txt"] = told([params["systemctl"], "cat", "--no-pager", instance["unit"]])
        files[place + "systemd.txt"] = told([params["systemctl"], "show", "--no-pager", instance["unit"]])
        for name in ("environment", "manifest.json"):
            files[place + name] = file_text(os.path.join(params["state_directory"], "instances", instance["name"], "current", name))
        try:
            engine = engine or container_cli.Engine(*container_cli.find_engine(params["engine"], None))
            files[place + "container.json"] = inspected(engine, instance["container"])
        except container_cli.CommandError as error:
            files[place + "container.json"] = "%s\n" % error
    if params["everything"]:
        files["npu-smi.txt"] = told([survey_sources.find_tool("npu-smi", params["npu_smi_path"]) or "npu-smi", "info"])
        files["kernel.txt"] = told([params["journalctl"], "--dmesg", "--priority", "warning", "--lines", str(params["lines"]), "--no-pager", "--quiet"])
    return dict((name, hidden(text, secrets)) for name, text in files.items())


def main():
    module = AnsibleModule(
        argument_spec=dict(
            instances=dict(type="list", elements="raw", required=True),
            lines=dict(type="int", default=200),
            everything=dict(type="bool", default=False),
            secrets=dict(type="list", elements="str", default=[], no_log=True),
            archive=dict(type="path"),
            state_directory=dict(type="path", default="/var/lib/vllm-ascend-fleet"),
            secret_directory=dict(type="path", default="/etc/vllm-ascend-fleet", no_log=False),
            engine=dict(type="str", choices=["docker", "podman"]),
            npu_smi_path=dict(type="path"),
            journalctl=dict(type="str", default="journalctl"),
            systemctl=dict(type="str", default="systemctl"),
        ),
        supports_check_mode=True,
    )
    module.params["instances"] = [{"name": each} if isinstance(each, str) else each for each in module.params["instances"]]
    nameless = [instance for instance in module.params["instances"] if not instance.get("name")]
    if nameless:
        module.fail_json(msg="instances: each needs a name, as the filter vllm_ascend.fleet.installed gives them")
    if module.params["lines"] < 1:
        module.fail_json(msg="lines: %d is no number of lines; give at least 1" % module.params["lines"])
    module.exit_json(changed=False, files=collect(module.params))


if __name__ == "__main__":
    main()
