# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What OpenSSH's known_hosts files say of a host key, as sshd(8) describes them. Pure; nothing is ever written."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac

SSH_PORT = 22


def names(hostname, port, alias=None):
    """The names under which OpenSSH looks a host up, the first one deciding: ``[host]:port`` and then the plain one."""
    plain = (alias or hostname).lower()
    return [plain] if alias or port == SSH_PORT else ["[%s]:%d" % (plain, port), plain]


def fingerprint(blob):
    """``SHA256:…`` of a key in wire form, as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def parse(text, path):
    """Lines of one file: [{"marker", "patterns", "type", "key", "where"}]; comments and unreadable lines are left out, as OpenSSH does."""
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else None
        if len(words) >= 3 and not words[0].startswith("#"):
            entries.append({"marker": marker, "patterns": words[0], "type": words[1], "key": words[2], "where": "%s:%d" % (path, number)})
    return entries


def matches(patterns, name):
    """Whether the first field of a line is about a name: hashed, or comma separated patterns with ``*``, ``?`` and ``!``."""
    if patterns.startswith("|1|"):
        try:
            salt, wanted = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode("utf-8"), hashlib.sha1).digest(), wanted)
    found = False
    for pattern in patterns.lower().split(","):
        # A bracket belongs to the name here, it is no set of characters.
        if fnmatch.fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def types(entries, lookup):
    """Key types on record for a host, so that the same ones are asked for."""
    return [entry["type"] for name in lookup for entry in entries if entry["marker"] is None and matches(entry["patterns"], name)]


def judge(entries, lookup, kind, blob):
    """State of a key.

    :param list entries: of all files, as ``parse`` gives them. :param list lookup: as ``names`` gives them.
    :param str kind: such as ssh-ed25519. :param bytes blob: the key in wire form.
    :returns: (state, where): known, changed, revoked, authority (only a certificate could prove it) or new; where: "file:line" or None.
    """
    key = base64.b64encode(blob).decode("ascii")
    for name in lookup:
        about = [entry for entry in entries if matches(entry["patterns"], name)]
        for entry in about:
            if entry["marker"] == "@revoked" and entry["key"] == key:
                return "revoked", entry["where"]
        plain = [entry for entry in about if entry["marker"] is None]
        for entry in plain:
            if entry["key"] == key:
                return "known", entry["where"]
        # Under the plain name of another port only agreement counts, as in OpenSSH.
        if name == lookup[0]:
            for entry in plain:
                if entry["type"] == kind:
                    return "changed", entry["where"]
            for entry in about:
                if entry["marker"] == "@cert-authority":
                    return "authority", entry["where"]
    return "new", None
