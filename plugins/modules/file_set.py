#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Have some text files in a folder, all of them or none
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Writes text files below one folder in one round trip. What is new is checked first by the tools of the host, and nothing is written when a tool
    objects.
  - With O(prune=true) the folder is ours as a whole. Files that are not named any more are removed. A folder that holds files and was not made by this
    module is refused.
options:
  directory:
    description: The folder. It is made when it is missing.
    type: path
    required: true
  files:
    description: Texts by path below O(directory). What is no text is written as JSON.
    type: dict
    default: {}
  sources:
    description:
      - Files of the role or playbook on the controller, by path below O(directory), each as a dictionary with C(file) and optionally C(replace).
      - C(replace) is a dictionary of names and values; C(@name@) in the file becomes the value. Such files may hold braces that Ansible would read.
    type: dict
    default: {}
  keep:
    description: Paths below O(directory) that stay as they are, whatever they hold.
    type: list
    elements: str
    default: []
  prune:
    description: Remove what is in the folder and neither in O(files) nor in O(keep).
    type: bool
    default: false
  validate:
    description:
      - Commands by pattern of paths, such as C(rules/*.yml), as lists in which V({file}) stands for the file and V({directory}) for the folder.
      - They see new files in a copy of the folder. A command that the host does not have is passed over and told.
    type: dict
    default: {}
  mode:
    description: Mode of the files.
    type: str
    default: '0644'
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Have alert rules
  vllm_ascend.fleet.file_set:
    directory: /etc/prometheus/vllm-ascend-fleet
    prune: true
    files:
      rules/fleet.yml: "{{ lookup('ansible.builtin.template', 'rules.yml.j2') }}"
    validate:
      rules/*.yml: [promtool, check, rules, "{file}"]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: [write rules/fleet.yml, remove targets/a2-9.json]
unchecked:
  description: Commands of O(validate) that the host does not have.
  returned: success
  type: list
  elements: str
"""

import fnmatch
import json
import os
import re
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli

MARKER = ".vllm-ascend-fleet"
TOOL_S = 60.0


class FileSetError(Exception):
    """Files that cannot be had, in one line."""


def present(root):
    """{path below the folder: text} of the files that are there."""
    found = {}
    for folder, dummy, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if relative != MARKER:
                with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
                    found[relative] = stream.read()
    return found


def check_paths(paths):
    """Refuse what would leave the folder."""
    for path in paths:
        if path.startswith("/") or ".." in path.split("/") or not path or path == MARKER:
            raise FileSetError("'%s' is no path below the folder" % path)


def validate(params, wanted):
    """Have the host's tools look at the files as they will be; the commands that are not there."""
    missing = []
    commands = [(pattern, command) for pattern, command in sorted(params["validate"].items()) if any(fnmatch.fnmatch(path, pattern) for path in wanted)]
    if not commands:
        return missing
    scratch = tempfile.mkdtemp(prefix="vllm-ascend-fleet-")
    try:
        for path, text in wanted.items():
            write(os.path.join(scratch, path), text, 0o644)
        for pattern, command in commands:
            if not shutil.which(command[0]):
                missing.append(command[0])
                continue
            for path in sorted(path for path in wanted if fnmatch.fnmatch(path, pattern)):
                line = [word.replace("{file}", os.path.join(scratch, path)).replace("{directory}", scratch) for word in command]
                done = container_cli.run(line, TOOL_S, cwd=scratch)
                if done["rc"] != 0:
                    said = container_cli.last_line(done["stderr"]) or container_cli.last_line(done["stdout"]) or "exit %s" % done["rc"]
                    raise FileSetError("%s objects to %s: %s; nothing was written" % (" ".join(command[:3]), path, said.replace(scratch + "/", "")))
    finally:
        shutil.rmtree(scratch)
    return missing


def write(path, text, mode):
    """Replace a file atomically."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="." + os.path.basename(path) + ".", dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
    os.rename(temporary, path)


def run(params, check_mode):
    """The module's result."""
    root = params["directory"]
    check_paths(list(params["files"]) + params["keep"])
    if not re.match(r"^0?[0-7]{3}$", params["mode"]):
        raise FileSetError("mode '%s' is no file mode such as 0644" % params["mode"])
    found = present(root) if params["prune"] else dict((path, text) for path, text in (
        (path, read(os.path.join(root, path))) for path in params["files"]) if text is not None)
    if params["prune"] and found and not os.path.exists(os.path.join(root, MARKER)):
        raise FileSetError("%s holds files that are not ours (%s); give another folder" % (root, ", ".join(sorted(found)[:3])))
    wanted = dict((path, text if isinstance(text, str) else json.dumps(text, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
                  for path, text in params["files"].items())
    new = sorted(path for path, text in wanted.items() if found.get(path) != text)
    gone = sorted(set(found) - set(wanted) - set(params["keep"])) if params["prune"] else []
    missing = validate(params, wanted) if new else []
    if not check_mode:
        if params["prune"] and not os.path.exists(os.path.join(root, MARKER)):
            write(os.path.join(root, MARKER), "Files of vllm_ascend.fleet; what else lies here is removed.\n", 0o644)
        for path in new:
            write(os.path.join(root, path), wanted[path], int(params["mode"], 8))
        for path in gone:
            os.unlink(os.path.join(root, path))
    diff = [{"before_header": path, "after_header": path, "before": found.get(path, ""), "after": wanted.get(path, "")} for path in new + gone]
    return {"changed": bool(new or gone), "actions": ["write " + path for path in new] + ["remove " + path for path in gone], "unchecked": missing,
            "diff": diff}


def read(path):
    """Text of a file, None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def main():
    module = AnsibleModule(
        argument_spec=dict(
            directory=dict(type="path", required=True),
            files=dict(type="dict", default={}),
            sources=dict(type="dict", default={}),
            keep=dict(type="list", elements="str", default=[]),
            prune=dict(type="bool", default=False),
            validate=dict(type="dict", default={}),
            mode=dict(type="str", default="0644"),
        ),
        supports_check_mode=True,
    )
    if module.params["sources"]:
        module.fail_json(msg="sources are read by the action of this module, on the controller; use it as a task")
    try:
        result = run(module.params, module.check_mode)
    except FileSetError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or module.params["directory"], error.strerror or error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
