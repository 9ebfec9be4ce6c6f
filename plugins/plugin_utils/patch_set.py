# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A patch set on the controller: its files are proven there, before anything travels."""

from __future__ import annotations

import hashlib
import json
import os

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import patch_series


class PatchSetError(Exception):
    """The patch set cannot be used; one line for the user."""


def identify(manifest: dict, hashes: list[str]) -> str:
    """The set's id: 12 hex digits over the patch hashes in order, their trees and the Python pins."""
    content = {
        "patches": [[sha256, patch["tree"]] for sha256, patch in zip(hashes, manifest["patches"], strict=True)],
        "pins": list((manifest.get("python") or {}).get("pins") or []),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:12]


def check_files(manifest: dict, patch_dir: str) -> list[str]:
    """sha256 of each patch file in order; PatchSetError naming every file that is missing, altered or no patch."""
    problems, hashes = [], []
    for patch in manifest["patches"]:
        path = os.path.join(patch_dir or "", patch["file"])
        try:
            hashes.append(patch_series.load_patch(path, patch.get("sha256"))["sha256"])
        except patch_series.PatchError as error:
            problems.append(str(error))
    if problems:
        raise PatchSetError(f"patch set {manifest['name']}: {'; '.join(problems)}; patch_dir is {patch_dir or 'not set'}")
    return hashes


def load(manifest: dict, patch_dir: str) -> dict:
    """The manifest with every ``sha256`` filled in from the files and with its ``id``. Raises PatchSetError."""
    for key in ("name", "patches"):
        if key not in manifest:
            raise PatchSetError(f"patch set {manifest.get('name', '?')} has no '{key}'")
    for number, patch in enumerate(manifest["patches"], 1):
        for key in ("file", "tree"):
            if not patch.get(key):
                raise PatchSetError(f"patch set {manifest['name']}: patch {number} has no '{key}'")
        if not os.path.isabs(patch["tree"]) or os.path.basename(patch["file"]) != patch["file"]:
            raise PatchSetError(f"patch set {manifest['name']}: patch {number} needs a bare file name and an absolute tree, "
                                f"found {patch['file']} and {patch['tree']}")
    hashes = check_files(manifest, patch_dir)
    patches = [dict(patch, sha256=sha256) for patch, sha256 in zip(manifest["patches"], hashes, strict=True)]
    return dict(manifest, patches=patches, id=identify(manifest, hashes))
