# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the first hosts of a rollout are as fast as before: each against an untouched neighbour, in the same minutes, both out of the traffic.
Runs on the controller."""

from __future__ import annotations

import pathlib
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_plan, bench_runner, bench_text, comparison, recovery, rollout, spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import benchmarking, fan_out, gateways, looking, report, traffic, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue as catalogue_files

SLICE_S = 30.0
ASK_S = 60.0
PACE_S = 2.0
JOB = "rollout-performance"
# How long a host that does not answer is asked again before its measurement is given up.
PATIENCE_S = 300.0


class CannotTell(Exception):
    """Nothing was compared; the text says why and what to do."""


class Gate:
    """One performance gate, after the first batch of a rollout."""

    def __init__(self, rolling):
        self.rolling, self.action, self.task_vars = rolling, rolling.action, rolling.task_vars
        self.hostvars = self.task_vars["hostvars"]
        self.rules = dict(rollout.PERFORMANCE_DEFAULTS, **rolling.rules["performance"])
        directories = gateways.variable(self.task_vars, "fleet_catalogue_directories", [])
        self.loaded, self.catalogue = catalogue_files.load_benchmarks(directories), catalogue_files.load(directories)

    def suite(self):
        """:raises CannotTell: when the catalogue has no such suite, or it has no such workload."""
        name, known = self.rules["suite"], self.loaded["suites"]
        if name not in known:
            raise CannotTell("it names the suite '%s', which is not among %s%s" % (
                name, ", ".join(sorted(known)), did_you_mean(name, known)))
        try:
            bench_plan.workloads(known[name], self.rules["workloads"], self.rules["concurrency"])
        except bench_plan.BenchmarkError as error:
            raise CannotTell(str(error)) from error
        return known[name]

    def check(self):
        """:returns: (verdict, None when the canary is as good as its neighbour, else the sentence that holds the rollout)."""
        moved = []
        try:
            batch = self.rolling.kept["batch"]
            surveys, proof, dummy = looking.look(self.action, self.task_vars, list(workspace.load("plan")["hosts"]), {"texts": True}, prove=True)
            changed = {host for host, entry in rollout.replay(self.rolling.journal.events())["hosts"].items() if entry["outcome"]}
            pairs = self.pairs(batch, changed, surveys, proof)
            self.fits(sorted({host for pair in pairs for host in pair[:2]}), surveys)
            for host in sorted({host for pair in pairs for host in pair[:2]}):
                moved.append(host)
                self.traffic("drain", host)
            verdict = self.measure(pairs, surveys)
        except (CannotTell, bench_plan.BenchmarkError, traffic.TrafficError, catalogue_files.CatalogueError) as error:
            verdict = {"verdict": "cannot_tell", "why": str(error)}
        finally:
            failed = [why for why in (self.admit(host) for host in moved) if why]
        if failed:
            return "cannot_tell", "performance: %s; playbooks/resume.yml tries again to let it in" % failed[0]
        if verdict["verdict"] == "better_or_equal":
            self.rolling.tell("performance: as good as before: %s" % verdict["why"])
            return verdict["verdict"], None
        words = {"worse": "performance: worse than before: %s; what was changed goes back",
                 "cannot_tell": "performance: cannot tell whether it is as good as before: %s. Go on all the same with playbooks/resume.yml, or go back with "
                                "playbooks/rollback.yml -e rollout=latest"}[verdict["verdict"]]
        return verdict["verdict"], words % verdict["why"].rstrip(".")

    # --- who with whom

    def pairs(self, batch, changed, surveys, proof):
        """[(canary, neighbour, canary's manifest, neighbour's manifest)] of a batch. :raises CannotTell: when there is none to compare with."""
        suite, plan = self.suite(), workspace.load("plan")
        found, alone = [], []
        for host in batch:
            for manifest in spanning.served(recovery.installed(surveys[host])):
                if not bench_plan.serves(suite, manifest) or not manifest.get("port"):
                    continue
                other = next(((name, each) for name in plan["hosts"] if name not in changed and name not in batch
                              and surveys[name].get("family") == surveys[host].get("family")
                              for each in recovery.installed(surveys[name]) if each["model"] == manifest["model"]
                              and (proof.get(name, {}).get(each["name"]) or {}).get("ready")), None)
                if other:
                    found.append((host, other[0], manifest, other[1]))
                else:
                    alone.append("%s on %s" % (manifest["model"], host))
        if alone or not found:
            raise CannotTell("no untouched neighbour serves %s" % ", ".join(alone) if alone else "no instance of %s belongs to the suite %s" % (
                ", ".join(batch), suite["name"]))
        return found

    def fits(self, hosts, surveys):
        """:raises CannotTell: when the fleet cannot spare the hosts for a while."""
        dummy, proof, load = looking.look(self.action, self.task_vars, list(surveys), prove=True, load=True)
        loads = {(host, name): each for host, entries in load.items() for name, each in entries.items()}
        bad = [verdict["message"] for verdict in rollout.capacity(hosts, rollout.replicas(surveys, proof), loads, self.rolling.rules) if not verdict["ok"]]
        if bad:
            raise CannotTell("%s cannot be taken out of the traffic to measure: %s" % (" and ".join(hosts), bad[0]))

    # --- out of the traffic and in again

    def traffic(self, step, host):
        journal, started = self.rolling.journal, time.monotonic()
        mover = traffic.Traffic(self.rolling)
        journal.write("step.begin", host, self.rolling.kept["number"] - 1, step)
        try:
            evidence = mover.drain(host) if step == "drain" else mover.admit(host)
        except traffic.TrafficError as error:
            journal.write("step.end", host, self.rolling.kept["number"] - 1, step, False, round(time.monotonic() - started, 3), message=str(error))
            raise
        journal.write("step.end", host, self.rolling.kept["number"] - 1, step, True, round(time.monotonic() - started, 3), evidence=evidence)

    def admit(self, host):
        """:returns: why a host could not be let in again, or None."""
        try:
            self.traffic("admit", host)
        except traffic.TrafficError as error:
            return str(error)
        return None

    # --- the measurement

    def measure(self, pairs, surveys):
        """:returns: {"verdict", "why", "metrics"} of the first pair that is not as good, else of all."""
        suite, options = self.suite(), {key: self.rules[key] for key in ("workloads", "concurrency", "repeats")}
        steps = {}
        for pair in pairs:
            for host, manifest in zip(pair[:2], pair[2:]):
                made = bench_plan.steps(suite, manifest, dict(options, timeout_s=None), self.loaded["table"], self.loaded["engine_flags"])
                # What needs the NPUs for itself would stop the instance.
                steps.setdefault(host, []).extend(step for step in made if step["tool"] == "serve" and step not in steps[host])
        left = self.run(steps)
        directory = pathlib.Path(self.rolling.kept["directory"])
        context = {"run": self.rolling.journal.run, "suite": suite["name"], "label": None, "catalogue": self.catalogue}
        records = {host: benchmarking.records(host, own, left[host], surveys[host], context, directory, self.action._display.warning)
                   for host, own in steps.items()}
        every = [record for own in records.values() for record in own]
        self.rolling.history(lambda one: one.record_benchmarks(every))
        settings = {key: self.rules[key] for key in ("confidence", "minimum_effect")}
        settings["confidence"] = 1.0 - (1.0 - settings["confidence"]) / len(pairs)
        table = comparison.against_reference(every, self.loaded["references"], self.loaded["suites"], self.catalogue["models"], settings)
        verdicts = []
        for canary, neighbour, mine, theirs in pairs:
            verdict = comparison.judge([record for record in records[canary] if record["instance"] == mine["name"]],
                                       [record for record in records[neighbour] if record["instance"] == theirs["name"]], settings)
            rows = [row for row in table if row["host"] in (canary, neighbour)]
            verdicts.append(dict(judged_by_table(verdict, rows, canary), canary=canary, neighbour=neighbour, reference=rows))
        report.save(directory, "performance.json", {"schema": 1, "rules": self.rules, "records": every, "verdicts": verdicts})
        for line in bench_text.pair_lines(verdicts):
            self.rolling.tell(line)
        return next((verdict for word in ("worse", "cannot_tell") for verdict in verdicts if verdict["verdict"] == word), verdicts[0])

    def run(self, steps):
        """Measure all hosts at the same time. :returns: {host: what its job left}. :raises CannotTell: naming the host that was not measured."""
        directories = self.rolling.settings["state_directories"]
        begun = fan_out.ask(self.action, {host: benchmarking.start(JOB, own, directories[host], True) for host, own in steps.items()},
                            "bench_runner:begin", self.hostvars, ASK_S)
        bad = {host: answer for host, answer in begun.items() if answer.get("failed") or "job" not in answer}
        if bad:
            raise CannotTell("; ".join("%s was not measured: %s" % (host, answer.get("msg")) for host, answer in sorted(bad.items())))
        ended, seen, silent = {}, {}, {}
        while len(ended) < len(steps):
            began = time.monotonic()
            asked = {
                host: dict(bench_runner.look_params(JOB, directories[host]), wait_s=SLICE_S, seen=seen.get(host, "")) for host in steps if host not in ended
            }
            for host, answer in fan_out.ask(self.action, asked, "job_host:answer", self.hostvars, SLICE_S + ASK_S).items():
                job = answer.get("job") or {}
                if not job:
                    if began - silent.setdefault(host, began) >= PATIENCE_S:
                        ended[host] = answer
                    continue
                silent.pop(host, None)
                if job.get("progress") and job["progress"] != seen.get(host):
                    seen[host] = job["progress"]
                    self.rolling.tell("%s: %s" % (host, job["progress"]))
                if job.get("state") != "running":
                    ended[host] = answer
            time.sleep(max(0.0, PACE_S - (time.monotonic() - began)))
        fan_out.ask(self.action, {host: bench_runner.look_params(JOB, directories[host], "absent") for host in steps}, "job_host:answer", self.hostvars, ASK_S)
        left = {}
        for host, answer in ended.items():
            job = answer.get("job") or {}
            left[host] = (job.get("result") or {}).get("results") or []
            outcome = benchmarking.outcome(steps[host], left[host], job, answer)
            if outcome["state"] != "measured":
                raise CannotTell("%s was not measured: %s" % (host, outcome["reason"]))
        return left


def judged_by_table(verdict, rows, canary):
    """A verdict with what published figures add: worse, where the canary misses what its neighbour reaches."""
    if verdict["verdict"] != "better_or_equal":
        return verdict
    key = ("reference", "table", "workload", "metric")
    reached = {tuple(row[name] for name in key) for row in rows if row["host"] != canary and row["verdict"] not in ("worse", "not compared")}
    missed = [row for row in rows if row["host"] == canary and row["verdict"] == "worse" and row["baseline"] and tuple(row[name] for name in key) in reached]
    if not missed:
        return verdict
    return dict(verdict, verdict="worse", why="%s against %s" % (comparison.in_words(missed[0]), missed[0]["reference"]))
