# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the files of a role on the controller and hands them to the module as texts, so that nobody reads their braces as templates."""

from __future__ import annotations

import pathlib
import re

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.file_set."""

    TRANSFERS_FILES = False
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        sources = args.pop("sources", None) or {}
        files = dict(args.get("files") or {})
        for path, source in sources.items():
            try:
                files[path] = filled(pathlib.Path(self._find_needle("files", source["file"])).read_text(encoding="utf-8"), source.get("replace") or {})
            except (OSError, UnicodeDecodeError, AnsibleError) as error:
                return {"failed": True, "msg": f"{source['file']} cannot be read on the controller: {' '.join(str(error).split())}"}
            except ValueError as error:
                return {"failed": True, "msg": f"{source['file']}: {error}"}
        return self._execute_module(module_name="vllm_ascend.fleet.file_set", module_args=dict(args, files=files), task_vars=task_vars)


def filled(text, values):
    """A text with C(@name@) replaced. :raises ValueError: for a name without a value, and a value without a place."""
    names = set(re.findall(r"@([a-z][a-z0-9_]*)@", text))
    missing, unused = sorted(names - set(values)), sorted(set(values) - names)
    if missing or unused:
        raise ValueError(f"no value for @{missing[0]}@" if missing else f"there is no @{unused[0]}@ in it")
    return re.sub(r"@([a-z][a-z0-9_]*)@", lambda hit: str(values[hit.group(1)]), text)
