# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of module_utils on the host of a task, over the task's own connection and without Ansible's module machinery. Controller only."""

from __future__ import annotations

from ansible import constants

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import program


def execute(action, entry, arguments, task_vars):
    """Run one function on the task's host, in one round trip.

    :param str entry: as of ``program.text``.
    :returns: the function's answer, or {"failed": True, "msg"} in the shape of a module's result.
    :raises AnsibleConnectionFailure: when the host cannot be reached.
    """
    python = str(task_vars.get("ansible_python_interpreter") or constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars) or "auto")
    python = None if python.startswith("auto") else action._templar.template(python)
    fallbacks, text = constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=task_vars), program.text(entry, arguments)
    if action._connection.has_pipelining:
        done = action._low_level_execute_command(program.command(python, fallbacks), in_data=text, sudoable=True)
    else:
        done = _by_file(action, python, fallbacks, text)
    answer = program.answer(done["rc"], done["stdout"], done["stderr"])
    if answer.get("failed") and not answer.get("msg"):
        words = (done["stderr"] or done["stdout"]).strip().splitlines()
        answer["msg"] = "the host ran no program: %s" % (words[-1][:200] if words else "exit %s without a word" % done["rc"])
    return answer


def _by_file(action, python, fallbacks, text):
    """For connections that cannot carry a program on standard input: as a file of a folder that only the user of the task may read."""
    folder = action._make_tmp_path()
    try:
        path = action._connection._shell.join_path(folder, "program.py")
        action._transfer_data(path, text)
        # It may hold a secret, and how a connection copies a file is its own affair.
        action._remote_chmod([path], "0600")
        action._fixup_perms2([folder, path])
        return action._low_level_execute_command(program.command(python, fallbacks, action._connection._shell.quote(path)), sudoable=True)
    finally:
        action._remove_tmp_path(folder)
