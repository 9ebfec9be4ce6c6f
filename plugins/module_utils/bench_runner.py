# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the steps of a benchmark on a host, one after the other, as a detached job. This file does I/O.

``plan.json`` in the job's folder holds the steps, see bench_plan.runner_plan; ``results/`` keeps what each step left, so that a job that is started
again goes on with what is missing.
"""

# A program of its own, without Ansible.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_result, endpoint_probes, job_host

TOOL_S = 60.0
METRICS_S = 10.0
OUTPUT_KEPT = 1 << 16
# A server that just answered its last request counts it a moment later.
SETTLE_S = 0.3
HIDDEN = b"********"
JOB = {"kind": "benchmark", "rerun": True, "environment": {}, "secrets": {}, "timeout_s": 0, "wait_s": 0, "seen": None, "lines": 5,
       "keep": 20, "systemctl": "systemctl", "systemd_run": "systemd-run", "argv": [], "files": {},
       # Ending a run asks the tool, its container, and perhaps a unit.
       "stop_timeout_s": 180}


class Stopped(Exception):
    """Somebody asked the job to end."""


class Runner:
    """The steps of one job."""

    def __init__(self, folder, plan, clock=time.time):
        self.folder, self.plan, self.clock = folder, plan, clock
        self.current, self.kill, self.stopping = None, None, False
        self.brief, self.hashes, self.results = "", {}, []
        os.makedirs(os.path.join(folder, "results"), mode=0o700, exist_ok=True)

    def stop(self, *unused):
        """Somebody wants the end."""
        self.stopping = True
        self.end()

    def end(self):
        """End the command that runs. What it started in a container does not see its signals, so it is told there first."""
        process, kill = self.current, self.kill
        if process is None:
            return
        if kill:
            try:
                subprocess.call(kill, stdin=subprocess.DEVNULL, timeout=TOOL_S)
            except subprocess.TimeoutExpired:
                sys.stdout.write("no answer within %d s: %s\n" % (TOOL_S, " ".join(kill)))
        process.kill()

    def run(self):
        """All steps; ``results`` holds what each left, in order."""
        results, stopped = self.results, []
        steps = self.plan["steps"]
        try:
            for number, step in enumerate(steps):
                if self.stopping:
                    raise Stopped()
                self.say("%d/%d %s%s" % (number + 1, len(steps), step["title"], self.brief))
                if step["tool"] == "throughput" and step["unit"] and step["unit"] not in stopped:
                    # Noted first, so that it is started again whatever comes.
                    stopped.append(step["unit"])
                    self.unit("stop", step["unit"])
                results.append(self.step(step, results))
        finally:
            for unit in stopped:
                self.unit("start", unit)
        self.say("%d/%d done%s" % (len(steps), len(steps), self.brief))

    def step(self, step, results):
        """What one step left, from before or measured now."""
        began = self.started(step)
        path = os.path.join(self.folder, "results", hashlib.sha256(step["key"].encode("utf-8")).hexdigest()[:24] + ".json")
        kept = self.kept(path, step, began, results)
        if kept is not None:
            return kept
        result = self.measure(step)
        result["engine_started"] = began
        result["digest"] = digest(step)
        with open(path + ".part", "w") as stream:
            json.dump(result, stream)
        os.rename(path + ".part", path)
        return result

    def kept(self, path, step, began, results):
        """A good result of an earlier start of the job, when it still means the same."""
        try:
            with open(path) as stream:
                result = json.load(stream)
        except (OSError, ValueError):
            return None
        fresh = self.clock() - result.get("ended_epoch_s", 0) <= self.plan["max_age_s"]
        if result.get("problems") or result.get("digest") != digest(step) or not fresh:
            return None
        # A warm run stands on those before it in the same process: when one of them had to be repeated, so has this one.
        if step["tool"] == "serve" and result.get("engine_started") != began:
            return None
        if any(other["chain"] == step["chain"] and not other.get("kept") for other in results):
            return None
        return dict(result, kept=True)

    def measure(self, step):
        """Run one step."""
        result = {"key": step["key"], "chain": step["chain"], "kept": False, "rc": None, "output": "", "text": None, "started_epoch_s": self.clock()}
        before = self.counters(step)
        key = endpoint_probes.read_key(step["instance"]) if step["secret"] else None
        done = self.command(step["argv"], step["timeout_s"], step.get("kill"), key)
        if self.stopping:
            raise Stopped()
        said, text = split(done["output"], self.plan["mark"])
        result.update(rc=done["rc"], output=said[-OUTPUT_KEPT:], text=text, ended_epoch_s=self.clock(), tokenizer_sha256=self.hashed(step))
        found = bench_result.read(step["tool"], text, said, step["wanted"])
        problems = list(found["problems"])
        if done["timed_out"]:
            problems = ["it did not end within %d s" % step["timeout_s"]]
        elif done["rc"] != 0:
            problems = ["the command ended with %s: %s" % (done["rc"], last_line(said))]
        if before:
            time.sleep(SETTLE_S)
        result.update(problems=problems, server=bench_result.between(before, self.counters(step), found["counts"].get("completed")))
        self.brief = "; last: " + (problems[0] if problems else in_brief(found["metrics"]))
        return result

    def command(self, argv, timeout_s, kill=None, key=None):
        """Run a command; {"rc", "output", "timed_out"}. Both of its streams are one text, which is also the job's log.

        :param key: the instance's API key; the tool finds it in its environment, and nobody in what it says.
        """
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env=dict(os.environ, OPENAI_API_KEY=key) if key else None)
        self.current, self.kill = process, kill
        if self.stopping:
            self.end()
        late = threading.Event()

        def end():
            late.set()
            self.end()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        chunks, size = [], 0
        for line in process.stdout:
            line = line.replace(key.encode("utf-8"), HIDDEN) if key else line
            chunks.append(line)
            size += len(line)
            while size > self.plan["output_limit"] and len(chunks) > 1:
                size -= len(chunks.pop(0))
            if kill is not None:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        code = process.wait()
        process.stdout.close()
        timer.cancel()
        self.current = self.kill = None
        return {"rc": code, "output": b"".join(chunks).decode("utf-8", "replace"), "timed_out": late.is_set()}

    def hashed(self, step):
        """The tokenizer's sha256: random prompts vary with it. None where the weights bring no such file."""
        path = step["tokenizer_file"]
        if path not in self.hashes:
            value = hashlib.sha256()
            try:
                with open(path, "rb") as stream:
                    for block in iter(lambda: stream.read(1 << 20), b""):
                        value.update(block)
                self.hashes[path] = value.hexdigest()
            except OSError:
                self.hashes[path] = None
        return self.hashes[path]

    def counters(self, step):
        """The server's counts, {} where it has none to tell."""
        if not step.get("port"):
            return {}
        status, text = endpoint_probes.ask("127.0.0.1", step["port"], "/metrics", seconds=METRICS_S)
        return bench_result.counters(text) if status == 200 else {}

    def started(self, step):
        """Since when the engine runs that is measured; None for a container that is there for one run only."""
        if step["tool"] != "serve":
            return None
        shown = self.command([self.plan["engine"], "container", "inspect", step["container"]], TOOL_S)
        try:
            return json.loads(shown["output"])[0]["State"]["StartedAt"]
        except (ValueError, LookupError, TypeError):
            return None

    def unit(self, verb, unit):
        """Stop or start the instance whose NPUs a throw-away container needs."""
        self.say("%s %s" % (verb, unit))
        code = subprocess.call(["systemctl", verb, unit], stdin=subprocess.DEVNULL)
        if code != 0:
            raise OSError("systemctl %s %s ended with %d" % (verb, unit, code))

    def say(self, text):
        """How far the job is."""
        with open(os.path.join(self.folder, "progress.part"), "w") as stream:
            stream.write(text + "\n")
        os.rename(os.path.join(self.folder, "progress.part"), os.path.join(self.folder, "progress"))


