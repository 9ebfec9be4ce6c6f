# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a patch set against the true sources on the controller, and says what it found."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue, lock_file, patch_check, patch_set, report


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.patch_check."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("patch_set", "patch_directory", "trees", "platform", "image", "registries", "catalogue_directories", "images_lock",
                             "report_directory", "engine", "engine_path", "timeout_s"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "patch_set": {"type": "str", "required": True},
            "patch_directory": {"type": "path", "required": True},
            "trees": {"type": "path", "default": ""},
            "platform": {"type": "str", "default": ""},
            "image": {"type": "str", "default": ""},
            "registries": {"type": "dict", "default": {}},
            "catalogue_directories": {"type": "list", "elements": "path", "default": []},
            "images_lock": {"type": "path", "default": "images.lock.yml"},
            "report_directory": {"type": "path", "default": "reports"},
            "engine": {"type": "str", "choices": ["docker", "podman"]},
            "engine_path": {"type": "path"},
            "timeout_s": {"type": "int", "default": 7200},
        })
        try:
            return self._check(args)
        except (patch_check.CheckError, patch_set.PatchSetError, catalogue.CatalogueError, lock_file.LockError) as error:
            return {"failed": True, "msg": str(error)}

    def _check(self, args):
        known = catalogue.load(args["catalogue_directories"])
        lock = lock_file.load(args["images_lock"])
        manifest = patch_check.find_manifest(known, args["patch_set"])
        pinned = [dict(each, sha256=each.get("sha256") or lock["patches"].get(each["file"])) for each in manifest["patches"]]
        manifest = patch_set.load(dict(manifest, patches=pinned), args["patch_directory"])
        git = shutil.which("git")
        if git is None:
            raise patch_check.CheckError("git was not found on the controller; install it")
        trees = list(dict.fromkeys(each["tree"] for each in manifest["patches"]))
        with tempfile.TemporaryDirectory(prefix="vllm-ascend-fleet-") as folder:
            work = pathlib.Path(folder)
            if args["trees"]:
                copies, source = patch_check.copy_given(args["trees"], trees, work), {"trees": os.path.abspath(args["trees"])}
            else:
                reference, digest = (args["image"], None) if args["image"] else patch_check.base_image(known, lock, manifest, args["platform"])
                copies, had = patch_check.copy_from_image({
                    "reference": reference, "digest": digest, "registries": args["registries"] or known["registries"], "engine": args["engine"],
                    "engine_path": args["engine_path"], "timeout_s": args["timeout_s"]}, trees, work)
                source = {"image": reference, "digest": had["digest"], "liars": had.get("liars", []), "note": had.get("note", "")}
            rows = patch_check.check(manifest, args["patch_directory"], copies, git, folder)
        wrong = patch_check.problem(manifest["name"], rows)
        for line in [""] + patch_check.render(rows) + [""]:
            self._display.display(line, color="red" if wrong else None)
        directory = pathlib.Path(args["report_directory"]).absolute() / (time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid()))
        result = {"patch_set": manifest["name"], "id": manifest["id"], "source": source, "patches": rows}
        report.save(directory, "patch_check.json", result)
        # The files would fill a screen; they are in the report.
        short = [{key: value for key, value in row.items() if key != "files"} for row in rows]
        result.update(changed=False, report=str(directory / "patch_check.json"), patches=short)
        if wrong:
            result.update(failed=True, msg=f"{wrong}. Every file stands above and in {result['report']}")
        return result
