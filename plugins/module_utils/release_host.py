# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on a host: files, systemd and the container engine brought to what is wanted. This file does I/O; ``release`` decides."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain

QUICK_S = 60.0
# Ending of a secret's file that a change keeps until it is proven.
BEFORE = ".before"


def read_text(path):
    """Text of a file, None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_unit(path):
    """Text of a unit file; None when there is none or when it is masked."""
    return None if os.path.realpath(path) == os.devnull else read_text(path)


def sync_directory(path):
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path, text, mode):
    """Replace a file atomically."""
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix="." + os.path.basename(path) + ".", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    sync_directory(folder)


def remove_file(path):
    """Remove a file or link that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def set_link(path, release_id):
    """Point ``current`` or ``previous`` at a release, atomically; None removes it."""
    if release_id is None:
        remove_file(path)
        return
    temporary = "%s.new.%d" % (path, os.getpid())
    remove_file(temporary)
    os.symlink(os.path.join("releases", release_id), temporary)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def get_link(path):
    """Id of the release that a link points at, None when it points at none."""
    if not os.path.islink(path) or not os.path.isdir(path):
        return None
    return os.path.basename(os.readlink(path))


class Host:
    """The host as this module sees it: files, systemd, the container engine."""

    def __init__(self, params):
        self.params = params
        self.engine = None
        self.shown = {}

    def systemctl(self, args, timeout_s=QUICK_S, purpose=None):
        """Run systemctl; with a ``purpose`` a failure raises ReleaseError that begins with it."""
        result = container_cli.run([self.params["systemctl"]] + args, timeout_s)
        if purpose and result["rc"] != 0:
            reason = container_cli.last_line(result["stderr"]) or "exit %s" % result["rc"]
            if result["timed_out"]:
                reason = "no end after %.0f s" % timeout_s
            raise domain.ReleaseError("%s failed: %s" % (purpose, reason), result)
        return result

    def units(self, wanted):
        """Properties of the instances' units by unit name; asked in one call."""
        if not wanted:
            return {}
        names = [entry["unit"] for entry in wanted]
        args = ["show", "--no-pager", "--property=" + ",".join(domain.SHOW)] + names
        shown = domain.parse_show(self.systemctl(args, purpose="asking systemd about %s" % ", ".join(names))["stdout"])
        missing = [name for name in names if name not in shown]
        if missing:
            raise domain.ReleaseError("systemd says nothing about %s; see: systemctl show %s" % (", ".join(missing), missing[0]))
        self.shown = shown
        return shown

    def inspect(self, names):
        """What the engine holds of containers, by name or id; those it does not know are left out."""
        if self.engine is None:
            self.engine = container_cli.Engine(*container_cli.find_engine(self.params["engine"], self.params["engine_path"]))
        result = self.engine.run(["container", "inspect"] + names, check=False)
        gone = ("no such container", "no container with name", "no such object")
        complaints = [line for line in result["stderr"].splitlines() if line.strip() and not any(text in line.lower() for text in gone)]
        if result["rc"] != 0 and (complaints or not result["stderr"].strip()):
            reason = container_cli.last_line(result["stderr"]) or "exit %s" % result["rc"]
            raise domain.ReleaseError("%s does not answer: %s" % (self.engine.name, reason), result)
        return json.loads(result["stdout"].strip() or "[]")

    def containers(self, wanted):
        """{container name: {labels, running, image} or None}; asked in one call."""
        names, found = [entry["container"] for entry in wanted], {}
        for data in self.inspect(names):
            config = data.get("Config") or {}
            found[data["Name"].lstrip("/")] = {"labels": config.get("Labels") or {}, "image": config.get("Image"),
                                               "running": bool((data.get("State") or {}).get("Running"))}
        return dict((name, found.get(name)) for name in names)

    def our_containers(self, name):
        """Ids of all containers that carry the label of an instance."""
        label = "label=%s=%s" % (domain.INSTANCE_LABEL, name)
        listed = self.engine.run(["ps", "--all", "--quiet", "--no-trunc", "--filter", label])["stdout"].split()
        # After a crash docker may list containers that it no longer has, until it is restarted.
        return [data["Id"] for data in self.inspect(listed)] if listed else []

    def where(self, entry):
        """Paths of an instance."""
        return domain.locations(entry["name"], entry["unit"], self.params["state_directory"], self.params["unit_directory"],
                                self.params["secret_directory"])

    def release_files(self, entry, release_id):
        """{file name: text} of a release folder."""
        folder = os.path.join(self.where(entry)["releases"], release_id)
        if not os.path.isdir(folder):
            return {}
        return dict((name, read_text(os.path.join(folder, name))) for name in sorted(os.listdir(folder)))

    def find(self, wanted):
        """What there is of each instance: {name: found}, the shape that ``release.steps`` takes."""
        units, containers = self.units(wanted), self.containers(wanted)
        found = {}
        for entry in wanted:
            path = self.where(entry)
            current = get_link(path["current"])
            mode = stat.S_IMODE(os.stat(path["secret"]).st_mode) if os.path.exists(path["secret"]) else None
            found[entry["name"]] = {
                "current": current, "previous": get_link(path["previous"]),
                "files": self.release_files(entry, entry["release"]["id"]) if entry["release"] else {},
                "current_files": self.release_files(entry, current) if current else {},
                "unit_text": read_unit(path["unit"]), "unit_path": path["unit"],
                "secret_text": read_text(path["secret"]), "secret_mode": mode,
                "systemd": units[entry["unit"]], "container": containers[entry["container"]]}
        return found

    def has_release(self, entry):
        """Whether the release's folder is there, whatever it holds."""
        return os.path.isdir(os.path.join(self.where(entry)["releases"], entry["release"]["id"]))

    def write_release(self, entry):
        """Put the release's folder in place as a whole, or repair the files of the one that is there."""
        path, release = self.where(entry), entry["release"]
        os.makedirs(path["releases"], mode=0o755, exist_ok=True)
        final = os.path.join(path["releases"], release["id"])
        if os.path.isdir(final):
            for name, text in release["files"].items():
                if read_text(os.path.join(final, name)) != text:
                    write_text(os.path.join(final, name), text, 0o644)
            for name in set(os.listdir(final)) - set(release["files"]):
                os.unlink(os.path.join(final, name))
            return
        temporary = tempfile.mkdtemp(prefix=".new.", dir=path["releases"])
        try:
            os.chmod(temporary, 0o755)
            for name, text in release["files"].items():
                write_text(os.path.join(temporary, name), text, 0o644)
            os.rename(temporary, final)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(path["releases"])

    def write_secret(self, entry, text):
        """Write or remove the secret's file."""
        path = self.where(entry)["secret"]
        if text is None:
            remove_file(path)
            return
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_text(path, text, 0o600)

    def write_unit(self, entry, text):
        """Write or remove the unit's file."""
        path = self.where(entry)["unit"]
        if text is None:
            remove_file(path)
        else:
            write_text(path, text, 0o644)

    def start(self, wanted, purpose="starting"):
        """Start units; each start counts against systemd's limit, so the count begins anew."""
        names = [entry["unit"] for entry in wanted]
        self.systemctl(["reset-failed"] + names)
        self.systemctl(["start"] + names, timeout_s=_longest(wanted), purpose="%s %s" % (purpose, ", ".join(names)))

    def stop(self, wanted):
        """Stop units, all at the same time, and wait for it."""
        names = [entry["unit"] for entry in wanted]
        self.systemctl(["stop"] + names, timeout_s=_longest(wanted), purpose="stopping " + ", ".join(names))

    def prune(self, entry, keep):
        """Remove old releases of an instance."""
        path = self.where(entry)
        folders = dict((name, os.stat(os.path.join(path["releases"], name)).st_mtime) for name in os.listdir(path["releases"]))
        for name in domain.prunable(folders, {get_link(path["current"]), get_link(path["previous"])}, keep):
            shutil.rmtree(os.path.join(path["releases"], name))

    def report(self, wanted, actions, changed):
        """The ``instances`` of the result, read from the host again when something was done."""
        units = self.units(wanted) if changed else self.shown
        return dict((entry["name"], {
            "release": get_link(self.where(entry)["current"]), "previous": get_link(self.where(entry)["previous"]),
            "active_state": units[entry["unit"]].get("ActiveState"), "actions": actions.get(entry["name"], [])}) for entry in wanted)


