# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What separates the releases a host has from those it should have, and in which order to close the gap. Pure."""

from __future__ import annotations

import hashlib
import os
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import INSTANCE_LABEL

RELEASE_LABEL = "vllm-ascend-fleet.release"
# First line of every unit that we made; a unit file without it is somebody else's.
MARKER = "# Made by vllm_ascend.fleet:"
STATE_DIRECTORY = "/var/lib/vllm-ascend-fleet"
SECRET_DIRECTORY = "/etc/vllm-ascend-fleet"
UNIT_DIRECTORY = "/etc/systemd/system"
# The image keeps this in .bashrc, which a container's command never reads.
WITH_LIBRARY_PATH = ["/bin/sh", "-c", 'export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/lib"; exec "$@"', "sh"]
SHOW = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "NRestarts", "Result", "FragmentPath",
        "ExecMainStatus", "InvocationID", "InactiveExitTimestampMonotonic", "Job")

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_UNIT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.service$")
_ID = re.compile(r"^[0-9a-f]{12}$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_RUNNING = ("active", "activating", "reloading", "deactivating")


class ReleaseError(Exception):
    """A sentence for the user; ``details`` goes beside it into the result."""

    def __init__(self, message, details=None):
        super().__init__(message)
        self.details = details or {}


def normalise(instances, state, secrets):
    """Fill in names that follow from the instance's and refuse what would be dangerous or meaningless.

    :param list instances: plan instances, or for every state but "present" dicts with at least "name".
    :param str state: present, previous, absent, started or stopped.
    :param dict secrets: {instance: {variable: value}}.
    :returns: [{name, unit, container, release, secret_text, stop_timeout_s}].
    :raises ReleaseError: naming the instance and the key.
    """
    wanted, seen = [], set()
    for instance in instances:
        name = instance.get("name")
        if not isinstance(name, str) or not _NAME.match(name):
            raise ReleaseError("instance name %r is not usable: lower case letters, digits, '.', '_' and '-' only, 63 at most" % (name,))
        if name in seen:
            raise ReleaseError("instance '%s' is given twice" % name)
        seen.add(name)
        unit = instance.get("unit") or "vllm-ascend-%s.service" % name
        container = instance.get("container") or "vllm-ascend-%s" % name
        if not _UNIT.match(unit) or not _UNIT.match(container + ".service"):
            raise ReleaseError("instance '%s': unit %r and container %r must be plain names, the unit's ending in .service" % (
                name, unit, container))
        entry = {"name": name, "unit": unit, "container": container, "release": None, "secret_text": None,
                 "stop_timeout_s": float(instance.get("stop_timeout_s") or 600)}
        if state == "present":
            entry["release"] = _release(name, unit, instance.get("release"))
            if instance.get("secret") and not secrets.get(name):
                raise ReleaseError("instance '%s' reads a secret but secrets holds none for it" % name)
            if secrets.get(name) and not instance.get("secret"):
                raise ReleaseError("secrets holds something for instance '%s' but its release reads none; plan it with a secret" % name)
            entry["secret_text"] = environment_text(secrets[name]) if secrets.get(name) else None
        wanted.append(entry)
    unknown = sorted(set(secrets) - seen)
    if unknown and state == "present":
        raise ReleaseError("secrets holds something for %s, which is no instance of this host" % ", ".join(unknown))
    return wanted


def _release(name, unit, release):
    if not isinstance(release, dict) or not release.get("files"):
        raise ReleaseError("instance '%s' has no release; its image is not known yet, so build it first (playbook deploy does)" % name)
    files = release["files"]
    if not _ID.match(str(release.get("id"))):
        raise ReleaseError("instance '%s': release id %r is not 12 hexadecimal digits" % (name, release.get("id")))
    missing = [key for key in (unit, "environment", "manifest.json") if not isinstance(files.get(key), str)]
    if missing or len(files) != 3:
        raise ReleaseError("instance '%s': a release holds exactly %s, environment and manifest.json, found %s" % (
            name, unit, ", ".join(sorted(files)) or "nothing"))
    if not files[unit].startswith(MARKER):
        raise ReleaseError("instance '%s': the unit's text does not begin with '%s'" % (name, MARKER))
    return {"id": release["id"], "files": dict(files)}


def environment_text(values):
    """Render variables as the engines' --env-file wants them: one literal KEY=value a line, no quoting.

    :raises ReleaseError: for a name or a value that such a file cannot hold; the value itself is never shown.
    """
    lines = []
    for key in sorted(values):
        value = str(values[key])
        if not _VARIABLE.match(key):
            raise ReleaseError("environment variable name %r is not usable" % key)
        if any(character in value for character in "\n\r\0"):
            raise ReleaseError("the value of environment variable %s holds a line break, which an environment file cannot carry" % key)
        lines.append("%s=%s\n" % (key, value))
    return "".join(lines)


def locations(name, unit, state_directory, unit_directory, secret_directory):
    """Where everything of one instance lies on a host."""
    home = os.path.join(state_directory, "instances", name)
    return {"home": home, "releases": os.path.join(home, "releases"), "current": os.path.join(home, "current"),
            "previous": os.path.join(home, "previous"), "unit": os.path.join(unit_directory, unit),
            "secret": os.path.join(secret_directory, name + ".secret")}


def parse_show(text):
    """``systemctl show`` of several units: {Id: {property: value}}."""
    units = {}
    for block in text.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("Id"):
            units[properties["Id"]] = properties
    return units


def is_running(found):
    """Whether systemd runs the instance, or is about to."""
    return found["systemd"].get("ActiveState") in _RUNNING


def refusals(wanted, found):
    """Why nothing may be done to an instance: what stands in the way is not ours, or somebody forbade it. [sentence]"""
    reasons = []
    unit = found["systemd"]
    if "masked" in (unit.get("LoadState"), unit.get("UnitFileState")):
        reasons.append("unit %s is masked; whoever masked it had a reason, so it stays so; to allow it: systemctl unmask %s" % (
            wanted["unit"], wanted["unit"]))
    if found["unit_text"] is not None and not found["unit_text"].startswith(MARKER):
        reasons.append("unit file %s exists and was not made by us; move it away or name the instance differently" % found["unit_path"])
    container = found["container"]
    if container and container["labels"].get(INSTANCE_LABEL) != wanted["name"]:
        reasons.append("a container named %s exists that is not ours (image %s, %s); rename or remove it: docker rename %s <other name>" % (
            wanted["container"], container["image"], "running" if container["running"] else "not running", wanted["container"]))
    return ["instance '%s': %s" % (wanted["name"], reason) for reason in reasons]


def steps(wanted, found):
    """What has to happen to one instance so that it becomes what is wanted.

    :param dict wanted: one entry of :func:`normalise`, with a release.
    :param dict found: {"current", "previous", "files" (of the wanted release's folder), "unit_text", "unit_path", "secret_text",
        "secret_mode", "systemd" (properties), "container" ({labels, running, image} or None)}.
    :returns: {"write", "switch", "unit", "secret", "reload", "enable", "stop", "start": bool, "actions": [sentence]}.
    """
    name, release, unit = wanted["name"], wanted["release"], wanted["unit"]
    text, systemd, container = release["files"][unit], found["systemd"], found["container"]
    running = is_running(found)
    step = {
        "write": found["files"] != release["files"],
        "switch": found["current"] != release["id"],
        "unit": found["unit_text"] != text,
        "secret": found["secret_text"] != wanted["secret_text"] or (wanted["secret_text"] is not None and found["secret_mode"] != 0o600),
        "enable": systemd.get("UnitFileState") != "enabled",
    }
    step["reload"] = step["unit"] or systemd.get("NeedDaemonReload") == "yes"
    other = bool(container and container["running"] and container["labels"].get(RELEASE_LABEL) != release["id"])
    reread = found["secret_text"] != wanted["secret_text"] or found["files"].get("environment") != release["files"]["environment"]
    step["stop"] = (running and (step["switch"] or step["unit"] or reread)) or other
    step["start"] = step["stop"] or not running
    words = [
        ("stop", "stop %s" % unit), ("write", "write release %s of %s" % (release["id"], name)),
        ("switch", "switch %s from %s to %s" % (name, found["current"] or "nothing", release["id"])),
        ("unit", "install unit %s" % unit), ("secret", "%s the secret of %s" % ("write" if wanted["secret_text"] else "remove", name)),
        ("reload", "reload systemd"), ("enable", "enable %s" % unit), ("start", "start %s" % unit)]
    step["actions"] = [sentence for key, sentence in words if step[key]]
    return step


def diff(wanted, found, step):
    """Ansible diff entries of one instance: the real texts, but of a secret only that it changes."""
    entries = []
    files = wanted["release"]["files"]
    before = dict(found["current_files"])
    before[wanted["unit"]] = found["unit_text"] or ""
    # The manifest only repeats, but it must show when nothing else does.
    names = [key for key in (wanted["unit"], "environment") if before.get(key, "") != files[key]] or ["manifest.json"]
    for key in names:
        if before.get(key, "") != files[key]:
            entries.append({"before_header": "%s of %s" % (key, found["current"] or wanted["name"]), "after_header": "%s of %s" % (
                key, wanted["release"]["id"]), "before": before.get(key, ""), "after": files[key]})
    if step["secret"]:
        entries.append({"before_header": "secret of " + wanted["name"], "after_header": "secret of " + wanted["name"],
                        "before": "absent\n" if found["secret_text"] is None else "present, not shown\n",
                        "after": "absent\n" if wanted["secret_text"] is None else "secret changed, not shown\n"})
    state = (_state(found), _state(found, enabled=True, active=True, release=wanted["release"]["id"]))
    if state[0] != state[1]:
        entries.append({"before_header": "state of " + wanted["unit"], "after_header": "state of " + wanted["unit"],
                        "before": state[0], "after": state[1]})
    return entries


def _state(found, enabled=None, active=None, release=None):
    return "release: %s\nenabled: %s\nrunning: %s\n" % (
        release or found["current"] or "none",
        "yes" if enabled or found["systemd"].get("UnitFileState") == "enabled" else "no", "yes" if active or is_running(found) else "no")


def settled(instance, found, containers, secret_hmac):
    """Whether an instance is on its host to the last byte as it is wanted, and runs: then no step of :func:`steps` would be left.

    :param dict instance: of the plan. :param dict found: of the survey's instances, or None. :param containers: the survey's.
    :param secret_hmac: what the hash of its secret must be, None when it is to have none.
    """
    if not instance.get("release") or not found or found.get("release") != instance["release"]["id"]:
        return False
    hashes = dict((name, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()) for name, text in instance["release"]["files"].items())
    unit, secret = found.get("unit") or {}, found.get("secret")
    running = [c for c in containers or () if c.get("name") == instance["container"] and c.get("state") == "running"]
    return (found.get("sha256") == hashes and unit.get("unit_sha256") == hashes[instance["unit"]] and unit.get("needs_reload") is False
            and unit.get("unit_file_state") == "enabled" and unit.get("active_state") == "active"
            and bool(running) and (running[0].get("labels") or {}).get(RELEASE_LABEL) == found["release"]
            and (secret or {}).get("hmac") == secret_hmac and (secret is None or secret.get("mode") == "0600"))


def prunable(releases, protected, keep):
    """Which release folders may go.

    :param dict releases: {id: time of its making, seconds}.
    :param protected: ids that stay whatever their age: current and previous.
    :param int keep: how many stay in all.
    """
    newest = sorted(releases, key=lambda name: (name in protected, releases[name], name), reverse=True)
    return sorted(name for name in newest[max(keep, 0):] if name not in protected)


def loaded_problem(wanted, properties, unit_path):
    """Why systemd does not hold the text that was just installed, or None (a forgotten daemon-reload, a unit elsewhere)."""
    found = None
    if properties.get("LoadState") != "loaded":
        found = "is in load state '%s'" % (properties.get("LoadState") or "unknown")
    elif properties.get("NeedDaemonReload") == "yes":
        found = "is older than its file although systemd was reloaded"
    elif properties.get("FragmentPath") != unit_path:
        found = "comes from %s instead of %s" % (properties.get("FragmentPath") or "nowhere", unit_path)
    if found is None:
        return None
    return "unit %s as systemd holds it %s; see: systemctl status %s" % (wanted["unit"], found, wanted["unit"])
