# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for human eyes: a table, where each value comes from, and what differs from what runs now."""

from __future__ import annotations

import difflib
import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import redact, redact_data
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.release import settled
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.spanning import shown_port

_SHOWN = ("port", "served_model_name", "weights", "patch_set", "shm_size", "ready_timeout_s", "shutdown_timeout_s", "stability_window_s",
          "sanity", "expected_answer")


def differences(plan, surveys, secrets=None):
    """Compare each planned release with the one the survey found.

    :param secrets: {host: what the keyed hash of its instances' secret must be, or None}; None compares no secrets.
    :returns: {host: {instance: {"action": "keep" | "start" | "repair" | "replace" | "install" | "build", "before": id or None, "after": id or None}}}.
        "build" means that the image does not exist yet, so the release's id is not known; "repair" that something of the release that runs was altered.
    """
    result = {}
    for host, entry in plan["hosts"].items():
        survey = surveys.get(host) or {}
        found = survey.get("instances") or {}
        result[host] = {}
        for instance in entry["instances"]:
            now = found.get(instance["name"]) or {}
            before, after = now.get("release"), (instance["release"] or {}).get("id")
            if after is None:
                action = "build"
            elif before is None:
                action = "install"
            elif before != after:
                action = "replace"
            elif (now.get("unit") or {}).get("active_state") != "active":
                action = "start"
            else:
                expected = secrets.get(host) if secrets is not None and instance["secret"] else None
                expected = (now.get("secret") or {}).get("hmac") if secrets is None else expected
                action = "keep" if settled(instance, now, survey.get("containers"), expected) else "repair"
            result[host][instance["name"]] = {"action": action, "before": before, "after": after}
    return result


def render(plan, surveys):
    """The plan as a table: host, instance, NPUs, port, image, patch set, what will be done, and the notes below."""
    changes = differences(plan, surveys)
    rows = [("HOST", "INSTANCE", "NPUS", "PORT", "PATCH SET", "IMAGE", "ACTION")]
    for host, entry in plan["hosts"].items():
        for instance in entry["instances"]:
            numbers = ",".join(re.sub(r"\D", "", device) for device in instance["devices"]) or "?"
            patch_set = instance["patch_set"]["name"] if isinstance(instance["patch_set"], dict) else instance["patch_set"] or "-"
            image = (instance["image"] or instance["image_name"]).rsplit("/", 1)[-1]
            rows.append((host, instance["name"], numbers, str(shown_port(instance)), patch_set, image, changes[host][instance["name"]]["action"]))
        if not entry["instances"]:
            rows.append((host, "-", "-", "-", "-", "-", "nothing"))
    return "\n".join(table(rows) + notes(plan))


def notes(plan):
    """What a plan has to say of its hosts; hosts of which the same is said stand together. [line]"""
    groups = {}
    for host, entry in plan["hosts"].items():
        for note in entry["notes"]:
            groups.setdefault(note, []).append(host)
    return ["%s: %s" % (shorten(hosts), note) for note, hosts in groups.items()]


def sources(plan):
    """Every value of every instance with the layer that set it; hosts that get the same stand together.

    :returns: [line]
    """
    groups = {}
    for host, entry in plan["hosts"].items():
        for instance in entry["instances"]:
            groups.setdefault((instance["name"], tuple(_values(instance))), []).append(host)
    lines = []
    for (name, rows), hosts in groups.items():
        lines += ["", "%s on %s" % (name, shorten(hosts))]
        lines += ["  " + line for line in table(rows)]
    return lines


def _values(instance):
    """Rows (what, layer, value) of one instance; values that look like secrets are hidden."""
    provenance = instance["provenance"]
    rows = [("image", provenance.get("image"), instance["image_reference"] or instance["image"] or instance["image_name"]),
            ("devices", provenance.get("devices"), ", ".join(instance["devices"]) or "%d, not placed yet" % instance["device_count"])]
    for key in _SHOWN:
        value = instance[key]
        if isinstance(value, dict):
            value = value.get("path") or "%s (%s)" % (value.get("name"), value.get("id"))
        if value is not None:
            rows.append((key, provenance.get(key), value))
    rows += [(name, provenance.get("environment." + name), value) for name, value in instance["environment"].items()]
    rows += [("--" + name, provenance.get("arguments." + name), "left out" if value is None else value)
             for name, value in instance["options"].items()]
    return [(what, layer or "built in", _shown(what, value)) for what, layer, value in rows]


