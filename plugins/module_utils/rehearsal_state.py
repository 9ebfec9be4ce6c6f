# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, certificates and passwords of a rehearsal fleet, made when they are missing. The I/O of the module rehearsal_fleet."""

from __future__ import annotations

import os
import secrets
import subprocess

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.intent import SECRET_VARIABLES
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rehearsal import RehearsalError

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650")


def ensure(state, nodes, registries, dry=False):
    """Make what is missing below the state directory.

    Each secret variable of an operator has a stand-in here that the simulated hosts get in its place.

    :param list nodes: (label, [names and addresses]) of each host. :param list registries: names that the registries answer to.
    :returns: what was made, or would be, as sentences. :raises RehearsalError: when a tool fails.
    """
    made = []

    def missing(path, what):
        if os.path.exists(os.path.join(state, path)):
            return False
        made.append("make %s" % what)
        return not dry

    if not dry:
        for folder in (state, os.path.join(state, "host_keys")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)
    if missing("id_ed25519", "the key of the person who logs in"):
        _ssh_key(os.path.join(state, "id_ed25519"), "rehearsal-fleet")
    for name, _addresses in nodes:
        if missing("host_keys/" + name, "the host key of %s" % name):
            _ssh_key(os.path.join(state, "host_keys", name), name)
    if missing("ca.crt", "the certificate authority"):
        _certificate(state, "ca", "Rehearsal fleet")
    for name in SECRET_VARIABLES:
        if missing(name, name):
            _write(os.path.join(state, name), secrets.token_urlsafe(24), 0o600)
    wanted = ",".join("DNS:%s" % name for name in sorted(registries))
    if _read(os.path.join(state, "registry.names")) != wanted + "\n" or not os.path.exists(os.path.join(state, "registry.crt")):
        made.append("make the certificate of the registries")
        if not dry:
            _certificate(state, "registry", "Rehearsal registries", "-CA", os.path.join(state, "ca.crt"), "-CAkey", os.path.join(state, "ca.key"),
                         "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=" + wanted)
            _write(os.path.join(state, "registry.names"), wanted + "\n", 0o644)
    if not dry:
        known = "".join("%s %s" % (",".join(names), _read(os.path.join(state, "host_keys", name + ".pub"))) for name, names in nodes)
        if _read(os.path.join(state, "known_hosts")) != known:
            made.append("write the known hosts")
            _write(os.path.join(state, "known_hosts"), known, 0o644)
    return made


def _read(path):
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def _write(path, text, mode):
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as handle:
        handle.write(text)
    os.rename(path + ".new", path)


def _ssh_key(path, comment):
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)


def _certificate(state, name, subject, *more):
    path = os.path.join(state, name)
    _run("openssl", "req", "-x509", *KEY, "-subj", "/CN=" + subject, "-keyout", path + ".key", "-out", path + ".crt", *more)


def _run(*words):
    # AnsibleModule.run_command would need the module here.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RehearsalError("%s failed with %d: %s" % (words[0], done.returncode, done.stdout.decode("utf-8", "replace").strip()[-300:]))
