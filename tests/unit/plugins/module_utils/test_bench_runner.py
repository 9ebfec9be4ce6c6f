# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner as its own process in a job's folder; docker, systemctl and the server's page are small stand-ins, the commands are real processes."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import ansible
import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_plan, bench_runner

COLLECTIONS = os.path.abspath(bench_runner.__file__).partition("%sansible_collections%s" % (os.sep, os.sep))[0]
ANSIBLE = os.path.dirname(os.path.dirname(os.path.abspath(ansible.__file__)))

RESULT = {"num_prompts": 1, "duration": 2.0, "completed": 1, "failed": 0, "total_input_tokens": 10, "total_output_tokens": 8, "output_throughput": 4.0,
          "mean_ttft_ms": 100.0, "mean_tpot_ms": 50.0}
# docker exec [--env NAME]… container command…; inspect answers with the file that stands for the engine's start.
DOCKER = """#!/bin/sh
echo "$@" >>%(here)s/calls
case $1 in
container) printf '[{"State": {"StartedAt": "%%s"}}]' "$(cat %(here)s/started)";;
exec) shift; while [ "$1" = --env ] || [ "$1" = --workdir ]; do shift 2; done; shift; exec "$@";;
esac
"""


class Page(http.server.BaseHTTPRequestHandler):
    finished = 0

    def log_message(self, *unused):
        return

    def do_GET(self):
        text = ("vllm:request_success_total{engine=\"0\"} %d\nvllm:num_requests_running{engine=\"0\"} 0\n" % self.server.finished).encode()
        self.server.finished += self.server.others + 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Job:
    """One job's folder."""

    def __init__(self, path):
        self.path, self.bin = path, path / "bin"
        self.bin.mkdir()
        (path / "started").write_text("2026-11-25T05:00:00Z")
        self.script("docker", DOCKER % {"here": path})
        self.script("systemctl", "#!/bin/sh\necho systemctl \"$@\" >>%s/calls\n[ ! -e %s/broken ]\n" % (path, path))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.server.finished, self.server.others = 0, 0
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.secrets = path / "secrets"
        self.secrets.mkdir()
        (self.secrets / "i.secret").write_text("VLLM_API_KEY=sk-planted\n")

    def script(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def step(self, number=1, shell=None, **changes):
        """A step whose tool is a shell script that gets what vllm would; $file is the result."""
        place = str(self.path / ("place%d" % number))
        shell = shell or "echo bench $OPENAI_API_KEY; echo '%s' >$file" % json.dumps(RESULT)
        argv = ["docker", "exec", "--env", "OPENAI_API_KEY", "c", "/bin/sh", "-c", bench_plan.IN_CONTAINER, "sh", place, place + "/r.json", "/bin/sh", "-c",
                "file=%s/r.json; echo ran %d >>%s/calls; " % (place, number, self.path) + shell]
        made = {"key": "i|w|%d" % number, "chain": "i|w", "title": "i w run %d of 2" % number, "tool": "serve", "argv": argv,
                "kill": ["docker", "exec", "c", "/bin/sh", "-c", 'kill -TERM "$(cat "$1/pid")"', "sh", place], "container": "c", "unit": None,
                "port": self.server.server_address[1], "timeout_s": 30,
                "wanted": {"num_prompts": 1, "output_len": 8}, "secret": True, "instance": "i", "tokenizer_file": str(self.path / "tokenizer.json")}
        return dict(made, **changes)

    def start(self, steps, max_age_s=3600):
        (self.path / "plan.json").write_text(json.dumps(bench_plan.runner_plan(steps, "docker", max_age_s)))
        code = ("from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_runner, release\n"
                "release.SECRET_DIRECTORY = %r\nbench_runner.main({})" % str(self.secrets))
        return subprocess.Popen([sys.executable, "-c", code], cwd=str(self.path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=dict(os.environ, JOB_DIRECTORY=str(self.path), PATH="%s:%s" % (self.bin, os.environ["PATH"]),
                                         PYTHONPATH=os.pathsep.join([COLLECTIONS, ANSIBLE]), http_proxy="http://127.0.0.1:9"))

    def run(self, steps, **options):
        """(exit status, [what each step left], the log)."""
        (self.path / "result.json").unlink() if (self.path / "result.json").exists() else None
        process = self.start(steps, **options)
        log = process.communicate(timeout=60)[0].decode()
        left = json.loads((self.path / "result.json").read_text())
        assert left["complete"] == (process.returncode == 0)
        return process.returncode, left["results"], log

    def calls(self, word):
        """Lines of the stand-ins' record that begin with a word."""
        text = (self.path / "calls").read_text() if (self.path / "calls").exists() else ""
        return [line for line in text.splitlines() if line.startswith(word)]


@pytest.fixture
def job(tmp_path):
    made = Job(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_good_run_leaves_its_result_and_what_the_server_saw(job):
    (job.path / "tokenizer.json").write_text("{}")
    code, (left,), log = job.run([job.step()])
    assert code == 0 and left["problems"] == [] and json.loads(left["text"]) == RESULT and left["rc"] == 0
    assert left["server"] == {"other_requests": 0, "busy_before": 0, "cache_hit_ratio": None}
    assert left["tokenizer_sha256"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert "bench ********" in log and "sk-planted" not in log + json.dumps(left), "the key reached the tool and nobody else"
    assert (job.path / "progress").read_text() == "1/1 done; last: 4.00 tok/s, TTFT 100.00 ms, TPOT 50.00 ms\n"
    assert not (job.path / "place1").exists() and left["text"] not in left["output"]


def test_requests_of_others_are_counted(job):
    job.server.others = 3
    assert job.run([job.step()])[1][0]["server"]["other_requests"] == 3


def test_finished_runs_are_not_repeated(job):
    steps = [job.step(1), job.step(2)]
    first = job.run(steps)[1]
    again = job.run(steps)[1]
    assert job.calls("ran") == ["ran 1", "ran 2"] and [left["kept"] for left in again] == [True, True]
    assert [left["started_epoch_s"] for left in again] == [left["started_epoch_s"] for left in first]


def test_what_is_missing_is_measured(job):
    bad = "if [ -e %s/ok ]; then echo '%s' >$file; else echo no; exit 1; fi" % (job.path, json.dumps(RESULT))
    steps = [job.step(1), job.step(2, bad)]
    assert [bool(left["problems"]) for left in job.run(steps)[1]] == [False, True]
    (job.path / "ok").write_text("")
    assert [left["problems"] for left in job.run(steps)[1]] == [[], []]
    assert job.calls("ran") == ["ran 1", "ran 2", "ran 2"]


def test_a_warm_run_is_repeated_with_what_warmed_it_once_the_engine_is_another(job):
    steps = [job.step(1), job.step(2)]
    job.run(steps)
    (job.path / "started").write_text("2026-11-25T06:00:00Z")
    job.run(steps)
    assert job.calls("ran") == ["ran 1", "ran 2"] * 2


def test_a_run_after_one_that_was_repeated_is_repeated_too(job):
    steps = [job.step(1), job.step(2)]
    job.run(steps)
    (job.path / "results" / sorted(os.listdir(str(job.path / "results")))[0]).unlink()
    job.run(steps)
    assert job.calls("ran")[2:] in (["ran 1", "ran 2"], ["ran 2"])


def test_old_results_and_those_of_another_command_are_not_taken(job):
    job.run([job.step(1)])
    job.run([job.step(1)], max_age_s=-1)
    job.run([job.step(1, "echo '%s' >$file; true" % json.dumps(RESULT))])
    assert job.calls("ran") == ["ran 1"] * 3


@pytest.mark.parametrize("shell, words", [
    ("echo 'ValueError: no such model' >&2; exit 1", "the command ended with 1: ValueError: no such model"),
    ("true", "the result file is empty"),
    ("echo '{\"completed\": ' >$file", "cut off or not JSON"),
    ("echo '%s' >$file" % json.dumps(dict(RESULT, failed=1, completed=0)), "1 of 1 requests failed although the tool ended with 0"),
])
def test_a_run_that_is_no_measurement_is_told_and_the_next_one_goes_on(job, shell, words):
    code, left, _log = job.run([job.step(1, shell), job.step(2)])
    assert code == 0 and words in left[0]["problems"][0] and left[1]["problems"] == []


def test_a_run_that_does_not_end_is_ended_inside_the_container_as_well(job):
    code, (left,), _log = job.run([job.step(1, "echo $$ >%s/inner; exec sleep 60" % job.path, timeout_s=1)])
    assert code == 0 and left["problems"] == ["it did not end within 1 s"]
    gone((job.path / "inner").read_text())


def gone(pid):
    until = time.monotonic() + 10
    while os.path.exists("/proc/%d" % int(pid)) and " Z " not in open("/proc/%d/stat" % int(pid)).read():
        assert time.monotonic() < until, "the process in the container still runs"
        time.sleep(0.05)


def test_a_stop_ends_the_tool_and_keeps_what_was_finished(job):
    process = job.start([job.step(1), job.step(2, "echo $$ >%s/inner; exec sleep 60" % job.path)])
    until = time.monotonic() + 20
    while not (job.path / "inner").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.stdout.close()
    left = json.loads((job.path / "result.json").read_text())
    assert not left["complete"] and [one["key"] for one in left["results"]] == ["i|w|1"]
    gone((job.path / "inner").read_text())


def offline(job, number=1, shell=None):
    step = job.step(number, shell, tool="throughput", unit="vllm-ascend-i.service", port=None, container="fleet-offline-i")
    return dict(step, key="i|offline|%d" % number, chain="i|offline")


OFFLINE = "printf 'Total num prompt tokens:  10\\nTotal num output tokens:  8\\n'; echo '%s' >$file" % json.dumps(
    {"elapsed_time": 2.0, "num_requests": 1, "total_num_tokens": 18, "requests_per_second": 0.5, "tokens_per_second": 9.0})


def test_offline_runs_stop_the_instance_once_and_start_it_again(job):
    code, left, _log = job.run([job.step(1), offline(job, 2, OFFLINE), offline(job, 3, OFFLINE)])
    assert code == 0 and [one["problems"] for one in left] == [[], [], []]
    assert job.calls("systemctl") == ["systemctl stop vllm-ascend-i.service", "systemctl start vllm-ascend-i.service"]
    order = [line.split()[0] + line.split()[1] for line in (job.path / "calls").read_text().splitlines() if line.startswith(("ran", "systemctl"))]
    assert order == ["ran1", "systemctlstop", "ran2", "ran3", "systemctlstart"]


def test_the_instance_is_started_again_whatever_happens(job):
    process = job.start([offline(job, 2, "echo $$ >%s/inner; exec sleep 60" % job.path)])
    until = time.monotonic() + 20
    while not (job.path / "inner").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.stdout.close()
    assert job.calls("systemctl")[-1] == "systemctl start vllm-ascend-i.service"


def test_an_instance_that_does_not_stop_ends_the_job_with_a_reason(job):
    (job.path / "broken").write_text("")
    code, left, log = job.run([offline(job, 2, OFFLINE)])
    assert code == 1 and left == [] and "systemctl start vllm-ascend-i.service ended with 1" in log


def test_a_server_without_a_page_is_no_reason_to_fail(job):
    code, (left,), _log = job.run([job.step(1, port=1)])
    assert code == 0 and left["problems"] == [] and left["server"]["other_requests"] is None


def test_a_result_between_its_marks():
    said = "tool says\n<m>\n{\"a\": 1}\n\n</m>\nlast"
    assert bench_runner.split("x\n<m>\nold\n</m>\n" + said, "m")[1] == "{\"a\": 1}\n" and bench_runner.split("nothing", "m") == ("nothing", None)
    assert bench_runner.split("a\n<m>\n{\"cut", "m") == ("a", "{\"cut")


def test_a_host_begins_follows_and_goes_on(job, tmp_path):
    """The job itself, with a systemd of two scripts that keep nothing."""
    job.script("systemd-run", "#!/bin/sh\nwhile [ \"$1\" != /bin/sh ]; do shift; done\nexec \"$@\"\n")
    job.script("systemctl", "#!/bin/sh\n[ \"$1\" != show ] || printf 'Id=fleet-job-benchmark-x.service\\nActiveState=inactive\\n'\n")
    environment = dict(os.environ, PATH="%s:%s" % (job.bin, os.environ["PATH"]), PYTHONPATH=os.pathsep.join([COLLECTIONS, ANSIBLE]))
    code = ("import json, sys\nfrom ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_runner, job_host\n"
            "given = json.load(sys.stdin)\nbegun = bench_runner.begin(given)\n"
            "print(json.dumps([begun['changed'], job_host.answer(bench_runner.look_params('benchmark-x', given['state_directory']))]))")
    program = ("from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_runner, release\n"
               "release.SECRET_DIRECTORY = %r\nbench_runner.main({})" % str(job.secrets))
    given = {"id": "benchmark-x", "state_directory": str(tmp_path / "state"), "program": program, "fresh": False,
             "plan": bench_plan.runner_plan([job.step(1)], "docker", 3600)}
    ids = []
    for fresh in (False, False, True):
        done = subprocess.run([sys.executable, "-c", code], env=environment, input=json.dumps(dict(given, fresh=fresh)).encode(), check=True,
                              stdout=subprocess.PIPE)
        changed, found = json.loads(done.stdout.decode())
        assert changed and found["job"]["state"] == "succeeded", found
        ids.append(found["job"]["result"]["results"][0]["started_epoch_s"])
    assert ids[0] == ids[1] != ids[2] and job.calls("ran") == ["ran 1", "ran 1"]
