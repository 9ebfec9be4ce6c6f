# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the simulated hosts out of an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rehearsal_nodes
short_description: The simulated hosts that an inventory describes
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Turns host names and their variables into the O(vllm_ascend.fleet.rehearsal_fleet#module:nodes) of a rehearsal fleet.
  - Reads C(ansible_host), C(rehearsal_fleet_platform), C(rehearsal_fleet_chips), C(rehearsal_fleet_driver_version),
    C(rehearsal_fleet_firmware_version), C(rehearsal_fleet_models) and C(rehearsal_fleet_models_directory) of each host.
positional: hostvars, more
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of all hosts.
    type: dict
    required: true
  more:
    description: Further nodes, as the module takes them; one with the name of a host replaces it.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Show which hosts a rehearsal would simulate
  ansible.builtin.debug:
    msg: "{{ groups['npu_nodes'] | vllm_ascend.fleet.rehearsal_nodes(hostvars) }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each node.
  type: list
  elements: dict
"""

KEYS = {"platform", "chips", "driver_version", "firmware_version", "models", "models_directory"}


def rehearsal_nodes(hosts, hostvars, more=None):
    nodes = {}
    for host in hosts:
        known = hostvars[host]
        node = {"name": host, "address": known.get("ansible_host")}
        for key in sorted(KEYS):
            value = known.get("rehearsal_fleet_" + key)
            if value is not None:
                node[key] = value
        nodes[host] = node
    for node in more or []:
        nodes[node["name"]] = node
    return list(nodes.values())


class FilterModule:
    def filters(self):
        return {"rehearsal_nodes": rehearsal_nodes}
