# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""images.lock.yml: the digests a fleet has settled on. Meant for git; runs on the controller."""

from __future__ import annotations

import os
import pathlib
import tempfile

import yaml

HEADING = "# Digests this fleet has settled on. Written by vllm_ascend.fleet, meant for git; delete a line to settle it anew.\n---\n"


class LockError(Exception):
    """The lock file cannot be used; the text names it and the remedy."""


def load(path):
    """Read the lock file. :returns: {"images": {origin: digest}, "targets": {target: {...}}, "patches": {file: sha256}}; empty when absent."""
    empty = {"images": {}, "targets": {}, "patches": {}}
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return empty
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"the lock file {path} cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise LockError(f"the lock file {path} is not YAML ({' '.join(str(error).split())}); restore it from git or delete it") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key) or {}, dict) for key in empty):
        raise LockError(f"the lock file {path} is not one of ours; restore it from git or delete it")
    return {key: dict(content.get(key) or {}) for key in empty}


def save(path, lock):
    """Write the lock file through a temporary name, so that a killed run leaves the old one."""
    target = pathlib.Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, prefix=".images.lock.", delete=False) as stream:
            stream.write(HEADING + yaml.safe_dump(lock, sort_keys=True, width=160))
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, target)
    except OSError as error:
        raise LockError(f"the lock file {path} cannot be written: {error}") from error
