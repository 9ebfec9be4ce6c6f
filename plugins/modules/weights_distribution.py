#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_distribution
short_description: Bring weights to one host and from there to the others
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Has one host download a model's folder from O(source), unless one has it already, and lets the others fetch it from hosts that have it. Each host that is
    done serves others in its turn, O(width) at a time, so one transfer goes the long way and the rest stays in the LAN.
  - A host serves its folder on a free port to those that know a token of this run, by a job that ends with the run. Downloads that broke off go on.
  - A host that cannot be served, by a firewall between the hosts for example, is told as a warning and left as it is; M(vllm_ascend.fleet.weights) then
    downloads from the source itself.
  - Runs on the controller; use it with C(run_once). In check mode it does nothing.
options:
  weights:
    description: For each host the folders of its models.
    type: dict
    required: true
  source:
    description: URL of the folder with the folders of the models.
    type: str
    required: true
  width:
    description: So many hosts fetch from one at the same time.
    type: int
    default: 2
  timeout_s:
    description: Seconds for one transfer.
    type: int
    default: 86400
  manifest:
    description: As of M(vllm_ascend.fleet.weights).
    type: str
    choices: [auto, always, never]
    default: auto
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
seealso:
  - module: vllm_ascend.fleet.weights
"""

EXAMPLES = r"""
- name: Have the weights of all hosts by one download
  vllm_ascend.fleet.weights_distribution:
    weights:
      a2-1: [/models/gemma-4-31B-it]
      a2-2: [/models/gemma-4-31B-it]
    source: https://weights.example.net/models
  run_once: true
"""

RETURN = r"""
transfers:
  description: Who fetched what from where.
  returned: success
  type: list
  elements: dict
  sample: [{host: a2-2, path: /models/gemma-4-31B-it, from: a2-1, elapsed_s: 51.2}]
"""
