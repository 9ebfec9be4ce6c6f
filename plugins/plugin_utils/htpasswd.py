# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of the one user that a fleet's registry knows; runs on the controller."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

try:
    import bcrypt
except ImportError:
    bcrypt = None

# Of bcrypt.
LONGEST = 72


def htpasswd(existing, username, password):
    """The file's text. A line that lets the user in already stays as it is, since every hash has a salt of its own.

    :param str existing: the file's text so far, or "". :raises AnsibleFilterError: when name or password cannot be used.
    """
    if bcrypt is None:
        raise AnsibleFilterError("the controller's Python lacks bcrypt, which hashes the registry's password: pip install bcrypt")
    if not username or any(each in username for each in ": \r\n"):
        raise AnsibleFilterError("the registry's user name must not be empty nor hold a colon or a space")
    secret = (password or "").encode("utf-8")
    if not secret or len(secret) > LONGEST:
        raise AnsibleFilterError(f"the registry's password has {len(secret)} bytes, wanted 1 to {LONGEST}: set fleet_registry_password")
    for line in existing.splitlines():
        name, _colon, known = line.partition(":")
        if name == username and _fits(secret, known.strip()):
            return line + "\n"
    return f"{username}:{bcrypt.hashpw(secret, bcrypt.gensalt(10)).decode('ascii')}\n"


def _fits(secret, known):
    try:
        return bcrypt.checkpw(secret, known.encode("utf-8"))
    except ValueError:
        return False  # No hash of bcrypt, which is all that the registry takes.
