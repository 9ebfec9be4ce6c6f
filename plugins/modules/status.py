#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Say what runs in the fleet and whether it answers
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Prints one line per instance from what M(vllm_ascend.fleet.survey) and M(vllm_ascend.fleet.endpoint_gate) left of every host of the play.
    Runs on the controller.
options:
  survey:
    description: Name of the variable that holds the result of M(vllm_ascend.fleet.survey).
    type: str
    required: true
  proof:
    description: Name of the variable that holds the result of M(vllm_ascend.fleet.endpoint_gate).
    type: str
    required: true
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Say what runs
  vllm_ascend.fleet.status:
    survey: seen
    proof: prove_result
  run_once: true
"""

RETURN = r"""
instances:
  description: One entry per instance, or per host that serves nothing or does not answer.
  returned: always
  type: list
  elements: dict
  sample:
    - {host: a2-1, instance: gemma-4-e2b-it, model: gemma-4-E2B-it, port: 8000, unit: active, answers: "yes"}
"""
