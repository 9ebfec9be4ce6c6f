# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A patch set against the true sources, on the controller: verdicts, and proof that forward and back is bit for bit.

The first part is pure; what follows works on folders and with the container engine of the controller.
"""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import time
import uuid

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_supply, patch_series, registry
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.plan import MACHINES
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.plan_text import table

SHOWN_FILES = 20
SHOWN_LINES = 6
COPY_S = 900
WORDS = {patch_series.APPLIES: "applies", patch_series.THERE: "already there", patch_series.PARTLY: "partly there", patch_series.CONFLICTS: "conflicts"}


class CheckError(Exception):
    """The patch set cannot be checked; one line for the user."""


# --- pure -----------------------------------------------------------------------------------------------------------


def find_manifest(catalogue: dict, name: str) -> dict:
    """The patch set of that name. Raises CheckError naming its nearest neighbour."""
    if name not in catalogue["patch_sets"]:
        raise CheckError(f"there is no patch set '{name}'{did_you_mean(name, catalogue['patch_sets'])}")
    return catalogue["patch_sets"][name]


def base_image(catalogue: dict, lock: dict, manifest: dict, platform_name: str = "") -> tuple[str, str | None]:
    """``(reference, digest or None)`` of the image that the set is made for, in a platform's variant."""
    if not manifest.get("base"):
        raise CheckError(f"patch set {manifest['name']} names no base image; give the sources with trees, or an image")
    suffix = ""
    if platform_name:
        if platform_name not in catalogue["platforms"]:
            raise CheckError(f"there is no platform '{platform_name}'{did_you_mean(platform_name, catalogue['platforms'])}")
        suffix = catalogue["platforms"][platform_name]["image_suffix"]
    origin = manifest["base"] + suffix
    for entry in catalogue["images"].values():
        pinned = (entry.get("digests") or {}).get(platform_name or "a2")
        if pinned and f"{entry['repository']}:{entry['tag']}" == manifest["base"]:
            return origin, pinned
    return origin, lock["images"].get(origin)


def judge(verdicts: list[dict], round_trips: dict) -> list[dict]:
    """The verdicts with ``round_trip`` (True, False, or None when it could not be tried), ``ok`` and ``proposal``.

    ``round_trips`` is ``{tree: bool or None}``.
    """
    rows = []
    for verdict in verdicts:
        there = verdict["verdict"] == patch_series.THERE
        fits = there or verdict["verdict"] == patch_series.APPLIES
        returned = round_trips.get(verdict["tree"]) if fits else None
        if there:
            proposal = "upstream already contains it: take it out of the patch set"
        elif verdict["verdict"] == patch_series.PARTLY:
            proposal = "upstream contains a part of it: make the patch anew against these sources"
        elif not fits:
            proposal = "make the patch anew against these sources"
        else:
            proposal = None
        rows.append(dict(verdict, round_trip=returned, ok=fits and returned is not False, proposal=proposal))
    return rows


def render(rows: list[dict]) -> list[str]:
    """The verdicts for human eyes: a table, then for each patch what to do, and each conflict with what was expected and found."""
    words = {True: "bit for bit", False: "DIFFERS", None: "-"}
    cells = [("PATCH", "TREE", "FILES", "VERDICT", "FORWARD AND BACK")]
    cells += [(row["patch"], row["tree"], str(len(row["files"])), WORDS[row["verdict"]], words[row["round_trip"]]) for row in rows]
    lines = table(cells)
    for row in rows:
        if row["proposal"]:
            lines += ["", f"{row['patch']} {WORDS[row['verdict']]}: {row['proposal']}"]
        if row.get("reason"):
            lines.append(f"  {row['reason']}")
        if row["verdict"] in (patch_series.PARTLY, patch_series.CONFLICTS):
            for state in (patch_series.THERE, patch_series.APPLIES):
                names = [entry["path"] for entry in row["files"] if entry["state"] == state]
                lines += [f"  {WORDS[state]}: {patch_series.some(names)}"] if names else []
            wrong = [entry for entry in row["files"] if entry["state"] in (patch_series.PARTLY, patch_series.CONFLICTS)]
            lines += [line for entry in wrong[:SHOWN_FILES] for line in _file_lines(entry)]
            if len(wrong) > SHOWN_FILES:
                lines.append(f"  and {len(wrong) - SHOWN_FILES} more files that do not fit")
    return lines


def _file_lines(entry):
    where = f" hunk {entry['hunk']} (line {entry['line']})" if entry.get("hunk") else ""
    lines = [f"  {entry['path']}{where}: {entry.get('reason') or WORDS[entry['state']]}"]
    for key in ("expected", "found"):
        lines += [f"    {key if number == 0 else '':8}  {text}".rstrip() for number, text in enumerate((entry.get(key) or [])[:SHOWN_LINES])]
    return lines


def problem(name: str, rows: list[dict]) -> str | None:
    """One line that says why the set cannot be used on these sources, or None."""
    bad = [row for row in rows if not row["ok"]]
    if not bad:
        return None
    first = bad[0]
    if first["round_trip"] is False:
        why = f"{first['patch']} forward and back does not give {first['tree']} as it was"
    else:
        entry = next((each for each in first["files"] if each["state"] in (patch_series.CONFLICTS, patch_series.PARTLY)), None)
        detail = _file_lines(entry)[0].strip() if entry else first.get("reason") or "some of its files are patched, others are not"
        why = f"{first['patch']} is {WORDS[first['verdict']].replace('conflicts', 'in conflict')} with {first['tree']}, {detail}"
    return f"patch set {name}: {len(bad)} of {len(rows)} patches cannot be used: {why}"