def paused(host, wanted):
    """Which container of some instances is paused, and by whom, in words; None when none is."""
    for data in host.inspect([entry["container"] for entry in wanted]) if wanted else ():
        why = container_cli.paused(data)
        if why:
            return "container %s is %s" % (data["Name"].lstrip("/"), why)
    return None


def _longest(wanted):
    # systemd's own limits end a stop after stop_timeout_s + 30; ours is the net below.
    return max(entry["stop_timeout_s"] for entry in wanted) + 120.0


def with_previous(host, wanted, instances):
    """Turn the wish for the previous release into the wish for the files that this host holds of it."""
    asked = dict((instance["name"], (instance.get("release") or {}).get("id")) for instance in instances)
    for entry in wanted:
        path = host.where(entry)
        current, target = get_link(path["current"]), get_link(path["previous"])
        if asked[entry["name"]] and os.path.isdir(os.path.join(path["releases"], asked[entry["name"]])):
            target = asked[entry["name"]]
        if target is None:
            raise domain.ReleaseError(
                "instance '%s' has no previous release on this host (current is %s), so there is nothing to return to" % (
                    entry["name"], current or "none"))
        files = host.release_files(entry, target)
        if entry["unit"] not in files or "environment" not in files:
            raise domain.ReleaseError("instance '%s': previous release %s in %s is incomplete" % (
                entry["name"], target, path["releases"]))
        entry["release"] = {"id": target, "files": files}
        # Secrets have no releases: the one in force stays, or the one that a change which is being undone has put aside.
        entry["secret_text"] = read_text(path["secret"] + BEFORE) or read_text(path["secret"])
    return wanted


