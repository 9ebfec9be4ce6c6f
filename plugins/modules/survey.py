#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: survey
short_description: Survey a host, or say why it cannot be surveyed
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Runs M(vllm_ascend.fleet.npu_info) with the given options, in one round trip. A host that does not answer, refuses the login or has no usable Python does
    not fail the task, it gives a survey that names the reason and the remedy, for M(vllm_ascend.fleet.plan) to judge.
options:
  request:
    description: Options of M(vllm_ascend.fleet.npu_info).
    type: dict
    default: {}
  reach:
    description:
      - The host's entry of RV(vllm_ascend.fleet.reach#module:hosts). A host that surely cannot be talked to is not tried again.
      - Without it, a host that gives no survey is asked step by step why.
    type: dict
seealso:
  - module: vllm_ascend.fleet.reach
  - module: vllm_ascend.fleet.npu_info
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Look at the host
  vllm_ascend.fleet.survey:
    request:
      ports: [8000]
  register: seen
"""

RETURN = r"""
survey:
  description: The survey, or C(unreachable) with C(kind), C(error) and C(remedy).
  returned: always
  type: dict
"""
