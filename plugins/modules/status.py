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
  - Prints one line per instance, with what is not as it was deployed (its files, the container, the patched files inside, the driver below) and whose
    doing that is, and what is known of rollouts, from what M(vllm_ascend.fleet.survey) with O(vllm_ascend.fleet.survey#module:prove) found before it in
    this run. Runs on the controller.
options:
  model:
    description: Only instances of this model, or of this name. Empty means all.
    type: str
    default: ""
  report_directory:
    description: Where journals of rollouts are kept on the controller.
    type: path
    default: reports
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Look at every host and ask every instance at once
  vllm_ascend.fleet.survey:
    prove: true
  run_once: true

- name: Say what runs
  vllm_ascend.fleet.status:
  run_once: true
"""

RETURN = r"""
instances:
  description: One entry per instance, or per host that serves none or does not answer.
  returned: success
  type: list
  elements: dict
rollout:
  description: What is known of a rollout that is under way, and of the latest one.
  returned: success
  type: list
  elements: str
"""
