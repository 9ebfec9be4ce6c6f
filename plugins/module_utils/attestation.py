# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the patched files within a running container are those of its image. The first part is pure, :func:`read` does I/O.

The image carries a record of its patched files, and a label with the hash of that record. A label cannot be changed within a container, so who
changes a file there has to change what the label says, and cannot.
"""

from __future__ import annotations

import hashlib
import json
import os

SET_LABEL = "vllm-ascend-fleet.patch-set"
RECORD_LABEL = "vllm-ascend-fleet.record"
RECORD = "/usr/local/share/vllm-ascend-fleet/patch_set.json"
# Finds the package without importing it.
FIND = "import importlib.util as u; s = u.find_spec('vllm'); print((s and s.origin) or '')"
NOT_ASKED = False
LINKS = 40
SHOWN = 3


# --- pure -----------------------------------------------------------------------------------------------------------


def expected_files(record):
    """{path in the image: sha256, None for a file that a patch removed} of a record."""
    return dict((os.path.join(tree, name), value) for tree, files in record["files"].items() for name, value in files.items())


def judge(seen, wanted):
    """(status, found).

    :param dict seen: "labels" of the container, "record": its text or None, "files": {path: sha256, None when it is not there}, "imported": path of
        the vllm that a new interpreter finds there, None, or NOT_ASKED; "error": what kept us from looking, or None.
    :param str wanted: id of the patch set.
    """
    if seen["error"]:
        return "unknown", seen["error"]
    labels, text = seen["labels"], seen["record"]
    if labels.get(SET_LABEL) != wanted:
        return "fail", "the image was built with patch set %s" % labels[SET_LABEL] if labels.get(SET_LABEL) else "the image carries no patch set"
    if text is None:
        return "fail", "%s is not there" % RECORD
    if labels.get(RECORD_LABEL, sha256(text)) != sha256(text):
        return "fail", "%s was changed after the image was built" % RECORD
    try:
        record = json.loads(text.decode("utf-8"))
        files = expected_files(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "fail", "%s is no record of patched files" % RECORD
    changed = ["%s %s" % (path, "is missing" if seen["files"].get(path) is None else "should be gone" if value is None else "was changed")
               for path, value in sorted(files.items()) if seen["files"].get(path) != value]
    if changed:
        return "fail", ", ".join(changed[:SHOWN]) + (" and %d more" % (len(changed) - SHOWN) if len(changed) > SHOWN else "")
    if seen["imported"] is not NOT_ASKED and record.get("imported", seen["imported"]) != seen["imported"]:
        return "fail", "vllm is imported from %s, not from %s" % (seen["imported"] or "nowhere", record["imported"] or "anywhere")
    return "pass", "%d patched files are as built%s%s" % (
        len(files), "" if RECORD_LABEL in labels else " by their record, which no label of this older image proves",
        "" if seen["imported"] is NOT_ASKED else "; vllm is imported from %s" % (seen["imported"] or "nowhere"))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- I/O ------------------------------------------------------------------------------------------------------------


def inside(root, path):
    """Where ``path`` of a container lies below ``root`` on the host; a link must not lead out of the container."""
    done, left, links = "", path.strip("/").split("/"), 0
    while left:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        here = root + done + "/" + part
        if os.path.islink(here) and links < LINKS:
            links += 1
            target = os.readlink(here)
            done = "" if target.startswith("/") else done
            left = target.strip("/").split("/") + left
        else:
            done += "/" + part
    return root + done


def content(root, path):
    """Bytes of a file of a container, None when there is no such file."""
    try:
        # Never follow what was put there since.
        handle = os.open(inside(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def read(container, engine, deep=True):
    """What :func:`judge` wants to know.

    :param dict container: what the engine's inspection says of it.
    :param engine: a ``container_cli.Engine``.
    :param deep: start an interpreter within the container to ask what it imports; dearer than all else of a look.
    """
    seen = {"labels": (container.get("Config") or {}).get("Labels") or {}, "record": None, "files": {}, "imported": None, "error": None}
    pid = (container.get("State") or {}).get("Pid")
    if not pid:
        return dict(seen, error="the container does not run")
    if SET_LABEL not in seen["labels"]:
        return seen
    root = "/proc/%d/root" % pid
    try:
        seen["record"] = content(root, RECORD)
        files = expected_files(json.loads((seen["record"] or b"null").decode("utf-8")))
        for path in files:
            data = content(root, path)
            seen["files"][path] = None if data is None else sha256(data)
        with open("/proc/%d/environ" % pid, "rb") as stream:
            environment = dict(line.partition("=")[::2] for line in stream.read().decode("utf-8", "replace").split("\0") if "=" in line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return seen
    except OSError as error:
        return dict(seen, error="the files of the container cannot be read: %s" % error)
    if not deep:
        return dict(seen, imported=NOT_ASKED)
    command = ["exec", "--workdir", "/"]
    if environment.get("PYTHONPATH"):
        command += ["--env", "PYTHONPATH=" + environment["PYTHONPATH"]]
    done = engine.run(command + [container.get("Id") or container["Name"].lstrip("/"), "python3", "-c", FIND], check=False)
    if done["rc"] != 0:
        words = (done["stderr"] or done["stdout"]).strip().splitlines()
        return dict(seen, error="python3 does not run within the container: %s" % (words[-1] if words else "exit %s" % done["rc"]))
    return dict(seen, imported=done["stdout"].strip() or None)
