#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_inventory
short_description: Read the hosts to simulate out of an inventory, and write the inventory that leads to them
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Describes a rehearsal fleet in the image of the inventory of the run, for M(vllm_ascend.fleet.rehearsal_fleet).
  - The platform of a host is C(rehearsal_fleet_platform), or else C(fleet_platform), or else what the name of one of its groups tells.
    V(a2) or V(910b), V(a3) or V(910c), V(310) or V(duo), as a word of its own. Two that disagree are an error.
  - An address inside O(subnet) is kept; every other host gets one.
  - Weights are those that C(fleet_instances) asks for and the usual ones of the platform.
  - Writes C(inventory.yml) and C(host_vars) into O(state_directory). Given as the last C(-i), they turn every host of the first inventory into
    its simulated self, whatever its own variables say of connection, registry, lock file, patches and secrets. A host that is not simulated
    gets an address that nothing answers to, so that a rehearsal never reaches a real host. Everything else stays as the operator wrote it.
  - No secret of the inventory is read.
options:
  name:
    description: Name of the fleet.
    type: str
    default: rehearsal
  group:
    description: Inventory group of the hosts with NPUs.
    type: str
    default: npu_nodes
  plain_groups:
    description: Inventory groups of hosts without NPUs.
    type: list
    elements: str
    default: []
  subnet:
    description: Network of the fleet, in CIDR notation.
    type: str
    default: 172.31.240.0/24
  registries:
    description: The registries to play, as the module rehearsal_fleet takes them; the address may be missing.
    type: list
    elements: dict
    default: []
  state_directory:
    description: Folder of the fleet's keys and passwords.
    type: path
    required: true
  patch_directory:
    description: What the hosts get as C(fleet_patch_directory) when their own is no folder of this machine.
    type: path
  wheelhouse:
    description: What the hosts get as C(fleet_wheelhouse) when their own is no folder of this machine.
    type: path
  variables:
    description: Further variables of every simulated host.
    type: dict
    default: {}
seealso:
  - module: vllm_ascend.fleet.rehearsal_fleet
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Read the hosts to simulate out of the inventory
  vllm_ascend.fleet.rehearsal_inventory:
    state_directory: ~/.local/state/vllm_ascend_fleet/rehearsal
    plain_groups: [gateways]
    registries:
      - {name: registry.rehearsal, kind: fleet, port: 5000}
      - {name: quay.io, kind: upstream, port: 443}
  register: described
"""

RETURN = r"""
nodes:
  description: The simulated hosts, as M(vllm_ascend.fleet.rehearsal_fleet) takes them.
  returned: success
  type: list
  elements: dict
registries:
  description: The registries, each with its address.
  returned: success
  type: list
  elements: dict
inventory:
  description: The inventory to give as the last C(-i).
  returned: success
  type: str
  sample: /root/.local/state/vllm_ascend_fleet/rehearsal/inventory.yml
"""
