#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: survey
short_description: Look at all hosts of the play at once
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Asks every host of the play what M(vllm_ascend.fleet.npu_info) tells, in one round trip each and all at the same time, over Ansible's own connections.
    Use it with C(run_once). What it finds stays on the controller for the later tasks of the run.
  - A host that does not answer, refuses the login or has no usable Python does not fail the task, it gets a survey that names the reason and the
    remedy, for M(vllm_ascend.fleet.plan) to judge.
options:
  request:
    description:
      - Options of M(vllm_ascend.fleet.npu_info) for all hosts. They stand over what M(vllm_ascend.fleet.plan) with C(stage=intent) found out for each.
    type: dict
    default: {}
  hosts:
    description: The hosts to look at, all of the play when not given.
    type: list
    elements: str
  prove:
    description: Ask every installed instance once whether it answers, as M(vllm_ascend.fleet.endpoint_gate) with C(quick=true), in the same look.
    type: bool
    default: false
  smoke:
    description: With O(prove=true), ask every instance as well what deployers ask by hand, and keep the answers.
    type: bool
    default: false
  model:
    description: For RV(installed), only instances of this model, or of this name. Empty means all.
    type: str
    default: ""
  previous:
    description: For RV(installed), only instances that have a release to go back to.
    type: bool
    default: false
  reach:
    description:
      - What M(vllm_ascend.fleet.reach) found. A host that surely cannot be talked to is not tried again.
      - Without it, a host that gives no survey is asked step by step why.
    type: dict
    default: {}
seealso:
  - module: vllm_ascend.fleet.reach
  - module: vllm_ascend.fleet.npu_info
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Look at every host
  vllm_ascend.fleet.survey:
    request:
      ports: [8000]
  run_once: true
  register: seen
"""

RETURN = r"""
installed:
  description: For each host the names of the instances of ours that are installed.
  returned: success
  type: dict
  sample: {a2-1: [gemma-4-e2b-it]}
known:
  description: Names of all instances that are installed anywhere.
  returned: success
  type: list
  elements: str
unreachable_hosts:
  description: For each host that gave no survey why, and the remedy.
  returned: success
  type: dict
without_instances:
  description: Hosts that have no instance of ours and hold no lease of a rollout that runs.
  returned: success
  type: list
  elements: str
our_images:
  description: For each host the references of the images that are there because of us.
  returned: success
  type: dict
engines:
  description: For each host its container engine.
  returned: success
  type: dict
"""
