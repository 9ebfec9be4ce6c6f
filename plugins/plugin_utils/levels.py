# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""At which levels of the inventory a host's fleet_* variables are set. Ansible itself keeps only the strongest. Controller only."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.inventory.helpers import sort_groups
from ansible.inventory.host import Host
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent


def templated(hostvars, hosts, templar, pick=lambda value: value):
    """{host: its levels}, with the variables that hold at every level templated for their host.

    :param pick: takes such a variable as written and returns what of it is wanted.
    :raises AnsibleError: naming the host, the variable and the level that has no value.
    """
    levels, result = Levels(hostvars), {}
    for host in hosts:
        result[host], own = [], None
        for level, values in levels.of(host):
            layered = {name: pick(values[name]) for name in intent.LAYERED if name in values}
            if layered:
                try:
                    own = own or templar.copy_with_new_env(available_variables=hostvars.raw_get(host))
                    layered = own.template(layered)
                except AnsibleError as error:
                    raise AnsibleError(f"{host}: {', '.join(layered)} in {level} has no value: {' '.join(str(error).split())}") from error
            result[host].append((level, dict(values, **layered)))
    return result


class Levels:
    """Reads the inventory level by level; what groups say is read once for all hosts."""

    def __init__(self, hostvars):
        """:param hostvars: what Ansible hands to an action. Without an inventory behind it no level is known."""
        self._inventory = getattr(hostvars, "_inventory", None)
        self._loader = getattr(hostvars, "_loader", None)
        manager = getattr(hostvars, "_variable_manager", None)
        self._extra = ("extra variables", _ours(manager.extra_vars if manager else {}))
        self._read = {}

    def of(self, host):
        """:returns: [(level in words, {fleet_* variable: value as written})], weakest first, in Ansible's own order of precedence."""
        if self._inventory is None:
            return []
        target = self._inventory.get_host(host)
        # Ansible: what stands in inventory files is weaker than any group_vars, and the group "all" weaker than the others of its kind.
        groups = sort_groups(target.get_groups())
        whole, others = groups[:1], groups[1:]
        found = [self._inline(group) for group in whole + others]
        for some in (whole, others):
            found += [self._files(group, beside) for beside in ("inventory", "playbook") for group in some]
        found += [self._inline(target), self._files(target, "inventory"), self._files(target, "playbook"), self._extra]
        return [level for level in found if level[1]]

    def _inline(self, entity):
        return "%s %s in the inventory file" % (_kind(entity), entity.name), _ours(entity.vars)

    def _files(self, entity, beside):
        key = (_kind(entity), entity.name, beside)
        if key not in self._read:
            if beside == "inventory":
                values = get_vars_from_inventory_sources(self._loader, self._inventory._sources, [entity], "task")
            else:
                values = get_vars_from_path(self._loader, self._loader.get_basedir(), [entity], "task")
            self._read[key] = ("%s_vars of %s" % (_kind(entity), entity.name), _ours(values))
        return self._read[key]


def _kind(entity):
    return "host" if isinstance(entity, Host) else "group"


def _ours(values):
    return {name: value for name, value in values.items() if name.startswith("fleet_")}
