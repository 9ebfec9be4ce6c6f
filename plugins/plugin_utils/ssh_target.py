# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible would reach a host over SSH, asked from Ansible's own configuration. Runs on the controller."""

from __future__ import annotations

import functools
import shlex
import shutil

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.loader import become_loader, connection_loader, shell_loader


# Their options, environment, ini entries and command line options are resolved by Ansible, not by us.
SSH_CONNECTIONS = ("ssh", "smart", "paramiko", "paramiko_ssh")


class ProbeError(Exception):
    """The controller lacks something; one line with the remedy."""


GENERAL = ("ansible_host", "ansible_connection", "ansible_become", "ansible_become_method", "ansible_python_interpreter",
           "ansible_interpreter_python_fallback")


def variables(hostvars, host):
    """A host's templated C(ansible_*) variables of connection, shell, interpreter and privilege escalation."""
    # Once: Ansible puts all of a host's variables together each time.
    given = hostvars[host]
    found = {name: given[name] for name in GENERAL if name in given}
    method, kind = found.get("ansible_become_method", "sudo"), found.get("ansible_connection", "ssh")
    wanted = plugin_variables("become", method) + plugin_variables("connection", "ssh" if kind == "smart" else kind) + plugin_variables("shell", "sh")
    found.update((name, given[name]) for name in sorted(set(wanted)) if name in given and name not in found)
    return found


def names():
    """Every variable by which a host's connection, interpreter and privilege escalation can usually be set."""
    return set(GENERAL + tuple(plugin_variables("connection", "ssh") + plugin_variables("become", "sudo")))


@functools.lru_cache(maxsize=None)
def plugin_variables(kind, name):
    """Names of the variables that a plugin takes its options from; [] of one that does not exist."""
    loader = {"become": become_loader, "connection": connection_loader, "shell": shell_loader}[kind]
    plugin = loader.get(name, class_only=True)   # loads the definitions
    return constants.config.get_plugin_vars(kind, plugin._load_name) if plugin else []


def resolve(host, values, task_keys, password=None, become_password=None):
    """One host's way in.

    :param dict values: as of ``variables``. :param dict task_keys: keywords of the task, such as remote_user and become.
    :param password, become_password: what was asked for at the command line, or None.
    :returns: the target that ``ssh_probe.probe`` takes; it holds secrets and must not be returned or printed.
    :raises AnsibleError: for a setting that Ansible would refuse.
    """
    def value(name, default):
        return values.get(name, default)

    def option(kind, plugin):
        return constants.config.get_plugin_options(kind, plugin, keys=task_keys, variables=values)

    connection = str(value("ansible_connection", task_keys.get("connection") or "ssh")).rpartition(".")[2]
    if connection not in SSH_CONNECTIONS:
        return {"host": host, "handed_over": "ansible_connection is %s" % connection}
    options = option("connection", "ssh")
    secret = options.get("password") or password
    target = {
        "host": host, "address": options.get("host") or host, "arguments": _arguments(options, secret), "password": secret,
        "ssh": options.get("ssh_executable") or "ssh", "key_file": options.get("private_key_file"),
        "unsupported": [name for name in ("pkcs11_provider", "private_key") if options.get(name)],
        "needs_sshpass": bool(secret) and options.get("password_mechanism", "sshpass") == "sshpass" and not shutil.which("sshpass"),
        "become": None, "python": None,
        "pythons": constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=values),
    }
    if target["address"] == "inventory_hostname":
        target["address"] = host
    if is_true(value("ansible_become", task_keys.get("become") or False)):
        method = str(value("ansible_become_method", task_keys.get("become_method") or "sudo")).rpartition(".")[2]
        sudo = option("become", "sudo") if method == "sudo" else {}
        target["become"] = {"method": method, "user": sudo.get("become_user") or "root", "password": sudo.get("become_pass") or become_password,
                            "executable": sudo.get("become_exe") or "sudo"}
    python = str(value("ansible_python_interpreter", constants.config.get_config_value("INTERPRETER_PYTHON", variables=values) or "auto"))
    if not python.startswith("auto"):
        target["python"] = python
    return target


def is_true(value):
    """Whether a variable that may be text says yes."""
    return str(value).strip().lower() in ("true", "yes", "on", "1", "y", "t")


def _arguments(options, password):
    """The options in the order of Ansible's ssh connection: for each one the first mention counts."""
    made = _split(options.get("ssh_args"))
    if options.get("host_key_checking") is False:
        made += ["-o", "StrictHostKeyChecking=no"]
    if options.get("port") is not None:
        made += ["-o", "Port=%s" % options["port"]]
    if options.get("private_key_file"):
        made += ["-o", 'IdentityFile="%s"' % options["private_key_file"]]
    if not password:
        made += ["-o", "PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey"]
    if options.get("remote_user"):
        made += ["-o", 'User="%s"' % options["remote_user"]]
    return made + _split(options.get("ssh_common_args")) + _split(options.get("ssh_extra_args"))


def _split(text):
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise AnsibleError("SSH arguments %r cannot be split: %s" % (text, error)) from error
