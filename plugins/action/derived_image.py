# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of derived_image: the patch files are proven here, and travel only when the builder needs them."""

from __future__ import annotations

import os
import tarfile
import tempfile

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_derive import stored_name
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import patch_set


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.derived_image."""

    # Not before it is known that the builder needs the files.
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        if "staged" in args:
            raise AnsibleActionFail("'staged' belongs to the action plugin, leave it out")
        for name in ("patch_dir", "wheelhouse"):
            if args.get(name):
                args[name] = os.path.abspath(os.path.expanduser(args[name]))
        if args.get("patch_set"):
            try:
                args["patch_set"] = patch_set.load(args["patch_set"], args.get("patch_dir"))
            except patch_set.PatchSetError as error:
                raise AnsibleActionFail(str(error)) from error
        if args.get("wheelhouse") and not os.path.isdir(args["wheelhouse"]):
            raise AnsibleActionFail(f"wheelhouse {args['wheelhouse']} is not a folder on the controller; unset it to use a package index")
        answer = self._module(args, task_vars)
        if answer.pop("needs_files", False):
            answer = self._with_files(args, task_vars)
        result.update(answer)
        return result

    def _module(self, args, task_vars):
        return self._execute_module(module_name="vllm_ascend.fleet.derived_image", module_args=args, task_vars=task_vars)

    def _with_files(self, args, task_vars):
        staged = self._connection._shell.tmpdir or self._make_tmp_path()
        try:
            folders, files = [staged], []
            for number, patch in enumerate(args["patch_set"]["patches"]):
                target = self._connection._shell.join_path(staged, "patches", stored_name(number, patch["file"]))
                folders.append(os.path.dirname(target))
                files.append((os.path.join(args["patch_dir"], patch["file"]), target))
            self._low_level_execute_command(" ".join(["mkdir", "-p"] + [self._connection._shell.quote(each) for each in folders]), sudoable=False)
            for source, target in files:
                self._transfer_file(source, target)
            if args.get("wheelhouse"):
                with tempfile.TemporaryDirectory() as folder:
                    archive = pack(args["wheelhouse"], os.path.join(folder, "wheelhouse.tar"))
                    files.append((archive, self._connection._shell.join_path(staged, "wheelhouse.tar")))
                    self._transfer_file(*files[-1])
            self._fixup_perms2(folders + [target for dummy, target in files])
            return self._module(dict(args, staged=staged), task_vars)
        finally:
            self._remove_tmp_path(staged)


def pack(wheelhouse, archive):
    """All wheels of a folder in one archive: one transfer instead of one for each."""
    wheels = sorted(name for name in os.listdir(wheelhouse) if name.endswith((".whl", ".tar.gz")))
    if not wheels:
        raise AnsibleActionFail(f"wheelhouse {wheelhouse} holds no wheel; fill it with 'pip download', or unset it to use a package index")
    with tarfile.open(archive, "w") as tar:
        for name in wheels:
            tar.add(os.path.join(wheelhouse, name), arcname=name)
    return archive
