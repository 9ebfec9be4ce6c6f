#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scrape_targets
short_description: Make scrape targets for Prometheus
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Makes one file of targets in the form of Prometheus' file_sd for each host, with every instance that M(vllm_ascend.fleet.survey) found in this run and
    the npu-exporter where there is one. The file of a host that could not be read is kept as it is. Runs on the controller.
options:
  hosts:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Make scrape targets
  vllm_ascend.fleet.scrape_targets:
    hosts: "{{ groups['npu_nodes'] }}"
  register: targets
"""

RETURN = r"""
files:
  description: Targets by path.
  returned: success
  type: dict
  sample: {targets/a2-1.json: [{targets: ["192.0.2.1:8000"], labels: {job: vllm, host: a2-1}}]}
keep:
  description: Paths that stay as they are.
  returned: success
  type: list
  elements: str
"""