# --- folders --------------------------------------------------------------------------------------------------------


def copy_given(folder: str, trees: list[str], work: pathlib.Path) -> dict[str, str]:
    """Copies of the sources in a folder of the user, ``{tree: copy}``: at their whole path below it, or by their last name.

    A copy without ``.git`` is in no repository, and nothing that is done to it reaches the user's files.
    """
    copies = {}
    for number, tree in enumerate(trees):
        tried = [os.path.join(folder, tree.lstrip("/")), os.path.join(folder, os.path.basename(tree))]
        found = next((path for path in tried if os.path.isdir(path)), None)
        if found is None:
            raise CheckError(f"the sources of {tree} are neither at {tried[0]} nor at {tried[1]}; unpack them there, or leave trees out")
        copies[tree] = str(work / str(number))
        try:
            shutil.copytree(found, copies[tree], symlinks=True, ignore=shutil.ignore_patterns(".git"))
        except (OSError, shutil.Error) as error:
            raise CheckError(f"the sources of {tree} at {found} cannot be copied: {' '.join(str(error).split())[:300]}") from error
    return copies


def copy_from_image(image: dict, trees: list[str], work: pathlib.Path) -> tuple[dict[str, str], dict]:
    """Copies of the trees of an image, ``({tree: copy}, what was pulled)``, through the controller's container engine.

    ``image``: ``{reference, digest, registries, engine, engine_path, timeout_s}``. The container is only made, never started.
    """
    end = time.monotonic() + image["timeout_s"]
    try:
        name, path = container_cli.find_engine(image["engine"], image["engine_path"])
        engine = container_cli.Engine(name, path)
        mirrors = (image["registries"].get(registry.parse_reference(image["reference"])["registry"]) or {}).get("mirrors")
        had = image_supply.ensure(engine, {
            "reference": image["reference"], "digest": image["digest"], "architecture": MACHINES.get(platform.machine()),
            "mirrors": registry.mirror_references(image["reference"], mirrors), "registry_username": None, "registry_password": None,
        }, False, end)
        container = f"vllm-ascend-fleet-check-{uuid.uuid4().hex[:12]}"
        engine.run(["create", "--name", container, had["local_reference"]])
        try:
            copies = {}
            for number, tree in enumerate(trees):
                copies[tree] = str(work / str(number))
                engine.run(["cp", f"{container}:{tree}", copies[tree]], timeout_s=COPY_S)
        finally:
            engine.run(["rm", container])
    except (container_cli.CommandError, image_supply.SupplyError, registry.RegistryError) as error:
        raise CheckError(f"the sources cannot be taken out of {image['reference']}: {error}; or unpack them and name their folder with trees") from error
    return copies, had


def fingerprint(tree: str) -> dict:
    """``{name: (kind, executable, sha256)}`` of every file and link of a tree, but what git keeps for itself."""
    found = {}
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if name != ".git"]
        for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[os.path.relpath(path, tree)] = ("link", False, os.readlink(path))
            else:
                found[os.path.relpath(path, tree)] = ("file", bool(os.stat(path).st_mode & 0o100), patch_series.sha256_of(path))
    return found


def round_trip(patches: list[dict], tree: str, verdicts: list[dict], git: str, work: str) -> bool:
    """Whether the series of one tree goes in and out again, and leaves every file of the tree as it was."""
    def move(state):
        patch_series.run_series(patches, state, True, git, work)
        return fingerprint(tree)

    given = fingerprint(tree)
    without = move("absent")
    with_all = move("present")
    if move("absent") != without or with_all == without:
        return False
    found = {verdict["verdict"] for verdict in verdicts}
    if found == {patch_series.APPLIES}:
        return without == given
    return move("present") == given if found == {patch_series.THERE} else True


def check(manifest: dict, directory: str, copies: dict[str, str], git: str, work: str) -> list[dict]:
    """Judge a loaded manifest on copies of its trees; returns what :func:`judge` does, with the trees' names of the manifest."""
    patches = [{"file": os.path.join(directory, each["file"]), "tree": copies[each["tree"]], "sha256": each["sha256"], "name": each["tree"]}
               for each in manifest["patches"]]
    try:
        found = patch_series.verdicts_of(patches, patch_series.analyse(patches, git, work))
        trips = {}
        for tree, copy in copies.items():
            own = [verdict for verdict, patch in zip(found, patches, strict=True) if patch["name"] == tree]
            fits = all(verdict["verdict"] in (patch_series.APPLIES, patch_series.THERE) for verdict in own)
            trips[tree] = round_trip([patch for patch in patches if patch["name"] == tree], copy, own, git, work) if fits else None
    except (patch_series.PatchError, OSError) as error:
        raise CheckError(f"patch set {manifest['name']}: {error}") from error
    return judge([dict(verdict, tree=patch["name"]) for verdict, patch in zip(found, patches, strict=True)], trips)
