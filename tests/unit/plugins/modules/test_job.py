# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd is two scripts here that keep a unit as a process group with its pid in a file; the jobs themselves are real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import ansible
import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job_host
from ansible_collections.vllm_ascend.fleet.plugins.modules import job as module

COLLECTIONS = os.path.abspath(module.__file__).partition("%sansible_collections%s" % (os.sep, os.sep))[0]
ANSIBLE = os.path.dirname(os.path.dirname(os.path.abspath(ansible.__file__)))
SYSTEMD_RUN = """#!/bin/sh
echo "$@" >>%(state)s/calls
for word; do case "$word" in --unit=*) unit=${word#--unit=};; --property=RuntimeMaxSec=*) limit=${word##*=};; esac; done
while [ "$1" != /bin/sh ]; do shift; done
setsid "$@" >/dev/null 2>&1 </dev/null &
echo $! >%(state)s/$unit
[ -z "$limit" ] || { (sleep "$limit"; kill -TERM "$(cat %(state)s/$unit)" && echo timeout >%(state)s/$unit.result) >/dev/null 2>&1 </dev/null & }
"""
SYSTEMCTL = """#!/bin/sh
verb=$1; shift
case $verb in
show) for unit; do case "$unit" in *.service)
  state=inactive; [ -e %(state)s/$unit ] && kill -0 "$(cat %(state)s/$unit)" 2>/dev/null && state=active
  result=success; [ ! -e %(state)s/$unit.result ] || { result=$(cat %(state)s/$unit.result); [ $state = active ] || state=failed; }
  printf 'Id=%%s\\nLoadState=loaded\\nActiveState=%%s\\nResult=%%s\\n\\n' "$unit" "$state" "$result";; esac; done;;
reset-failed) rm -f %(state)s/$1.result;;
stop) kill -TERM "$(cat %(state)s/$1)"; while kill -0 "$(cat %(state)s/$1)" 2>/dev/null; do sleep 0.02; done;;
esac
"""


