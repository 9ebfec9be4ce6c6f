# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, runs and judges benchmarks: stages of one playbook."""

from __future__ import annotations

import os
import pathlib
import time

import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import (
    bench_plan, bench_runner, bench_text, comparison, monitoring, recovery, slo, spanning, sweep)
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue as catalogue_files
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import benchmarking, history, lean, report, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import follow

REPEATS_WITH_REGRESSION = 5


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.benchmark."""

    TRANSFERS_FILES = False
    _supports_async = False
    _VALID_ARGS = frozenset(("stage", "suite", "label", "repeats", "concurrency", "workloads", "stop", "slo", "fresh", "model", "timeout_s", "patience_s"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "stage": {"type": "str", "choices": ["plan", "measure", "judge", "forget"], "required": True},
            "suite": {"type": "str", "default": ""}, "label": {"type": "str", "default": ""}, "repeats": {"type": "int"},
            "concurrency": {"type": "list", "elements": "int", "default": []}, "workloads": {"type": "list", "elements": "str", "default": []},
            "stop": {"type": "bool", "default": False}, "slo": {"type": "raw"}, "fresh": {"type": "bool", "default": False},
            "model": {"type": "str", "default": ""}, "timeout_s": {"type": "int"}, "patience_s": {"type": "int", "default": 600},
        })
        try:
            return getattr(self, "_" + args["stage"])(args, task_vars or {})
        except (bench_plan.BenchmarkError, catalogue_files.CatalogueError, slo.SloError, workspace.Missing) as error:
            return {"failed": True, "msg": f"{error} -- nothing was measured"}

    # -- before --------------------------------------------------------------------------------------------------------

    def _plan(self, args, task_vars):
        hostvars, hosts = task_vars["hostvars"], list(task_vars["ansible_play_hosts"])
        surveys = workspace.load("surveys")
        loaded = catalogue_files.load_benchmarks(self._value(hostvars, hosts[0], "fleet_catalogue_directories", []))
        suite = loaded["suites"].get(args["suite"])
        if suite is None:
            wanted = f"unknown suite '{args['suite']}'{did_you_mean(args['suite'], loaded['suites'])}" if args["suite"] else "no suite was named"
            raise bench_plan.BenchmarkError(f"{wanted}; choose one with -e suite=, known are {', '.join(sorted(loaded['suites']))}")
        if args["label"] not in ("", "before", "after") or (suite.get("labelled") and not args["label"]):
            raise bench_plan.BenchmarkError(
                f"suite '{suite['name']}' compares before with after: give -e label=before or -e label=after, not '{args['label']}'"
            )
        objectives = read_slo(args["slo"])
        repeats = args["repeats"] or (REPEATS_WITH_REGRESSION if objectives and objectives["regression"] is not None else 1)
        if repeats < 1:
            raise bench_plan.BenchmarkError(f"repeats {repeats} is no number of runs; give at least 1")
        options = {"workloads": args["workloads"], "concurrency": args["concurrency"], "repeats": repeats, "timeout_s": args["timeout_s"]}
        steps, stopped = {}, {}
        for host in hosts:
            survey = surveys.get(host) or {}
            steps[host] = []
            for manifest in spanning.served(recovery.installed(survey, args["model"])):
                if bench_plan.serves(suite, manifest):
                    unit_text = ((survey["instances"][manifest["name"]].get("files") or {}).get("unit"))
                    made = bench_plan.steps(suite, manifest, options, loaded["table"], loaded["engine_flags"], unit_text)
                    self._refuse(host, manifest, made, args["stop"])
                    steps[host] += made
            # All that is online comes first, also when there are several instances.
            steps[host].sort(key=lambda step: step["tool"] != "serve")
            stopped[host] = sorted({step["instance"] for step in steps[host] if step["unit"]})
        if not any(steps.values()):
            raise bench_plan.BenchmarkError(
                f"no instance of this run belongs to the suite '{suite['name']}' ({', '.join(suite.get('models') or ['any model'])}); "
                "status.yml shows what is installed")
        shown = bench_text.plan_lines(suite, {host: own for host, own in steps.items() if own})
        self._display.display("\n".join(shown))
        run = time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid())
        directory = os.path.join(os.path.abspath(self._value(hostvars, hosts[0], "fleet_report_directory", "reports")), run)
        named = {name: self._value(hostvars, hosts[0], name, None) for name in ("fleet_history", "fleet_report_directory")}
        job = bench_plan.job_id(suite, args["label"] or None)
        workspace.save("benchmark", {"steps": steps, "stopped": stopped, "suite": suite, "label": args["label"] or None, "slo": objectives, "run_id": run,
                                     "directory": directory, "history": history.address_of(named)[0], "job": job})
        return {"changed": False, "work": [host for host, own in steps.items() if own], "stopped": stopped, "job": job, "directory": directory}

    @staticmethod
    def _refuse(host, manifest, steps, stop):
        active = (manifest.get("unit_state") or {}).get("active_state") == "active"
        if any(step["tool"] == "serve" for step in steps) and not active:
            raise bench_plan.BenchmarkError(f"{host}: {manifest['name']} does not run, and what is measured online has to; start it with start.yml")
        offline = [step for step in steps if step["tool"] == "throughput"]
        if offline and active and not stop:
            raise bench_plan.BenchmarkError(
                f"{host}: {manifest['name']} serves, and the workload '{offline[0]['workload']}' needs its NPUs for a container of its own: the instance "
                "would be stopped, measured and started again. Allow that with -e stop=true, or leave the workload out with -e workloads=")
        for step in offline:
            # What was not up stays down.
            step["unit"] = step["unit"] if active else None

    def _value(self, hostvars, host, name, default):
        """A templated variable of a host."""
        return hostvars[host][name] if name in hostvars.raw_get(host) and hostvars[host][name] is not None else default

    # -- on a host -----------------------------------------------------------------------------------------------------

    def _measure(self, args, task_vars):
        host, planned = task_vars["inventory_hostname"], workspace.load("benchmark")
        result = self._run(host, planned, args, task_vars)
        workspace.save("benchmark." + host, result)
        return {key: result[key] for key in ("changed", "state", "reason")}

    def _run(self, host, planned, args, task_vars):
        """{"changed", "state", "reason", "left"} of a host."""
        steps = planned["steps"][host]
        if self._task.check_mode:
            for step in steps:
                words = [word for word in step["argv"] if word != bench_plan.IN_CONTAINER]
                self._display.display(f"{host}: would run: {' '.join(words)}")
            return {"changed": bool(planned["stopped"][host]), "state": "not measured", "reason": "check mode", "left": []}
        directory = self._value(task_vars["hostvars"], host, "fleet_state_directory", "/var/lib/vllm-ascend-fleet")
        started = lean.execute(self, "bench_runner:begin", benchmarking.start(planned["job"], steps, directory, args["fresh"]), task_vars)
        if started.get("failed") or "job" not in started:
            return {"changed": False, "state": "failed", "reason": started.get("msg") or "the job was not started", "left": []}
        if not started["changed"]:
            self._display.display(f"{host}: the job {planned['job']} runs already and is followed")

        def show(line):
            self._display.display(f"{host}: {line}")

        try:
            ended = follow(lambda given: lean.execute(self, "job_host:answer", given, task_vars), show,
                           bench_runner.look_params(planned["job"], directory), args["patience_s"])
        except AnsibleConnectionFailure as error:
            return {"changed": False, "state": "incomplete", "left": [], "reason": (
                f"the host cannot be reached ({' '.join(str(error).split())[:200]}); its job goes on: run the same again to collect what it measured")}
        job = ended.get("job") or {}
        left = (job.get("result") or {}).get("results") or []
        return dict(benchmarking.outcome(steps, left, job, ended), changed=bool(planned["stopped"][host]), left=left)

    def _forget(self, dummy, task_vars):
        """What is kept here need not be kept there; what is missing is measured by the next start of the same job."""
        host, planned = task_vars["inventory_hostname"], workspace.load("benchmark")
        if workspace.load("benchmark." + host, {}).get("state") == "measured":
            directory = self._value(task_vars["hostvars"], host, "fleet_state_directory", "/var/lib/vllm-ascend-fleet")
            forgotten = lean.execute(self, "job_host:answer", bench_runner.look_params(planned["job"], directory, "absent"), task_vars)
            if forgotten.get("failed"):
                self._display.warning(f"{host}: the job {planned['job']} was not removed: {forgotten.get('msg')}")
        return {"changed": False}

    # -- after ---------------------------------------------------------------------------------------------------------

    def _judge(self, args, task_vars):
        hostvars, planned, surveys = task_vars["hostvars"], workspace.load("benchmark"), workspace.load("surveys")
        directory = pathlib.Path(planned["directory"])
        loaded = catalogue_files.load_benchmarks(self._value(hostvars, next(iter(planned["steps"])), "fleet_catalogue_directories", []))
        catalogue = catalogue_files.load(self._value(hostvars, next(iter(planned["steps"])), "fleet_catalogue_directories", []))
        context = {"run": planned["run_id"], "suite": planned["suite"]["name"], "label": planned["label"], "catalogue": catalogue}
        records, hosts = [], {}
        for host, steps in planned["steps"].items():
            if not steps:
                continue
            measured = workspace.load("benchmark." + host, {})
            hosts[host] = {"state": measured.get("state") or "not measured", "reason": measured.get("reason") if measured else "the host could not be reached"}
            records += benchmarking.records(host, steps, measured.get("left") or [], surveys.get(host) or {}, context, directory, self._display.warning)
        if self._task.check_mode:
            return {"changed": False, "failures": {}, "verdict": "pass", "page": ""}
        result = self._compare(records, planned, loaded, catalogue, hostvars)
        failures = {host: entry["reason"] for host, entry in hosts.items() if entry["state"] != "measured"}
        broken = slo.broken(result["gate"])
        failures.update({host: line for host, line in broken.items() if host not in failures})
        result.update(schema=1, run_id=planned["run_id"], suite=planned["suite"]["name"], title=planned["suite"]["title"], label=planned["label"],
                      notes=planned["suite"].get("notes") or [], records=records, hosts=hosts, slo=planned["slo"], left_out=comparison.left_out(records),
                      verdict="fail" if failures else "pass")
        report.save(directory, "benchmark.json", result)
        self._say(result, directory)
        report.conclude(directory)
        return {"changed": False, "failures": failures, "verdict": result["verdict"], "file": str(directory / "benchmark.json"),
                "page": monitoring.benchmark_text(result, time.time())}

    def _compare(self, records, planned, loaded, catalogue, hostvars):
        host = next(iter(planned["steps"]))
        address, password = planned["history"], self._value(hostvars, host, "fleet_history_password", None)
        suite, label = planned["suite"]["name"], planned["label"]
        bound = (planned["slo"] or {}).get("regression")
        settings = {"minimum_effect": bound} if bound else {}
        past = history.use(address, password, self._display.warning, lambda one: one.benchmarks(suite), [])
        history.use(address, password, self._display.warning, lambda one: one.record_benchmarks(records))
        now = {record["id"] for record in records}
        past = [record for record in past if record["id"] not in now]
        judged = comparison.against_history(records, past, settings)
        before = newest(record for record in past if record["label"] == "before") if label == "after" else []
        made = comparison.before_after(before, records, settings) if label == "after" else None
        if label == "after":
            judged = [dict(comparison.judge(own, [record for record in before if (record["host"], record["instance"]) == key] or before, settings),
                           kind="history", host=key[0], instance=key[1], runs=len({record["run_id"] for record in before}))
                      for key, own in by_instance(records).items()]
        sweeps = []
        for (host, instance), own in by_instance(records).items() if planned["suite"].get("concurrency") else ():
            points = sweep.curve(own)
            sweeps.append({"host": host, "instance": instance, "model": own[0]["model"], "points": points, "knee": sweep.knee(points),
                           "largest": sweep.largest(points, (planned["slo"] or {}).get("bounds"))})
        gate = slo.gate(records, planned["slo"], judged) if planned["slo"] and not sweeps else []
        return {"reference": comparison.against_reference(records, loaded["references"], loaded["suites"], catalogue["models"], settings),
                "history": judged, "outliers": comparison.between_hosts(records, settings), "before_after": made, "sweeps": sweeps, "gate": gate}

    def _say(self, result, directory):
        lines = bench_text.record_lines(result["records"]) + bench_text.sweep_lines(result["sweeps"])
        lines += bench_text.reference_lines(result["reference"]) + bench_text.before_after_lines(result["before_after"]) + [""]
        if result["label"] != "after":
            lines += bench_text.history_lines(result["history"])
        lines += bench_text.outlier_lines(result["outliers"]) + result["left_out"]
        self._display.display("\n".join(lines))
        for line in bench_text.gate_lines(result["gate"]):
            self._display.display(line, color="red")
        self._display.display(f"the whole of it: {directory / 'benchmark.json'}")


def by_instance(records):
    """{(host, instance): records}."""
    groups = {}
    for record in records:
        groups.setdefault((record["host"], record["instance"]), []).append(record)
    return groups


def newest(records):
    """Of each instance the records of its newest run."""
    result = []
    for own in by_instance(records).values():
        last = max(own, key=lambda record: record["epoch_s"] or 0)["run_id"]
        result += [record for record in own if record["run_id"] == last]
    return result


def read_slo(given):
    """Objectives from a dictionary, the text of one, or the name of a file with one; None when none were given."""
    if given in (None, "", {}):
        return None
    if isinstance(given, str):
        try:
            path = pathlib.Path(given).expanduser()
            text = path.read_text(encoding="utf-8") if "{" not in given and path.is_file() else given
            loaded = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise slo.SloError(f"slo: {given[:80]} cannot be read: {' '.join(str(error).split())[:200]}") from error
        if isinstance(loaded, str):
            raise slo.SloError(f"slo: there is no file '{given[:80]}', and it is no dictionary; such as {{ttft_p99_ms: 500, regression: 0.05}}")
        given = loaded
    return slo.read(given)
