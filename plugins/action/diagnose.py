# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what the module found on its host, or puts it into an archive on the controller."""

from __future__ import annotations

import io
import json
import os
import pathlib
import tarfile
import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import recovery
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import redact_data
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.diagnose."""

    TRANSFERS_FILES = False
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        host, archive = task_vars["inventory_hostname"], args.pop("archive", None)
        survey = workspace.load("surveys", {}).get(host)
        manifests = {each["name"]: each for each in recovery.installed(survey)}
        args["instances"] = [manifests.get(each, {"name": each}) if isinstance(each, str) else each for each in args.get("instances") or []]
        result = self._execute_module(module_name="vllm_ascend.fleet.diagnose", module_args=args, task_vars=task_vars)
        files = result.get("files")
        if not isinstance(files, dict):
            return result
        if not archive:
            for name, text in files.items():
                self._display.display("\n%s: %s\n%s" % (host, name.split("/", 1)[0], text.rstrip() or "no lines"))
            return result
        del result["files"]
        if survey:
            files["survey.json"] = json.dumps(
                redact_data(survey, args.get("secrets") or ()), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        try:
            result["archive"] = pack(pathlib.Path(archive).absolute(), host, files)
        except OSError as error:
            return {"failed": True, "msg": f"{host}: the archive {archive} cannot be written on the controller: {error.strerror or error}"}
        self._display.display(f"{host}: {result['archive']}")
        return result


def pack(path, folder, files):
    """Write a compressed archive that only its owner may read; its place is taken only by a whole one. :returns: its path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("." + path.name)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in sorted(files):
            data = files[name].encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    os.replace(temporary, path)
    return str(path)
