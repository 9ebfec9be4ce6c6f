# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for human eyes: a table, and what differs from what runs now."""

from __future__ import annotations

import re


def differences(plan, surveys):
    """Compare each planned release with the one the survey found.

    :returns: {host: {instance: {"action": "keep" | "start" | "replace" | "install" | "build", "before": id or None, "after": id or None}}}.
        "build" means that the image does not exist yet, so the release's id is not known.
    """
    result = {}
    for host, entry in plan["hosts"].items():
        found = (surveys.get(host) or {}).get("instances") or {}
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
            else:
                action = "keep" if (now.get("unit") or {}).get("active_state") == "active" else "start"
            result[host][instance["name"]] = {"action": action, "before": before, "after": after}
    return result


def render(plan, surveys):
    """The plan as a table: host, instance, NPUs, port, image, patch set, what will be done, and the notes below."""
    changes = differences(plan, surveys)
    rows = [("HOST", "INSTANCE", "NPUS", "PORT", "PATCH SET", "IMAGE", "ACTION")]
    notes = []
    for host, entry in plan["hosts"].items():
        for instance in entry["instances"]:
            numbers = ",".join(re.sub(r"\D", "", device) for device in instance["devices"]) or "?"
            patch_set = instance["patch_set"]["name"] if isinstance(instance["patch_set"], dict) else instance["patch_set"] or "-"
            image = (instance["image"] or instance["image_name"]).rsplit("/", 1)[-1]
            rows.append((host, instance["name"], numbers, str(instance["port"]), patch_set, image, changes[host][instance["name"]]["action"]))
        if not entry["instances"]:
            rows.append((host, "-", "-", "-", "-", "-", "nothing"))
        notes.extend("%s: %s" % (host, note) for note in entry["notes"])
    return "\n".join(table(rows) + notes)


def table(rows):
    """Rows of text cells as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def shorten(names, limit=8):
    """Some names and how many more: C(a2-1, a2-2 and 29 more)."""
    if len(names) <= limit:
        return ", ".join(names)
    return "%s and %d more" % (", ".join(names[:limit]), len(names) - limit)