def prepare(host, wanted, steps):
    """Put the folders of new releases in place, which changes nothing that runs."""
    for entry in wanted:
        if steps[entry["name"]]["write"] and not host.has_release(entry):
            host.write_release(entry)


def apply(host, wanted, found, steps, keep, leaving=()):
    """Carry out the steps of all instances as one change.

    :param leaving: entries of running instances that stop as well, because what is wanted may need their NPUs and ports.
    """
    def chosen(key):
        return [entry for entry in wanted if steps[entry["name"]][key]]

    prepare(host, wanted, steps)
    undo = Undo(host, found)
    try:
        stopping = chosen("stop") + list(leaving)
        if stopping:
            undo.stopped(chosen("stop"), leaving)
            host.stop(stopping)
        for entry in wanted:
            step, path, name = steps[entry["name"]], host.where(entry), entry["name"]
            undo.touched(entry)
            if step["write"]:
                # A folder that somebody altered is repaired only now: were it done before the stop, a run cut off in between would
                # leave a process that never read it, and nobody would see.
                host.write_release(entry)
            if step["switch"]:
                # A release that was left for the one before it is never gone back to.
                set_link(path["previous"], None if host.params["state"] == "previous" else found[name]["current"] or found[name]["previous"])
                set_link(path["current"], entry["release"]["id"])
            if step["secret"]:
                host.write_secret(entry, entry["secret_text"])
            if step["unit"]:
                host.write_unit(entry, entry["release"]["files"][entry["unit"]])
        if chosen("reload"):
            host.systemctl(["daemon-reload"], purpose="reloading systemd")
        units = host.units(wanted)
        for entry in chosen("reload"):
            problem = domain.loaded_problem(entry, units[entry["unit"]], host.where(entry)["unit"])
            if problem:
                raise domain.ReleaseError(problem, {"systemd": units[entry["unit"]]})
        if chosen("enable"):
            names = [entry["unit"] for entry in chosen("enable")]
            host.systemctl(["enable"] + names, purpose="enabling " + ", ".join(names))
        if chosen("start"):
            host.start(chosen("start"))
    except (domain.ReleaseError, container_cli.CommandError, OSError) as error:
        raise undo.run(error)
    for entry in wanted:
        host.prune(entry, keep)


