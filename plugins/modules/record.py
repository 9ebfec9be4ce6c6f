#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Say how a run ended and keep the evidence
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Reads what M(vllm_ascend.fleet.plan) and M(vllm_ascend.fleet.change) left of every host in this run, prints one line per instance with a C(curl) that
    works when pasted, and writes C(run.json). Runs on the controller.
  - Writes the report of the run beside it, C(index.html), which needs no network, C(report.json), C(report.md) for a ticket and C(junit.xml) for CI.
options: {}
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Say how the run ended
  vllm_ascend.fleet.record:
  run_once: true
"""

RETURN = r"""
instances:
  description: How each instance ended.
  returned: always
  type: list
  elements: dict
  sample:
    - {host: a2-1, instance: gemma-4-e2b-it, outcome: deployed, port: 8000, ready_s: 41.3}
failed_hosts:
  description: Hosts on which something failed.
  returned: always
  type: list
  elements: str
"""