class Host:
    """One host with a systemd of two scripts."""

    def __init__(self, path):
        self.path, self.units = path, path / "units"
        self.units.mkdir()
        self.given = {"state_directory": str(path / "state"), "patience_s": 300, "quiet": False}
        for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
            (path / name).write_text(text % {"state": self.units})
            (path / name).chmod(0o755)
            self.given[name.replace("-", "_")] = str(path / name)

    def run(self, job_id="one", check_mode=False, **given):
        """The module's result, through its own main as Ansible calls it."""
        arguments = dict(self.given, id=job_id, _ansible_check_mode=check_mode, **given)
        done = subprocess.run(
            [sys.executable, "-m", "ansible_collections.vllm_ascend.fleet.plugins.modules.job"], check=False,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join([COLLECTIONS, ANSIBLE])),
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.stdout, done.stderr.decode()
        return json.loads(done.stdout.decode())

    def folder(self, job_id="one"):
        return self.path / "state" / "jobs" / job_id

    def pid(self, job_id="one"):
        return int((self.units / domain.unit(job_id)).read_text())

    def calls(self):
        """How often a job was started."""
        return len((self.units / "calls").read_text().splitlines()) if (self.units / "calls").exists() else 0


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    for path in made.units.glob("*.service"):
        try:
            os.killpg(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


def shell(text):
    return ["/bin/sh", "-c", text]


def wait_for(path):
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, "%s did not appear" % path
        time.sleep(0.02)


def test_four_steps_of_a_start(host):
    command = shell("echo said; echo '{\"n\": 1}' >result.json; echo half >progress")
    check = host.run(argv=command, check_mode=True)
    assert check["changed"] and check["diff"]["after"] == {"job one": "running"} and host.calls() == 0 and not host.folder().exists()
    first = host.run(argv=command)
    assert first["changed"] and first["actions"] == check["actions"] == ["start job one"]
    done = host.run(state="followed")
    assert not done["changed"] and "failed" not in done
    job = done["job"]
    assert (job["state"], job["rc"], job["log"], job["result"], job["progress"]) == ("succeeded", 0, ["said"], {"n": 1}, "half")
    assert not host.run(argv=command, check_mode=True)["changed"] and not host.run(argv=command)["changed"] and host.calls() == 1
    assert host.run(argv=command, rerun=True)["changed"] and host.calls() == 2


def test_a_job_that_runs_is_not_started_again(host):
    host.run(argv=shell("sleep 60"))
    assert not host.run(argv=shell("sleep 60"))["changed"] and host.calls() == 1
    other = host.run(argv=shell("sleep 61"))
    assert other["failed"] and "runs already with another command" in other["msg"]
    following = host.run(state="followed", wait_s=0.3)
    assert following["job"]["state"] == "running" and "failed" not in following


def test_another_command_under_the_same_name_is_another_job(host):
    host.run(argv=shell("echo 1"))
    host.run(state="followed")
    assert host.run(argv=shell("echo 2"))["changed"]
    assert host.run(state="followed")["job"]["log"] == ["2"] and (host.folder() / "log.before").read_text() == "1\n"


def test_what_failed_is_told_and_started_again_in_its_folder(host):
    command = shell("[ -e half ] && exit 0; touch half; echo 'No space left on device' >&2; exit 3")
    host.run(argv=command)
    failed = host.run(state="followed")
    assert failed["failed"] and failed["msg"] == (
        "job one: exit status 3; its log ends with: No space left on device; see %s/log on this host" % host.folder())
    assert failed["job"]["state"] == "failed" and failed["job"]["rc"] == 3
    assert host.run(argv=command)["changed"]
    assert host.run(state="followed")["job"]["state"] == "succeeded"


def test_each_step_ends_a_wait(host):
    host.run(argv=shell("echo first >progress; while [ ! -e go ]; do sleep 0.05; done; echo second >progress; sleep 60"))
    wait_for(host.folder() / "progress")
    assert host.run(state="followed", seen="", wait_s=20)["job"]["progress"] == "first"
    (host.folder() / "go").write_text("")
    assert host.run(state="followed", seen="first", wait_s=20)["job"]["progress"] == "second"


def test_with_a_pace_a_step_ends_no_wait_before_it_and_the_end_does(host):
    host.run(argv=shell("echo first >progress; while [ ! -e go ]; do sleep 0.05; done; exit 0"))
    wait_for(host.folder() / "progress")
    jobs = job_host.Jobs(dict(job_host.DEFAULTS, id="one", state_directory=host.given["state_directory"], systemctl=host.given["systemctl"]))
    given = {"seen": "", "pace_s": 60}
    assert job_host.follow(jobs, dict(given, wait_s=0.1))["state"] == "running"
    (host.folder() / "go").write_text("")
    assert job_host.follow(jobs, dict(given, wait_s=50))["state"] == "succeeded"


def test_stopping_lets_the_command_clean_up(host):
    host.run(argv=[sys.executable, "-c", "import signal, sys, time\n"
                   "signal.signal(signal.SIGTERM, lambda *_: (open('cleaned', 'w').close(), sys.exit(7)))\nopen('up', 'w').close()\ntime.sleep(60)"])
    wait_for(host.folder() / "up")
    assert host.run(state="stopped", check_mode=True)["actions"] == ["stop job one"] and host.run(state="followed", wait_s=0.1)["job"]["state"] == "running"
    stopped = host.run(state="stopped")
    assert stopped["changed"] and stopped["job"]["state"] == "stopped" and stopped["job"]["rc"] == 7 and (host.folder() / "cleaned").exists()
    assert not host.run(state="stopped")["changed"]
    assert "it was stopped on request" in host.run(state="followed")["msg"]


def test_absent_ends_it_and_leaves_nothing(host):
    host.run(argv=shell("sleep 60"))
    assert host.run(state="absent")["actions"] == ["stop job one", "remove %s" % host.folder()]
    assert not host.folder().exists() and not host.run(state="absent")["changed"]
    nothing = host.run(state="followed")
    assert nothing["failed"] and "there is no job one on this host; start it first" in nothing["msg"]


def test_a_killed_job_is_lost_not_finished(host):
    host.run(argv=shell("sleep 60"))
    os.killpg(host.pid(), signal.SIGKILL)
    time.sleep(0.1)
    lost = host.run(state="followed")
    assert lost["failed"] and lost["job"]["state"] == "lost" and "gone without an exit status" in lost["msg"]
    assert host.run(argv=shell("true"))["changed"]


def test_a_job_of_before_a_reboot_is_lost(host):
    host.run(argv=shell("sleep 60"))
    record = json.loads((host.folder() / "job.json").read_text())
    (host.folder() / "job.json").write_text(json.dumps(dict(record, boot_id="another")))
    os.killpg(host.pid(), signal.SIGKILL)
    time.sleep(0.1)
    assert "the host was started anew while it ran" in host.run(state="followed")["msg"]


def test_a_limit_of_time_is_told_as_such(host):
    host.run(argv=shell("sleep 60"), timeout_s=1)
    late = host.run(state="followed")
    assert late["failed"] and "it took longer than 1 s" in late["msg"] and late["job"]["state"] == "failed"
    assert "it took longer than 1 s" in host.run(state="followed")["msg"], "it is still known after systemd has forgotten"


def test_one_of_a_kind_at_a_time(host):
    host.run("first", argv=shell("sleep 60"), kind="benchmark")
    second = host.run("second", argv=shell("true"), kind="benchmark")
    assert second["failed"] and "job first" in second["msg"] and "systemctl stop fleet-job-first.service" in second["msg"]
    assert not host.folder("second").exists()
    assert host.run("pull", argv=shell("true"), kind="pull")["changed"]
    host.run("first", state="stopped")
    assert host.run("second", argv=shell("true"), kind="benchmark")["changed"]


def test_secrets_reach_the_command_and_nobody_else(host):
    planted = "sk-planted 'quoted' $HOME"
    host.run(argv=shell('echo "key $KEY, $MODE"; echo "{\\"key\\": \\"$MODE\\"}" >result.json; echo "$KEY" >progress; [ "$KEY" = "$(cat expected)" ]'),
             environment={"MODE": "1"}, secrets={"KEY": planted}, files={"expected": planted})
    done = host.run(state="followed")
    assert done["job"]["state"] == "succeeded" and planted not in json.dumps(done) and done["job"]["log"] == ["key ********, 1"]
    assert done["job"]["result"] == {"key": "1"}, "what is no secret stays readable"
    (host.folder() / "expected").unlink()
    for path in host.folder().iterdir():
        assert planted not in path.read_text() and path.name != "secrets"
        assert path.stat().st_mode & 0o077 == 0 or path.name in ("log", "status", "progress", "result.json")
    assert host.folder().stat().st_mode & 0o777 == 0o700


def test_only_ended_jobs_are_pruned(host):
    host.run("long", argv=shell("sleep 60"))
    for name in ("a", "b", "c"):
        host.run(name, argv=shell("true"), keep=2)
        host.run(name, state="followed")
    assert sorted(path.name for path in (host.path / "state" / "jobs").iterdir() if path.is_dir()) == ["b", "c", "long"]


@pytest.mark.parametrize("given, words", [
    ({"argv": []}, "job one has no command; set argv"),
    ({"argv": ["no-such-tool-anywhere"]}, "this host has no command 'no-such-tool-anywhere'"),
    ({"argv": ["true"], "files": {"../x": ""}}, "'../x' cannot be the name of one of its files"),
    ({"argv": ["true"], "files": {"status": ""}}, "'status' cannot be"),
    ({"argv": ["true"], "secrets": {"a b": "x"}}, "cannot carry the variable 'a b'"),
    ({"job_id": "No/Good", "argv": ["true"]}, "job id 'No/Good'"),
    ({"argv": ["true"], "systemd_run": "/bin/false"}, "was not started"),
    ({"argv": ["true"], "systemctl": "/bin/false"}, "systemd does not answer"),
])
def test_what_cannot_be_is_refused_in_one_line(host, given, words):
    given = dict(given)
    host.given.update({key: given.pop(key) for key in ("systemd_run", "systemctl") if key in given})
    result = host.run(**given)
    assert result["failed"] and words in result["msg"] and "\n" not in result["msg"]


def test_a_result_that_is_no_json_is_told(host):
    host.run(argv=shell("echo '{' >result.json"))
    done = host.run(state="followed")
    assert done["failed"] and "result.json is not JSON" in done["msg"]


def test_words_and_folders_reach_the_command_as_they_are(host):
    words = ["a b", "$HOME", "%n", "it's", "", "ü"]
    host.run(
        argv=[sys.executable, "-c", "import json, os, sys; json.dump([sys.argv[1:], os.environ['JOB_DIRECTORY'], os.getcwd()], open('result.json', 'w'))"]
        + words
    )
    assert host.run(state="followed")["job"]["result"] == [words, str(host.folder()), str(host.folder())]
