# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Held against the real inventory of ansible-core: what it keeps is the last of what is found here."""

from __future__ import annotations

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.levels import Levels

INVENTORY = """
npu_nodes:
  vars: {fleet_name: inline-npu_nodes}
  children:
    a2:
      hosts:
        one: {fleet_name: inline-host}
        two:
    a3:
      hosts:
        three:
"""
FILES = {
    "inventory/group_vars/all.yml": "all", "inventory/group_vars/npu_nodes/fleet.yml": "npu_nodes", "inventory/group_vars/a2.yml": "a2",
    "inventory/host_vars/one.yml": "one", "playbooks/group_vars/npu_nodes.yml": "playbook-npu_nodes",
}


@pytest.fixture
def hostvars(tmp_path):
    def make(extra=None):
        for name, value in FILES.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("fleet_name: %s\nother: ignored\n" % value)
        (tmp_path / "inventory" / "hosts.yml").write_text(INVENTORY)
        loader = DataLoader()
        loader.set_basedir(str(tmp_path / "playbooks"))
        inventory = InventoryManager(loader=loader, sources=[str(tmp_path / "inventory" / "hosts.yml")])
        manager = VariableManager(loader=loader, inventory=inventory)
        manager._extra_vars = extra or {}
        return HostVars(inventory, manager, loader)

    return make


def test_levels_come_in_the_order_in_which_ansible_overrides_them(hostvars):
    found = Levels(hostvars()).of("one")
    assert [(level, values["fleet_name"]) for level, values in found] == [
        ("group npu_nodes in the inventory file", "inline-npu_nodes"),
        ("group_vars of all", "all"),
        ("group_vars of npu_nodes", "npu_nodes"),
        ("group_vars of a2", "a2"),
        ("group_vars of npu_nodes", "playbook-npu_nodes"),
        ("host one in the inventory file", "inline-host"),
        ("host_vars of one", "one"),
    ]
    assert all(set(values) == {"fleet_name"} for _level, values in found)


@pytest.mark.parametrize("host", ["one", "two", "three"])
@pytest.mark.parametrize("extra", [{}, {"fleet_name": "extra"}])
def test_the_strongest_level_is_what_ansible_itself_says(hostvars, host, extra):
    variables = hostvars(extra)
    assert Levels(variables).of(host)[-1][1]["fleet_name"] == variables.raw_get(host)["fleet_name"]


def test_without_an_inventory_no_level_is_known():
    assert Levels({}).of("one") == []
