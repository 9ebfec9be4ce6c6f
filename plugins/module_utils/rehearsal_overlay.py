# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second inventory that turns the hosts of the first into their simulated selves. Pure.

What must win goes to host_vars files, because nothing in any inventory is stronger; what only fills gaps is of a group.
"""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.intent import SECRET_VARIABLES

GROUP = "rehearsal_fleet_simulated"
# RFC 6761: no resolver ever finds it.
NOWHERE = "not-in-the-rehearsal.invalid"
# The simulated engine loads in seconds. Of a group, so that what the operator says of an instance holds.
INSTANCE_DEFAULTS = {"ready_timeout_s": 60, "shutdown_timeout_s": 20, "stability_window_s": 3}


def connection(address, state):
    """How to reach a simulated host. Its host key was made before it was, so any other is refused; the user's own SSH settings stay out."""
    return {
        "ansible_connection": "ssh", "ansible_host": address, "ansible_port": 22, "ansible_user": "root", "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3", "ansible_ssh_private_key_file": state + "/id_ed25519",
        "ansible_ssh_common_args": "-F /dev/null -o UserKnownHostsFile=%s/known_hosts -o GlobalKnownHostsFile=/dev/null "
                                   "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes" % state,
    }


def product(fleet, given):
    """The fleet_* variables that must point at the rehearsal. ``given``: what the operator says of the host, as written."""
    state = fleet["state_directory"]
    own = rehearsal.only_registry(fleet["registries"], "fleet")
    result = {"fleet_name": fleet["name"], "fleet_registry": {"address": rehearsal.registry_reference(own), "username": "fleet"},
              "fleet_images_lock": state + "/images.lock.yml"}
    for name in SECRET_VARIABLES:
        if name in given or name == "fleet_registry_password":
            value = "{{ lookup('ansible.builtin.file', '%s/%s') }}" % (state, name)
            result[name] = {"rehearsal": value} if name == "fleet_gateway_clients" else value
    for name in given:
        if name.startswith("fleet_") and name.endswith(("_hook", "_key")) and name not in SECRET_VARIABLES:
            # The operator's commands act on the true balancer, and a signature vouches for the true fleet.
            result[name] = None
    if given.get("fleet_container_engine") not in (None, "auto", "docker"):
        result["fleet_container_engine"] = "auto"
    if "fleet_registries" in given:
        # The mirrors of the built-in catalogue are those that are played.
        result["fleet_registries"] = {}
    images = given.get("fleet_images")
    if isinstance(images, dict) and any(isinstance(one, dict) and "digests" in one for one in images.values()):
        result["fleet_images"] = {name: {key: value for key, value in one.items() if key != "digests"} for name, one in images.items()}
    return result


def host_variables(node, fleet, given):
    """The host_vars of one host of the first inventory.

    :param node: of the fleet, or None for a host that is not simulated: it must not be reached by mistake.
    :param dict fleet: name, state_directory, registries, stand_ins (variables in place of files that are not on this machine), variables
        (whatever else the user wants), connection_names (every variable that Ansible reads on the way to a host).
    :param dict given: what the operator says of the host, as written.
    """
    # A null counts as not set, so a jump host or a vaulted password is neither used nor read.
    result = {name: None for name in given if name in fleet["connection_names"]}
    if node is None:
        result.update(ansible_connection="ssh", ansible_host=NOWHERE)
        return result
    result.update(connection(node["address"], fleet["state_directory"]))
    result.update(product(fleet, given))
    result.update(fleet["stand_ins"])
    result.update(fleet["variables"])
    return result


def inventory(hosts):
    """The inventory itself."""
    return {"all": {"children": {GROUP: {"hosts": {host: {} for host in hosts}, "vars": {"fleet_instance_defaults": INSTANCE_DEFAULTS}}}}}
