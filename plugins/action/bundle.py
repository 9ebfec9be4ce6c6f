# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a bundle with what a fleet needs, or proves one before anything is deployed from it."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, bundle_host, image_job
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job as jobs
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import bundling, lean, lock_file, program, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import follow


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.bundle."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("stage", "path", "root", "patch_directory", "wheelhouse", "python", "pip_index_url", "weights", "copy_weights", "images_lock",
                             "registry_username", "registry_password", "timeout_s"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "stage": {"type": "str", "choices": ["verify", "images", "seal"], "required": True},
            "path": {"type": "path", "required": True},
            "root": {"type": "str", "default": ""},
            "patch_directory": {"type": "path", "default": ""},
            "wheelhouse": {"type": "path", "default": ""},
            "python": {"type": "path", "default": ""},
            "pip_index_url": {"type": "str", "default": ""},
            "weights": {"type": "path", "default": ""},
            "copy_weights": {"type": "bool", "default": False},
            "images_lock": {"type": "path", "default": "images.lock.yml"},
            "registry_username": {"type": "str", "default": ""},
            "registry_password": {"type": "str", "default": "", "no_log": True},
            "timeout_s": {"type": "int", "default": 7200},
        })
        args["path"] = os.path.abspath(args["path"])
        try:
            return getattr(self, "_" + args["stage"])(args, task_vars)
        except (bundle.BundleError, lock_file.LockError, workspace.Missing, OSError) as error:
            return {"failed": True, "msg": f"{error} -- no host was changed" if args["stage"] == "verify" else str(error)}

    def _verify(self, args, task_vars):
        found = bundling.verify(args["path"], args["root"])
        workspace.save("bundle", found)
        self._display.display(f"the bundle {found['folder']} is whole, root hash {found['root']}")
        return {"changed": False, "root": found["root"], "images": sorted(found["images"])}

    def _images(self, args, task_vars):
        """Bring the images that this host was chosen for."""
        host, made = task_vars["inventory_hostname"], workspace.load("plan")
        known, result = [each for each in task_vars["ansible_play_hosts"] if each in made["hosts"]], {"changed": False, "images": []}
        for target, image in sorted(made["images"].items()):
            able = [each for each in image["hosts"] if each in known]
            if able[:1] != [host]:
                continue
            if not image["target_digest"]:
                return {"failed": True, "msg": f"{host}: {target} is in no registry yet; see why it was not built"}
            result["images"].append(target)
            if self._task.check_mode or self._whole(args, target, image):
                result["changed"] = result["changed"] or self._task.check_mode
                continue
            problem = self._bring(args, target, image, made["hosts"][host], task_vars)
            if problem:
                return {"failed": True, "msg": f"{host}: {problem}"}
            result["changed"] = True
        return result

    @staticmethod
    def _part(args, target):
        """Where one image is noted until the bundle is sealed."""
        return pathlib.Path(args["path"], "images", "part.%s.json" % hashlib.sha256(bundle.key(target).encode()).hexdigest()[:12])

    def _note(self, args, target, entry):
        self._part(args, target).parent.mkdir(parents=True, exist_ok=True)
        bundling.write(self._part(args, target), {bundle.key(target): entry})

    def _whole(self, args, target, image):
        """Whether an earlier run brought all of the image."""
        noted = self._part(args, target)
        try:
            if noted.exists():
                entry = json.loads(noted.read_text(encoding="utf-8"))[bundle.key(target)]
            else:
                entry = json.loads(pathlib.Path(args["path"], bundle.INDEX).read_text(encoding="utf-8"))["images"][bundle.key(target)]
        except (OSError, ValueError, KeyError):
            return False
        if entry["digest"] != image["target_digest"] or not all(pathlib.Path(args["path"], bundle.BLOBS, name).exists() for name in entry["blobs"]):
            return False
        self._note(args, target, entry)
        return True

    def _bring(self, args, target, image, entry, task_vars):
        """:returns: what went wrong, or None."""
        host = task_vars["inventory_hostname"]
        options = {"reference": f"{target.rsplit(':', 1)[0]}@{image['target_digest']}", "digest": None, "mirrors": [], "architecture": image["architecture"],
                   "engine": entry["engine"], "engine_path": entry["engine_path"], "state_directory": entry["state_directory"], "systemctl": "systemctl",
                   "systemd_run": "systemd-run", "timeout_s": args["timeout_s"], "bundle": "collect", "registry_username": args["registry_username"] or None,
                   "registry_password": args["registry_password"] or None}
        result = lean.execute(self, "image_job:begin", {"options": options, "program": program.text("bundle_host:main", {}).decode("ascii")}, task_vars)
        if not result.get("failed"):
            found = follow(lambda given: lean.execute(self, "job_host:answer", given, task_vars), lambda line: self._display.display(f"{host}: {line}"),
                           image_job.job_params(options, state="followed"))
            job = found.get("job") or {}
            result = job["result"] if isinstance(job.get("result"), dict) else {
                "failed": True, "msg": jobs.sentence(job, job["folder"]) if job else found.get("msg") or "the job is out of sight"}
        if result.get("failed"):
            return result["msg"]
        bundling.fetch(self, args["path"], result["blobs"], bundle_host.folder_of(options), task_vars)
        lean.execute(self, "bundle_host:clean", {"options": options}, task_vars)
        manifest = json.loads(pathlib.Path(args["path"], bundle.BLOBS, image["target_digest"].partition(":")[2]).read_text(encoding="utf-8"))
        self._note(args, target, {"digest": image["target_digest"], "blobs": result["blobs"],
                                  "media_type": manifest.get("mediaType") or "application/vnd.oci.image.manifest.v1+json"})
        return None

    def _seal(self, args, task_vars):
        if self._task.check_mode:
            return {"changed": True}
        before = pathlib.Path(args["path"], bundle.ROOT)
        had = before.read_text(encoding="utf-8").strip() if before.exists() else ""
        result = bundling.finish(args, workspace.load("plan")["images"], lock_file.load(args["images_lock"]))
        self._display.display(f"{args['path']}: {result['files']} files, {image_job.megabytes(result['bytes'])}, root hash {result['root']}")
        return dict(result, changed=had != result["root"])
