# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detached jobs on their host: folders, systemd and what they say. This file does I/O; ``job`` decides."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import redact, redact_data

TOOL_S = 60.0
# Looking costs the host a little each time, and most jobs are long.
POLL_S = (0.1, 2.0)
LOG_READ = 1 << 16
# Of a job that another file starts or follows.
DEFAULTS = {"environment": {}, "secrets": {}, "kind": None, "rerun": False, "timeout_s": 0, "stop_timeout_s": 30, "wait_s": 0, "seen": None, "lines": 20,
            "keep": 20, "systemctl": "systemctl", "systemd_run": "systemd-run"}


def read_text(path, last=None):
    """Text of a file, or of its end; None when there is none."""
    try:
        with open(path, "rb") as stream:
            if last:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - last))
            return stream.read(domain.RESULT_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def write_text(path, text):
    """Replace a file that only its owner may read."""
    temporary = path + ".part"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.rename(temporary, path)


def remove(path):
    """Remove a file that may not be there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def boot_id():
    """Of this host's kernel."""
    with open("/proc/sys/kernel/random/boot_id") as stream:
        return stream.read().strip()


class Jobs:
    """The jobs of this host."""

    def __init__(self, params, look_only=False):
        self.params, self.look_only = params, look_only
        self.root = os.path.join(params["state_directory"], "jobs")
        self.folder = self.folder_of(params["id"])

    def folder_of(self, job_id):
        return os.path.join(self.root, job_id)

    def path(self, name, job_id=None):
        return os.path.join(self.folder_of(job_id or self.params["id"]), name)

    def systemctl(self, args, timeout_s=TOOL_S):
        return container_cli.run([self.params["systemctl"]] + args, timeout_s)

    def properties(self, job_ids):
        """{id: what systemd says of its unit}."""
        units = [domain.unit(job_id) for job_id in job_ids]
        shown = self.systemctl(["show", "--no-pager", "--property=" + ",".join(domain.SHOW)] + units)
        if shown["rc"] != 0:
            raise domain.JobError("systemd does not answer: %s" % (container_cli.last_line(shown["stderr"]) or "exit %s" % shown["rc"]))
        found = release.parse_show(shown["stdout"])
        return dict((job_id, found.get(domain.unit(job_id)) or {}) for job_id in job_ids)

    def judged(self, job_id, properties):
        """(record, state, exit status, reason) of one job."""
        text = read_text(self.path("job.json", job_id))
        try:
            record = json.loads(text) if text is not None else None
        except ValueError:
            record = {}
        return (record,) + domain.judge(record, properties, read_text(self.path("status", job_id)),
                                        os.path.exists(self.path("stopping", job_id)), boot_id())

    def digest(self):
        return domain.digest(*[self.params[name] for name in ("argv", "files", "environment", "secrets")])

    def look(self):
        """What there is of the job."""
        properties = self.properties([self.params["id"]])[self.params["id"]]
        record, state, code, reason = self.judged(self.params["id"], properties)
        secrets = [value for value in domain.environment_values(read_text(self.path("secrets"))) if value]
        if state in domain.ENDED and not self.look_only and not record.get("ended"):
            self.settle(record, [state, code, reason], secrets, properties)
        lines = [redact(line, secrets) for line in (read_text(self.path("log"), LOG_READ) or "").splitlines()]
        result, problem = domain.result_of(self.params["id"], read_text(self.path("result.json")) if state in domain.ENDED else None)
        started = (record or {}).get("started_epoch_s")
        until = os.stat(self.path("status")).st_mtime if os.path.exists(self.path("status")) else time.time()
        return {
            "id": self.params["id"], "state": state, "rc": code, "reason": reason or problem, "started_epoch_s": started,
            "elapsed_s": round(max(0.0, until - started), 1) if started else None,
            "progress": domain.progress(redact(read_text(self.path("progress")) or "", secrets), lines),
            "log": lines[-self.params["lines"]:] if self.params["lines"] > 0 else [],
            "result": redact_data(result, secrets), "folder": self.folder}

    def settle(self, record, ended, secrets, properties):
        """Keep how a job ended, and take away what it must not leave behind: its secrets, and a failed unit that alarms the host's own monitoring."""
        for name in ("log", "log.before", "result.json", "progress") if secrets else ():
            said = read_text(self.path(name))
            clean = said
            for secret in sorted(secrets, key=len, reverse=True):
                clean = clean and clean.replace(secret, "********")
            if clean != said:
                write_text(self.path(name), clean)
        remove(self.path("secrets"))
        self.write_record(dict(record, ended=ended))
        if properties.get("ActiveState") == "failed":
            self.systemctl(["reset-failed", domain.unit(self.params["id"])])

    def write_record(self, record):
        write_text(self.path("job.json"), json.dumps(record, indent=1, sort_keys=True) + "\n")

    def others(self):
        """{id: (record, state)} of all jobs but this one."""
        names = sorted(name for name in os.listdir(self.root) if name != self.params["id"] and os.path.exists(self.path("job.json", name)))
        properties = self.properties(names) if names else {}
        return dict((name, self.judged(name, properties[name])[:2]) for name in names)

    def start(self):
        """Start the job; one at a time, so that two of a kind cannot slip past each other."""
        params = self.params
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with open(os.path.join(self.root, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            others = self.others()
            self.refuse_second(others)
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            for name in ("status", "stopping", "progress", "result.json"):
                remove(self.path(name))
            if os.path.exists(self.path("log")):
                os.rename(self.path("log"), self.path("log.before"))
            for name, text in params["files"].items():
                write_text(self.path(name), text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))
            for name in ("environment", "secrets"):
                remove(self.path(name))
                if params[name]:
                    write_text(self.path(name), domain.environment_text(params[name]))
            write_text(self.path("run"), domain.script(self.folder, params["argv"]))
            self.write_record({
                "schema": 1, "id": params["id"], "kind": params["kind"], "argv": params["argv"], "timeout_s": params["timeout_s"],
                "digest": self.digest(), "started_epoch_s": time.time(), "boot_id": boot_id()})
            self.systemctl(["reset-failed", domain.unit(params["id"])])
            done = container_cli.run(domain.start_command(
                params["systemd_run"], params["id"], self.folder, params["timeout_s"], params["stop_timeout_s"]), TOOL_S)
            if done["rc"] != 0:
                raise domain.JobError("job %s was not started: %s" % (params["id"], container_cli.last_line(done["stderr"]) or "no answer of systemd-run"))
            for name in domain.prunable(dict((name, os.stat(self.path("job.json", name)).st_mtime) for name, (dummy, state) in others.items()
                                             if state in domain.ENDED), params["keep"] - 1):
                shutil.rmtree(self.folder_of(name))

    def refuse_second(self, others):
        """Refuse to run beside another job of the same kind."""
        for name, (record, state) in sorted(others.items()):
            if state == "running" and self.params["kind"] and record.get("kind") == self.params["kind"]:
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.get("started_epoch_s") or 0))
                raise domain.JobError("job %s cannot run beside job %s, which is of the same kind (%s) and runs since %s; wait for it, or stop it: "
                                      "systemctl stop %s" % (self.params["id"], name, self.params["kind"], since, domain.unit(name)))

    def stop(self):
        """End the job and wait for it."""
        write_text(self.path("stopping"), "")
        stopped = self.systemctl(["stop", domain.unit(self.params["id"])], self.params["stop_timeout_s"] + TOOL_S)
        if stopped["rc"] != 0:
            raise domain.JobError("job %s does not stop: %s" % (self.params["id"], container_cli.last_line(stopped["stderr"]) or "no end"))


