# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a host gave no survey, in one line with the remedy."""

from __future__ import annotations

import re

# (what the connection or the remote shell says, kind, what it means, remedy); the first match counts.
_KNOWN = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed", "host_key",
     "its SSH host key is unknown or has changed", "find out why; only then replace the line: ssh-keygen -R HOST, ssh-keyscan HOST"),
    (r"Permission denied \(|Authentication failed|Too many authentication failures", "authentication",
     "SSH refuses the login", "check ansible_user and its key: ssh -v USER@HOST"),
    (r"Could not resolve hostname|Name or service not known", "name", "its name does not resolve", "set ansible_host or mend DNS"),
    (r"Connection refused", "port", "nothing listens on its SSH port", "check sshd and ansible_port"),
    (r"timed out|No route to host|Network is unreachable|Host is down", "network",
     "it does not answer", "check power, network and ansible_host"),
    (r"Missing sudo password|a password is required|incorrect sudo password|Sorry, try again", "sudo",
     "sudo asks for a password", "run with --ask-become-pass or allow the user to sudo without one"),
    (r"is not in the sudoers|not allowed to execute", "sudo", "the user may not use sudo", "add it to sudoers or set ansible_become: false"),
    (r"python[0-9.]*: (command )?not found|python[0-9.]*: No such file|interpreter.{0,80}was not found|rc.{0,4}127", "python",
     "has no Python at the configured path", "install python3 (3.7 or later) or set ansible_python_interpreter"),
    (r"SyntaxError|future feature annotations is not defined|requires a minimum of Python|ModuleNotFoundError: No module named 'ansible",
     "python", "its Python is too old for this ansible-core",
     "install Python 3.9 or later and set ansible_python_interpreter, or use ansible-core 2.16 for Python 3.7"),
    (r"No space left on device", "disk", "its temporary folder is full", "free space in /tmp or set ansible_remote_tmp"),
)


def explain(answer, interpreter="python3"):
    """Turn a failed module result into a survey of a host that cannot be surveyed.

    :param dict answer: what Ansible returned; "unreachable", "msg", "module_stdout", "module_stderr", "rc" are read.
    :returns: {"unreachable": True, "kind": str, "error": one line, "remedy": str}.
    """
    text = "\n".join(str(answer.get(key, "")) for key in ("msg", "module_stderr", "module_stdout", "exception") if answer.get(key))
    if answer.get("rc") == 127:
        text += "\nrc 127"
    for pattern, kind, meaning, remedy in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            if kind == "python":
                meaning = "%s (%s)" % (meaning, interpreter)
            return {"unreachable": True, "kind": kind, "error": meaning, "remedy": remedy}
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no output")
    return {"unreachable": True, "kind": "unknown", "error": "the survey did not run: %s" % first[:200], "remedy": "ansible -m ping -vvv on this host"}
