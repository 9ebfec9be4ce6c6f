#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_upgrade
short_description: Rehearse the planned upgrade under load
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Deploys on the rehearsal fleet what the inventory wants without extra variables, sets up its gateways, and runs C(upgrade.yml) there with the extra
    variables of this run, while clients ask every model at the gateway.
  - Reports the outcome, the time of each step of each host, and what the clients saw. Fails when a request failed, when a host is down, or when the rollout
    did not end V(done) although no fault was wanted.
  - The fleet must be up, see M(vllm_ascend.fleet.rehearsal_fleet). Journals and reports lie below O(state_directory); nothing reaches the true fleet, so
    extra variables that would lead there are refused.
options:
  state_directory:
    description: Folder of the rehearsal fleet, with the inventory that leads to it.
    type: path
    required: true
  faults:
    description: Levers that are pulled before the upgrade and released after it, with their parameters, by host.
    type: raw
    default: {}
  rate:
    description: Requests a second for each model, half of them streamed.
    type: float
    default: 5.0
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Rehearse the upgrade with an engine that crashes on one host
  vllm_ascend.fleet.rehearsal_upgrade:
    state_directory: "{{ rehearsal_fleet_state_directory }}"
    faults: {a2-1: {engine_crash_loop: "1"}}
"""

RETURN = r"""
lines:
  description: The report.
  returned: when the upgrade was run
  type: list
  elements: str
"""