def follow(jobs, params):
    """Wait until the job has ended, has moved on from ``seen`` (which is told after ``pace_s``), or the time is over."""
    began = time.monotonic()
    until = time.monotonic() + params["wait_s"] if params["wait_s"] > 0 else None
    pause = POLL_S[0]
    while True:
        found = jobs.look()
        moved = params["seen"] is not None and found["progress"] != params["seen"] and time.monotonic() - began >= params.get("pace_s", 0)
        if found["state"] != "running" or moved or (until is not None and time.monotonic() >= until):
            return found
        # Its end is known at once; to look for that file costs nothing.
        rest = time.monotonic() + pause
        time.sleep(POLL_S[0])
        while time.monotonic() < rest and not os.path.exists(jobs.path("status")):
            time.sleep(POLL_S[0])
        pause = min(2 * pause, POLL_S[1])


def run(params, check_mode):
    """(result, one line why it failed or None)."""
    domain.check(params["id"], params["argv"] if params["state"] == "started" else ["-"], params["files"],
                 dict(params["environment"], **params["secrets"]))
    jobs, actions = Jobs(params, check_mode), []
    before = jobs.look()
    found, problem = before, None
    if params["state"] == "started":
        if not shutil.which(params["argv"][0]):
            raise domain.JobError("job %s: this host has no command '%s'" % (params["id"], params["argv"][0]))
        same = '"%s"' % jobs.digest() in (read_text(jobs.path("job.json")) or "")
        if before["state"] == "running" and not same:
            raise domain.JobError("job %s runs already with another command; wait for it, stop it, or choose another id" % params["id"])
        if before["state"] != "running" and not (before["state"] == "succeeded" and same and not params["rerun"]):
            actions.append("start job %s" % params["id"])
            if not check_mode:
                jobs.start()
                found = jobs.look()
    elif params["state"] == "followed":
        if before["state"] == "absent" and not check_mode:
            raise domain.JobError("there is no job %s on this host; start it first" % params["id"])
        found = before if check_mode else follow(jobs, params)
        if found["state"] in domain.ENDED and (found["state"] != "succeeded" or found["reason"]):
            problem = domain.sentence(found, jobs.folder)
    else:
        if before["state"] == "running":
            actions.append("stop job %s" % params["id"])
        if params["state"] == "absent" and os.path.isdir(jobs.folder):
            actions.append("remove %s" % jobs.folder)
        if not check_mode:
            if before["state"] == "running":
                jobs.stop()
            if params["state"] == "absent" and os.path.isdir(jobs.folder):
                shutil.rmtree(jobs.folder)
            found = jobs.look()
    after = {"started": "running", "stopped": "stopped", "absent": "absent"}.get(params["state"]) if actions else before["state"]
    return {"changed": bool(actions), "actions": actions, "job": found,
            "diff": {"before": {"job %s" % params["id"]: before["state"]}, "after": {"job %s" % params["id"]: after}}}, problem


def answer(params):
    """:func:`run` for a program. :returns: its result; a job that did not end well says so in its state."""
    return run(params, False)[0]