def _shown(what, value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return redact_data(text, name=what)


def changes(plan, surveys, unbuilt):
    """What differs from what runs now, as unified diffs of unit and environment; hosts with the same diff stand together.

    :param dict surveys: {host: survey} whose instances hold "files", the texts that are installed.
    :param unbuilt: callable(host's plan entry, instance) -> files of the release it would be, its image not being built yet.
    :returns: [line]
    """
    groups = {}
    for host, found in differences(plan, surveys).items():
        entry = plan["hosts"][host]
        for instance in entry["instances"]:
            change = found[instance["name"]]
            if change["before"] is None or change["action"] == "keep":
                continue
            if change["action"] == "start":
                text = ("installed as wanted but not running; it will be started",)
            elif change["action"] == "repair":
                before = surveys[host]["instances"][instance["name"]].get("files") or {}
                text = tuple(_diff(before, instance["release"]["files"], instance["unit"], (change["before"], change["after"]))) or (
                    "its files or its container are not those of the release",)
            else:
                before = surveys[host]["instances"][instance["name"]].get("files") or {}
                files = instance["release"]["files"] if instance["release"] else unbuilt(entry, instance)
                text = tuple(_diff(before, files, instance["unit"], (change["before"], change["after"])))
            groups.setdefault((instance["name"], change["before"], change["after"], text), []).append(host)
    lines = []
    for (name, before, after, text), hosts in groups.items():
        lines += ["", "%s on %s: release %s -> %s" % (name, shorten(hosts), before, after or "not built yet")]
        lines += ["  " + line for line in text or ("the texts are the same but for the release's id",)]
    return lines


def left_over(wanted, surveys):
    """Instances of ours that a host has and its inventory no longer names.

    :param dict wanted: {host: names} of hosts whose inventory says all that they shall serve; of others nobody can tell what has left.
    :returns: {host: [name]}
    """
    result = {}
    for host, names in wanted.items():
        left = sorted(name for name in (surveys.get(host) or {}).get("instances") or {} if name not in names)
        if left:
            result[host] = left
    return result


def left_over_lines(left, prune=False):
    """What :func:`left_over` found, in words; ``prune``: the run removes it."""
    remedy = "removed by this run" if prune else "deploy.yml -e prune=true removes what left"
    return ["%s: left the inventory: %s; %s" % (host, ", ".join(names), remedy) for host, names in sorted(left.items())]


def _diff(before, after, unit, releases):
    """Unified diff of the texts of two releases, argument by argument; the release's own id, which always differs, is left out."""
    lines = []
    for name, old, new in ((unit, before.get("unit"), after.get(unit)), ("environment", before.get("environment"), after.get("environment"))):
        texts = []
        for text in (old or "", new or ""):
            text = re.sub(r"releases/[0-9a-f-]{12}/|(?<=release=)[0-9a-f-]{12}|(?<=release )[0-9a-f-]{12}", "<release>", text)
            texts.append([part for line in text.splitlines() for part in _split(line)])
        lines += list(difflib.unified_diff(texts[0], texts[1], "%s of %s" % (name, releases[0]), "%s of %s" % (
            name, releases[1] or "the next release"), n=1, lineterm=""))
    return [redact(line) for line in lines]


def _split(line):
    """The command line of the engine with a line for each flag, so that a diff shows the one that changed."""
    head, serve, rest = line.partition("vllm serve ")
    if not serve:
        return [line]
    first, *flags = rest.split(" --")
    return [head + serve + first] + ["    --" + flag for flag in flags]


def table(rows):
    """Rows of text cells as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def shorten(names, limit=8):
    """Some names and how many more: C(a2-1, a2-2 and 29 more)."""
    if len(names) <= limit:
        return ", ".join(names)
    return "%s and %d more" % (", ".join(names[:limit]), len(names) - limit)