class Undo:
    """Puts links, units and secrets back as they were found, and starts again what ran."""

    def __init__(self, host, found):
        self.host, self.found = host, found
        self.entries, self.halted = [], []

    def touched(self, entry):
        """Remember an instance whose files are about to change."""
        self.entries.append(entry)

    def stopped(self, entries, leaving=()):
        """Remember instances that are about to be stopped."""
        self.halted = [entry for entry in entries if domain.is_running(self.found[entry["name"]])] + list(leaving)

    def run(self, error):
        """Undo; returns the ReleaseError that tells both stories."""
        details = dict(getattr(error, "details", {}), restored=True)
        try:
            for entry in reversed(self.entries):
                before, path = self.found[entry["name"]], self.host.where(entry)
                set_link(path["current"], before["current"])
                set_link(path["previous"], before["previous"])
                self.host.write_unit(entry, before["unit_text"])
                self.host.write_secret(entry, before["secret_text"])
            fresh = [entry for entry in self.entries if entry not in self.halted and not domain.is_running(self.found[entry["name"]])]
            if fresh:
                self.host.stop(fresh)
            if self.entries:
                self.host.systemctl(["daemon-reload"], purpose="reloading systemd")
            unwanted = [e["unit"] for e in self.entries if self.found[e["name"]]["systemd"].get("UnitFileState") != "enabled"]
            if unwanted:
                self.host.systemctl(["disable"] + unwanted)
            if self.halted:
                self.host.start(self.halted, "starting again")
        except (domain.ReleaseError, container_cli.CommandError, OSError) as second:
            details["restored"] = False
            return domain.ReleaseError("%s; putting things back failed as well: %s; this host needs a person" % (error, second), details)
        return domain.ReleaseError("%s; links, units and secrets are back as they were%s" % (
            error, ", started again: " + ", ".join(entry["unit"] for entry in self.halted) if self.halted else ""), details)


def compare(host, wanted):
    """What separates the host from the wanted releases.

    :returns: (found, steps, actions, changes, diff), the first three by instance, changes as a list of entries.
    :raises ReleaseError: when something that is not ours stands in the way.
    """
    found = host.find(wanted)
    reasons = [reason for entry in wanted for reason in domain.refusals(entry, found[entry["name"]])]
    if reasons:
        raise domain.ReleaseError("; ".join(reasons))
    steps = dict((entry["name"], domain.steps(entry, found[entry["name"]])) for entry in wanted)
    actions = dict((name, step["actions"]) for name, step in steps.items())
    changes = [entry for entry in wanted if actions[entry["name"]]]
    diff = [part for entry in changes for part in domain.diff(entry, found[entry["name"]], steps[entry["name"]])]
    return found, steps, actions, changes, diff


def present(host, wanted, params, check_mode):
    """Install, or switch back to, the wanted releases. Returns (changed, diff, actions by instance)."""
    found, steps, actions, changes, diff = compare(host, wanted)
    if changes and not check_mode:
        apply(host, changes, found, steps, params["keep"])
    return bool(changes), diff, actions


