#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic
short_description: Take a host out of the fleet's traffic, or let it in again
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Tells all gateways of the fleet, or the hooks of a balancer of the operator's own, and writes that into the journal of the rollout of this run.
  - V(state=out) ends when every instance of the host has been idle for a while by its own metrics, or when the deadline of C(fleet_rollout) has passed.
    Metrics that are silent are not taken for zero, and requests that still arrive are told.
  - Runs on the controller and needs M(vllm_ascend.fleet.survey) and M(vllm_ascend.fleet.plan) before.
options:
  state:
    description: V(out) or V(in).
    type: str
    choices: [out, in]
    required: true
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Take this host out of the traffic
  vllm_ascend.fleet.traffic:
    state: out
"""

RETURN = r"""
host:
  description: The host.
  returned: success
  type: str
moved:
  description: Who was told.
  returned: success
  type: list
  elements: str
cut:
  description: How many streams still ran at the deadline and will be cut.
  returned: success
  type: int
instances:
  description: For each instance C(drained), C(running), C(waiting) and C(arrived), how many requests came after it was taken out.
  returned: O(state=out)
  type: dict
"""
