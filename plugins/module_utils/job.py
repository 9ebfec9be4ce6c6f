# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A detached job of a host: a command in a transient systemd unit, and a folder with what it says and leaves. Pure."""

from __future__ import annotations

import hashlib
import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import shorten

# Not the prefix of instances: what a job holds must not count as held by an instance.
UNIT_PREFIX = "fleet-job-"
FOLDER_VARIABLE = "JOB_DIRECTORY"
SHOW = ("Id", "LoadState", "ActiveState", "Result")
ENDED = ("succeeded", "failed", "stopped", "lost")
RESULT_LIMIT = 1 << 24

_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,99}$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_FILE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
# What the module and the script write themselves.
RESERVED = ("job.json", "run", "environment", "secrets", "log", "log.before", "status", "status.new", "stopping", "progress", "result.json")

# The exit status must outlive systemd's memory of the unit, and a signal must reach the command alone, which may want to clean up.
# A wait that a signal interrupts ends before the command does. As a file, because systemd reads dollars in arguments.
SCRIPT = """\
cd '%(folder)s' || exit 1
export %(variable)s='%(folder)s'
[ ! -e environment ] || . ./environment
[ ! -e secrets ] || . ./secrets
%(command)s >>log 2>&1 </dev/null &
child=$!
trap 'kill -TERM "$child" 2>>log' TERM
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
echo "$status" >status.new && mv status.new status
"""


class JobError(Exception):
    """A job that cannot be started, found or trusted, in one line."""


def unit(job_id):
    """Name of a job's unit."""
    return "%s%s.service" % (UNIT_PREFIX, job_id)


def check(job_id, argv, files, variables):
    """Raise JobError for a name or a value that cannot be carried."""
    if not _ID.match(job_id):
        raise JobError("job id '%s': use small letters, digits, dots, dashes and underscores, at most 100, a letter or digit first" % job_id)
    if not argv:
        raise JobError("job %s has no command; set argv" % job_id)
    for name in files:
        if not _FILE.match(name) or name in RESERVED:
            raise JobError("job %s: '%s' cannot be the name of one of its files" % (job_id, name))
    for name, value in variables.items():
        if not _VARIABLE.match(name) or "\0" in str(value):
            raise JobError("job %s: the environment cannot carry the variable '%s'" % (job_id, name))


def digest(argv, files, environment, secrets):
    """What makes two jobs of one id the same; of secrets only that they are there."""
    content = {"argv": list(argv), "files": files, "environment": environment, "secrets": sorted(secrets)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def _quoted(text):
    return str(text).replace("'", "'\\''")


def script(folder, argv):
    """The shell script that runs a command and keeps its exit status."""
    return SCRIPT % {"folder": _quoted(folder), "variable": FOLDER_VARIABLE, "command": " ".join("'%s'" % _quoted(word) for word in argv)}


def environment_text(environment):
    """The variables as a shell reads them."""
    return "".join("export %s='%s'\n" % (name, _quoted(value)) for name, value in sorted(environment.items()))


def environment_values(text):
    """The values of :func:`environment_text`."""
    return [value.replace("'\\''", "'") for value in re.findall(r"^export \w+='((?:[^']|'\\'')*)'$", text or "", re.M)]


def start_command(systemd_run, job_id, folder, timeout_s=0, stop_timeout_s=30):
    """Arguments that start a job and return at once."""
    line = [systemd_run, "--quiet", "--no-ask-password", "--unit=" + unit(job_id), "--description=Job %s of vllm_ascend.fleet" % job_id,
            "--property=KillMode=mixed", "--property=TimeoutStopSec=%d" % stop_timeout_s]
    if timeout_s:
        line.append("--property=RuntimeMaxSec=%d" % timeout_s)
    return line + ["/bin/sh", folder + "/run"]


def judge(record, properties, status, stopping, boot_id):
    """(state, exit status or None, reason or None) of a job.

    :param record: the content of its job.json, None when there is none; "ended" in it is what was found once it had ended.
    :param dict properties: what systemd says of its unit, asked before the status was read.
    :param status: the text of its status file, None when there is none.
    :param bool stopping: whether somebody asked it to stop.
    :param boot_id: of the host now.
    :returns: state is "absent", "running", "succeeded", "failed", "stopped" or "lost".
    """
    if record is None:
        return "absent", None, None
    if record.get("ended"):
        return tuple(record["ended"])
    result = properties.get("Result") or "success"
    if status is not None and status.strip().lstrip("-").isdigit():
        code = int(status)
        if code == 0:
            return "succeeded", 0, None
        if result == "timeout":
            return "failed", code, "it took longer than %s s" % record.get("timeout_s")
        if stopping:
            return "stopped", code, "it was stopped on request"
        return "failed", code, _exit(code) if result in ("success", "exit-code") else "systemd: %s, %s" % (result, _exit(code))
    if properties.get("ActiveState") in ("active", "activating", "deactivating", "reloading"):
        return "running", None, None
    if stopping:
        return "stopped", None, "it was stopped on request and did not end by itself"
    if record.get("boot_id") != boot_id:
        return "lost", None, "the host was started anew while it ran"
    if result == "timeout":
        return "failed", None, "it took longer than %s s" % record.get("timeout_s")
    return "lost", None, "it is gone without an exit status%s" % ("" if result == "success" else ", systemd: " + result)


def _exit(code):
    return "signal %d" % (code - 128) if 128 < code < 160 else "exit status %d" % code


def result_of(job_id, text):
    """(what the job left as its result, problem or None)."""
    if text is None:
        return None, None
    try:
        return json.loads(text), None
    except ValueError as error:
        return None, "job %s: its result.json is not JSON: %s" % (job_id, error)


def progress(text, lines):
    """How far a job is in one line: what it says itself, or the last line of its log."""
    for line in reversed((text or "").splitlines() + [""]):
        if line.strip():
            return shorten(line, 200)
    said = [line for line in lines if line.strip()]
    return shorten(said[-1], 200) if said else None


def prunable(ended, keep):
    """Ids of ended jobs that may go.

    :param dict ended: {id: when it ended, seconds}.
    :param int keep: how many stay.
    """
    return sorted(sorted(ended, key=lambda name: (ended[name], name), reverse=True)[max(keep, 0):])


def sentence(job, folder):
    """One line on a job that did not end well."""
    said = [line for line in job["log"] if line.strip()]
    words = "; its log ends with: %s" % shorten(said[-1]) if said else ""
    return "job %s: %s%s; see %s/log on this host" % (job["id"], job["reason"] or job["state"], words, folder)