def absent(host, wanted, check_mode):
    """Remove everything of ours that the instances have."""
    units, containers = host.units(wanted), host.containers(wanted)
    actions, diff = {}, []
    for entry in wanted:
        name, path, unit = entry["name"], host.where(entry), units[entry["unit"]]
        text = read_unit(path["unit"])
        ours = text is not None and text.startswith(domain.MARKER)
        left = host.our_containers(name)
        active = ours and (unit.get("ActiveState") != "inactive" or unit.get("UnitFileState") == "enabled")
        checks = [("stop and disable " + entry["unit"], active),
                  ("remove unit " + entry["unit"], ours),
                  ("remove %d container(s) of %s" % (len(left), name), bool(left)),
                  ("remove the secret of " + name, os.path.lexists(path["secret"])),
                  ("remove the releases of " + name, os.path.lexists(path["home"]))]
        entry["ours"], entry["active"] = ours, active
        actions[name] = [sentence for sentence, needed in checks if needed]
        if ours:
            diff.append({"before_header": path["unit"], "after_header": path["unit"], "before": text, "after": ""})
    changes = [entry for entry in wanted if actions[entry["name"]]]
    if changes and not check_mode:
        remove(host, changes)
    return bool(changes), diff, actions


def remove(host, wanted):
    """Carry out a removal."""
    ours = [entry for entry in wanted if entry["ours"]]
    active = [entry for entry in ours if entry["active"]]
    if active:
        host.stop(active)
        names = [entry["unit"] for entry in active]
        host.systemctl(["disable"] + names, purpose="disabling " + ", ".join(names))
    for entry in ours:
        remove_file(host.where(entry)["unit"])
    if ours:
        host.systemctl(["daemon-reload"], purpose="reloading systemd")
        # A failed unit stays in systemd's memory after its file has gone.
        host.systemctl(["reset-failed"] + [entry["unit"] for entry in ours])
    for entry in wanted:
        left = host.our_containers(entry["name"])
        if left:
            host.engine.run(["rm", "--force"] + left, timeout_s=_longest(wanted))
        path = host.where(entry)
        remove_file(path["secret"])
        if os.path.isdir(path["home"]):
            shutil.rmtree(path["home"])
    state = host.params["state_directory"]
    for folder in (os.path.join(state, "instances"), state, host.params["secret_directory"]):
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


def switch_running(host, wanted, state, check_mode):
    """Start or stop what is installed."""
    units = host.units(wanted)
    actions, diff = {}, []
    for entry in wanted:
        unit = units[entry["unit"]]
        if unit.get("LoadState") != "loaded":
            raise domain.ReleaseError("instance '%s': unit %s is not installed (load state '%s')" % (
                entry["name"], entry["unit"], unit.get("LoadState")))
        running = domain.is_running({"systemd": unit})
        actions[entry["name"]] = []
        if running != (state == "started"):
            actions[entry["name"]] = ["%s %s" % ("start" if state == "started" else "stop", entry["unit"])]
            diff.append({"before_header": entry["unit"], "after_header": entry["unit"], "before": unit.get("ActiveState") + "\n",
                         "after": "active\n" if state == "started" else "inactive\n"})
    changes = [entry for entry in wanted if actions[entry["name"]]]
    if changes and not check_mode:
        (host.start if state == "started" else host.stop)(changes)
    return bool(changes), diff, actions


def run(params, check_mode):
    """Do what the parameters ask for; returns the result, raises ReleaseError, CommandError or OSError."""
    wanted = domain.normalise(params["instances"], params["state"], params["secrets"])
    if not wanted:
        return {"changed": False, "actions": [], "instances": {}}
    host = Host(params)
    if params["state"] in ("present", "previous"):
        if params["state"] == "previous":
            wanted = with_previous(host, wanted, params["instances"])
        changed, diff, actions = present(host, wanted, params, check_mode)
    elif params["state"] == "absent":
        changed, diff, actions = absent(host, wanted, check_mode)
    else:
        changed, diff, actions = switch_running(host, wanted, params["state"], check_mode)
    instances = host.report(wanted, actions, changed and not check_mode)
    for entry in wanted:
        answer = instances[entry["name"]]
        if check_mode and entry["release"] and answer["release"] != entry["release"]["id"]:
            answer.update(release=entry["release"]["id"],
                          previous=None if params["state"] == "previous" else answer["release"] or answer["previous"])
    sentences = [text for entry in wanted for text in actions[entry["name"]]]
    return {"changed": changed, "diff": diff, "actions": sentences, "instances": instances}
