#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_gate
short_description: Prove that the instances of a host answer, themselves, rightly and for long enough
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Waits on the host, for all its instances at the same time, until each is proven or cannot be any more.
  - An instance is proven when its unit is active and does not restart, the listener on its port belongs to its container and to
    nobody else, C(/health) is 200, C(/v1/models) names the right model and context length, a streamed completion keeps its
    deadlines, the answer is readable text and the same over several rounds at temperature 0, and all of it holds for a window.
  - An instance that declares parsers for reasoning or tool calls must show that they work, and its NPUs must be healthy in the end.
  - A unit that failed, a crash loop, a foreign process on the port and a wrong model end the wait at once.
  - A deadline is extended while the engine's log shows progress, at most to twice its length.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details: In check mode the module judges once what runs now and never fails, because nothing was started.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  instances:
    description:
      - The instances, as the plan gives them. Read are C(name), C(unit), C(container), C(port), C(served_model_name), C(max_model_len),
        C(ready_timeout_s), C(stability_window_s), C(arguments) and C(devices).
      - C(expected_answer) is a regular expression that the answer to the fixed question must contain; by default any readable text will do.
      - C(sanity=text) switches the judgement of repetition off, for models that babble by nature.
    type: list
    elements: dict
    required: true
  api_keys:
    description: For each instance by name its API key.
    type: dict
    default: {}
  quick:
    description: Judge once, without waiting and without a window.
    type: bool
    default: false
  smoke:
    description:
      - Ask what deployers ask by hand as well, once the instance is proven. A free answer, one answer in three rounds, arithmetic, a fact, Chinese, a plain
        completion, and reasoning and a tool call where they are declared. The answers are returned.
    type: bool
    default: false
  rounds:
    description: How often the question is asked.
    type: int
    default: 3
  first_token_s:
    description: Deadline of the first token of a completion, in seconds.
    type: float
    default: 60
  gap_s:
    description: Longest time between two tokens, in seconds.
    type: float
    default: 30
  address:
    description: Where the instances listen, as seen from their host.
    type: str
    default: 127.0.0.1
  engine:
    description: The container engine; found out when not given.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine's command.
    type: path
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
  journalctl:
    description: The C(journalctl) to use.
    type: str
    default: journalctl
  npu_smi_path:
    description: Path of C(npu-smi), which tells the health of C(devices) in the end; found out when not given.
    type: path
seealso:
  - module: vllm_ascend.fleet.change
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Wait until all models of this host are proven
  vllm_ascend.fleet.endpoint_gate:
    instances: "{{ plan.hosts[inventory_hostname].instances }}"
    api_keys: "{{ fleet_api_keys }}"

- name: Look once
  vllm_ascend.fleet.endpoint_gate:
    quick: true
    instances:
      - name: gemma-4-e2b-it
        port: 8000
        served_model_name: gemma-4-E2B-it
"""

RETURN = r"""
instances:
  description: What was found of each instance, by name.
  returned: always
  type: dict
  contains:
    ready:
      description: Whether the instance is proven.
      type: bool
    elapsed_s:
      description: Time until it was ready, or until the gate gave up, in seconds.
      type: float
    phase:
      description: How far the engine came, by its log.
      type: str
    findings:
      description: One finding for each rule that was asked, in order.
      type: list
      elements: dict
    journal_tail:
      description: Last lines of the unit's journal, without secrets; empty when the instance is proven.
      type: list
      elements: str
    cause:
      description: The known cause that the journal points at, null when there is none.
      type: dict
    answers:
      description: What was answered to each check, without secrets. With O(smoke=true).
      type: list
      elements: dict
  sample:
    gemma-4-e2b-it:
      ready: true
      elapsed_s: 42.1
      phase: ready
      findings: []
      journal_tail: []
      cause: null
elapsed_s:
  description: How long the gate took, in seconds.
  returned: always
  type: float
  sample: 52.4
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint_probes


def main():
    module = AnsibleModule(
        argument_spec=dict(
            instances=dict(type="list", elements="dict", required=True),
            api_keys=dict(type="dict", default={}, no_log=True),
            quick=dict(type="bool", default=False),
            smoke=dict(type="bool", default=False),
            rounds=dict(type="int", default=3),
            first_token_s=dict(type="float", default=60, no_log=False),
            gap_s=dict(type="float", default=30),
            address=dict(type="str", default="127.0.0.1"),
            engine=dict(type="str", choices=["docker", "podman"]),
            engine_path=dict(type="path"),
            systemctl=dict(type="str", default="systemctl"),
            journalctl=dict(type="str", default="journalctl"),
            npu_smi_path=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    try:
        result, open_ones = endpoint_probes.run(module.params, module.check_mode)
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), **error.result)
    except ValueError as error:
        module.fail_json(msg=str(error))
    if module.check_mode:
        said = "".join("; " + text for text in open_ones)
        module.exit_json(msg="check mode: judged what runs now; nothing was started, so nothing is refused" + said, **result)
    if open_ones:
        more = " (and %d more)" % (len(open_ones) - 1) if len(open_ones) > 1 else ""
        module.fail_json(msg="%d of %d instances not proven: %s%s" % (len(open_ones), len(result["instances"]), open_ones[0], more), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