def digest(step):
    """What makes a step the same as one that was run before."""
    return hashlib.sha256(json.dumps([step["argv"], step["wanted"]], sort_keys=True).encode("utf-8")).hexdigest()


def split(output, mark):
    """(what a command said, the result file that it printed between two marks or None)."""
    head, begun, rest = output.rpartition("\n<%s>\n" % mark)
    text, ended, tail = rest.partition("\n</%s>" % mark)
    return (head + tail, text if ended else rest) if begun else (output, None)


def in_brief(metrics):
    """One run in a few words."""
    words = [(text % metrics[name]) for name, text in (
        ("output_throughput", "%.2f tok/s"), ("mean_ttft_ms", "TTFT %.2f ms"), ("mean_tpot_ms", "TPOT %.2f ms")) if name in metrics]
    return ", ".join(words)


def last_line(text):
    """The last line that says something."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def begin(arguments):
    """Start the job on this host, or find that it runs.

    :param dict arguments: "id" and "state_directory" of the job, "program": text of its program, "plan": of bench_plan.runner_plan, "fresh": forget
        what was finished before.
    :returns: as job_host.run.
    """
    params = dict(JOB, id=arguments["id"], state_directory=arguments["state_directory"])
    if arguments["fresh"]:
        job_host.run(dict(params, state="absent"), False)
    files = {"program.py": arguments["program"], "plan.json": json.dumps(arguments["plan"], sort_keys=True)}
    return job_host.run(dict(params, state="started", argv=[sys.executable, "program.py"], files=files), False)[0]


def look_params(job_id, state_directory, state="followed"):
    """Parameters of the job for whoever waits for it, or forgets it."""
    return dict(JOB, id=job_id, state_directory=state_directory, state=state)


def main(dummy):
    """What the job's program runs."""
    folder = os.environ["JOB_DIRECTORY"]
    with open(os.path.join(folder, "plan.json")) as stream:
        runner = Runner(folder, json.load(stream))
    signal.signal(signal.SIGTERM, runner.stop)
    code = 0
    try:
        runner.run()
    except Stopped:
        code = 143
    except OSError as error:
        sys.stdout.write("%s\n" % error)
        code = 1
    # What was finished is of use whatever came then.
    job_host.write_text(os.path.join(folder, "result.json"), json.dumps({"complete": code == 0, "results": runner.results}))
    sys.exit(code)
