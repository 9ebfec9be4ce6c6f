# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way in that we probe is the one that Ansible's own connection takes."""

from __future__ import annotations

import subprocess

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import ssh_target


class HostVars(dict):
    """As Ansible's, of values that need no templating."""

    def raw_get(self, host):
        return self[host]


def resolve(values, keys=None, **secrets):
    return ssh_target.resolve("a2-1", ssh_target.variables(HostVars({"a2-1": values}), "a2-1"), keys or {}, **secrets)


def effective(arguments, address):
    run = subprocess.run(["ssh", "-G", "-F", "none"] + arguments + [address], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    config = reachability.parse_config(run.stdout)
    for own in ("controlpath", "controlmaster", "controlpersist", "connecttimeout", "numberofpasswordprompts", "kbdinteractiveauthentication",
                "passwordauthentication", "preferredauthentications"):
        config.pop(own, None)
    return config


@pytest.mark.parametrize("values", [
    {}, {"ansible_host": "192.0.2.7"}, {"ansible_host": "192.0.2.7", "ansible_port": 2222, "ansible_user": "ops"},
    {"ansible_ssh_host": "192.0.2.8", "ansible_ssh_port": 2022, "ansible_ssh_user": "root"},
    {"ansible_ssh_private_key_file": "/keys/with blank/id"}, {"ansible_ssh_common_args": "-o UserKnownHostsFile=/a -J jump@192.0.2.9:2200"},
    {"ansible_ssh_extra_args": "-o ProxyCommand='ssh -W %h:%p gate'", "ansible_port": 22}, {"ansible_ssh_args": "-o StrictHostKeyChecking=yes"},
    {"ansible_host_key_checking": False}, {"ansible_ssh_common_args": "-o User=late -o Port=99", "ansible_user": "early"},
])
def test_options_are_those_of_ansibles_connection(values):
    target = resolve(values)
    connection = connection_loader.get("ssh", PlayContext(), "/dev/null")
    connection.set_options(task_keys={}, var_options=dict(values, inventory_hostname="a2-1"))
    theirs = [word.decode("utf-8") for word in connection._build_command("ssh", "ssh")]
    while theirs[0] != "ssh":
        theirs.pop(0)
    assert target["address"] == values.get("ansible_host", values.get("ansible_ssh_host", "a2-1"))
    assert effective(target["arguments"], target["address"]) == effective(theirs[1:], target["address"])


def test_secrets_of_the_inventory_come_before_those_of_the_command_line():
    assert resolve({"ansible_password": "a"}, password="b")["password"] == "a"
    assert resolve({}, password="b")["password"] == "b"
    assert resolve({"ansible_become": True, "ansible_become_password": "a"}, become_password="b")["become"]["password"] == "a"
    assert resolve({"ansible_become": "yes"}, become_password="b")["become"]["password"] == "b"


def test_become_follows_host_then_task():
    assert resolve({})["become"] is None
    assert resolve({}, keys={"become": True})["become"]["user"] == "root"
    assert resolve({"ansible_become": False}, keys={"become": True})["become"] is None
    assert resolve({"ansible_become": True, "ansible_become_method": "community.general.doas"})["become"]["method"] == "doas"
    assert resolve({"ansible_become": True, "ansible_become_user": "ops"})["become"]["user"] == "ops"


def test_the_interpreter_is_the_given_one_or_those_of_discovery():
    assert resolve({"ansible_python_interpreter": "/opt/py"})["python"] == "/opt/py"
    found = resolve({"ansible_python_interpreter": "auto_silent"})
    assert found["python"] is None and "/usr/bin/python3" in found["pythons"]
    assert resolve({"ansible_interpreter_python_fallback": ["/only/this"]})["pythons"] == ["/only/this"]


def test_another_connection_is_left_to_ansible():
    assert resolve({"ansible_connection": "community.docker.docker"}) == {"host": "a2-1", "handed_over": "ansible_connection is docker"}


def test_arguments_that_cannot_be_split_are_named():
    with pytest.raises(AnsibleError, match="cannot be split"):
        resolve({"ansible_ssh_common_args": "-o 'x"})
