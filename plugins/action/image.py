# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has an image pulled by a job of the host and follows it, over as many connections as it takes; what pulls nothing is the module's."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, image_job, image_supply
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job as jobs
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import bundling, lean, program
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import follow


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.image."""

    TRANSFERS_FILES = False
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        dummy, options = self.validate_argument_spec(image_supply.ARGUMENTS, required_together=image_supply.TOGETHER)
        if self._task.check_mode or options["state"] == "absent":
            return self._execute_module(module_name="vllm_ascend.fleet.image", module_args=dict(self._task.args), task_vars=task_vars)
        if options["bundle"]:
            return self._from_bundle(options, task_vars)
        text = program.text("image_job:main", {}).decode("ascii")
        result = lean.execute(self, "image_job:begin", {"options": options, "program": text}, task_vars)
        if not result.get("failed") and result["job"]:
            result = self._follow(options, task_vars)
        result.pop("job", None)
        host = task_vars["inventory_hostname"]
        for sentence in image_supply.warnings(result):
            self._display.warning(f"{host}: {sentence}")
        if result.get("failed"):
            result["msg"] = f"{host}: {result['msg']}"
        return result

    def _from_bundle(self, options, task_vars):
        """Copy what the host lacks of the image, and have a job of the host load it."""
        host, given = task_vars["inventory_hostname"], options["bundle"]
        options = dict(options, reference=bundle.reference(options["reference"], options["digest"]), digest=None, mirrors=[], registry_username=None,
                       registry_password=None, bundle="load", blobs=given["blobs"])
        result = lean.execute(self, "bundle_host:lacking", {"options": options, "blobs": given["blobs"]}, task_vars)
        if not result.get("failed") and result["blobs"] is not None:
            result = bundling.send(self, options, given, result["blobs"], task_vars)
            if not result.get("failed"):
                text = program.text("bundle_host:main", {}).decode("ascii")
                result = lean.execute(self, "image_job:begin", {"options": options, "program": text}, task_vars)
            if not result.get("failed"):
                result = self._follow(options, task_vars)
        result.pop("blobs", None)
        if result.get("failed"):
            result["msg"] = f"{host}: {result['msg']}"
        return result

    def _follow(self, options, task_vars):
        """Wait for the job. :returns: what it left as its result."""
        host = task_vars["inventory_hostname"]
        found = follow(lambda given: lean.execute(self, "job_host:answer", given, task_vars), lambda line: self._display.display(f"{host}: {line}"),
                       image_job.job_params(options, state="followed"), options["patience_s"])
        job = found.get("job") or {}
        if isinstance(job.get("result"), dict):
            return job["result"]
        return {"failed": True, "changed": False, "msg": jobs.sentence(job, job["folder"]) if job else found.get("msg") or "the job is out of sight"}
