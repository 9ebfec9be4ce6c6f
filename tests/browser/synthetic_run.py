# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of runs that nobody ran, judged by the real gate: what the report, its browser and its benchmark are tried on."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "unit" / "plugins" / "module_utils")]

import bench_records  # noqa: E402  (after the path)
import surveys as made_surveys  # noqa: E402
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import comparison, gate, recovery  # noqa: E402
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding  # noqa: E402
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue  # noqa: E402

BEGAN = 1790000000.0
STEPS = (("prepare", 1.2), ("stop", 6.0), ("switch", 0.1), ("start", 41.0), ("prove", 18.5))
UNIT = "[Service]\nExecStart=docker run vllm serve /models/gemma-4-31B-it --max-model-len %s\nEnvironment=HCCL_BUFFSIZE=200\n"
WAIVER = {"rule": "host.clock", "reason": "the time server moves on Tuesday", "hosts": ["a2-2"]}


def fleet(count, ill=None):
    """(plan, {host: survey}, verdict of the gate) of so many alike hosts with four instances each; ``ill``: a host whose chip 3 is in alarm."""
    good = made_surveys.context("a2")
    contexts = {"a2-1": good}
    if count > 1:
        contexts["a2-2"] = made_surveys.changed(good, ("survey.host.epoch_s", made_surveys.NOW + 600))
    if ill:
        contexts[ill] = made_surveys.changed(good, ("survey.chips.3.health", "Alarm"))
    waiver = [dict(WAIVER, rule=next(rule for rule in gate.RULES if "clock" in rule))]
    verdict = gate.judge(contexts, waivers=waiver)
    alike = [item for item in verdict["findings"] if item["host"] == "a2-1"]
    plan, seen = {"schema": 1, "hash": "0" * 64, "images": good["images"], "hosts": {}}, {}
    for number in range(1, count + 1):
        host = "a2-%d" % number
        if host not in contexts:
            verdict["findings"] += [dict(item, host=host) for item in alike]
            verdict["hosts"][host], verdict["facts"][host] = verdict["hosts"]["a2-1"], verdict["facts"]["a2-1"]
        plan["hosts"][host], seen[host] = good["host_plan"], contexts.get(host, good)["survey"]
    return plan, seen, verdict


def proof(host, name, text=None):
    """Of an instance that answers, or does not: ``text`` says why."""
    found = [finding("endpoint.unit_active", "pass", "active", "the unit is active", "systemd", "", host, name),
             finding("endpoint.answers", "fail" if text else "pass", text or "Paris.", "an answer with 'paris'", "the model's catalogue entry",
                     "journalctl -u vllm-ascend-%s, then playbooks/restart.yml" % name, host, name)]
    return {"ready": not text, "elapsed_s": 18.5, "findings": found}


def steps(number, failed=False):
    at, made = BEGAN + 20 + 3 * (number % 7), []
    for step, took in STEPS:
        bad = failed and step == "prove"
        made.append({"step": step, "time": at, "elapsed_s": took, "ok": not bad, "message": "no answer" if bad else None})
        at += took
    if failed:
        made.append({"step": "revert", "time": at, "elapsed_s": 52.0, "ok": True, "message": "the release before is back"})
    return made


def deploy(count=6, failed="a2-3"):
    """{name: content} of a deploy in which an instance of one host does not answer as it should; and the surveys."""
    plan, seen, verdict = fleet(count)
    results = {}
    for number, (host, entry) in enumerate(plan["hosts"].items()):
        bad = host == failed
        proven = {one["name"]: proof(host, one["name"], "'<pad><pad><pad>' in 32 tokens" if bad and one["name"] == "gemma-4-31b-it" else None)
                  for one in entry["instances"]}
        results[host] = {
            "differences": {one["name"]: {"action": "replace", "before": "0" * 12, "after": "1" * 12} for one in entry["instances"]}, "proven": proven,
            "failure": "%s: gemma-4-31b-it: endpoint.answers: '<pad><pad><pad>' in 32 tokens; expected an answer with 'paris'" % host if bad else None,
            "down": False, "reverted": ["gemma-4-31b-it"] if bad else [], "removed": [], "quarantined": False, "address": host, "actions": [],
            "steps": steps(number, bad), "revert_proof": {}, "pruned": [], "diff": [
                {"before_header": "gemma-4-31b-it.service", "after_header": "gemma-4-31b-it.service", "before": UNIT % 65536, "after": UNIT % 131072}]}
    return {"preflight": verdict, "plan": plan, "run": {"instances": recovery.summarize(plan, results), "hosts": results}}, seen


def preflight(count=6):
    """A run that was refused because one host has an ill chip."""
    plan, seen, verdict = fleet(count, ill="a2-4")
    return {"preflight": verdict, "plan": plan}, seen


def rollout(count=6, failed="a2-3"):
    """A rollout in batches that was held after a host had failed."""
    plan, seen, verdict = fleet(count)
    hosts, seq, events = list(plan["hosts"]), 0, []

    def tell(event, at, **more):
        nonlocal seq
        seq += 1
        events.append(dict({"seq": seq, "time": BEGAN + at, "run": "run", "event": event, "host": None, "batch": None, "step": None, "ok": None,
                            "elapsed_s": None, "expected_s": None, "message": ""}, **more))

    tell("rollout.begin", 0, message="begins, %d host(s) in 2 batch(es)" % count, evidence={"hash": "h", "batches": [hosts[:1], hosts[1:]], "parameters": {}})
    for batch, own in enumerate((hosts[:1], hosts[1:3])):
        tell("batch.begin", 1 + 90 * batch, batch=batch, message="1 to change + 0 not proven = 1, and 2 may be out", evidence={"hosts": own})
        for number, host in enumerate(own):
            at, bad = 2 + 90 * batch + number, host == failed
            for step, took in (("drain", 8.0), ("change", 66.8), ("admit", 0.4)):
                tell("step.begin", at, host=host, batch=batch, step=step, expected_s=took + 1)
                at += took
                tell("step.end", at, host=host, batch=batch, step=step, ok=not (bad and step == "change"), elapsed_s=took, message="no answer" if bad else "",
                     evidence={"outcome": "reverted" if bad else "done", "findings": proof(host, "gemma-4-31b-it", "no text")["findings"][1:] if bad else []}
                     if step == "change" else {})
        tell("batch.end", 80 + 90 * batch, batch=batch, ok=failed not in own)
    tell("hold", 175, batch=2, message="%s ended reverted; nothing further is touched" % failed)
    tell("rollout.end", 176, ok=False, message="reverted: %s" % failed, evidence={"outcome": "held"})
    return {"preflight": verdict, "plan": plan, "journal": events}, seen


def benchmark(count=4):
    """A benchmark of one model on each host, against the published reference."""
    plan, seen, dummy = fleet(count)
    loaded, files = catalogue.load_benchmarks([]), catalogue.load([])
    records = [bench_records.record(host=host, instance="gemma-4-e2b-it", workload=workload, round=2, metrics={
        "output_throughput": (70.0 if host == "a2-2" else 80.31 + index / 10) * factor, "mean_ttft_ms": 121.3, "mean_tpot_ms": 12.35})
        for index, host in enumerate(plan["hosts"]) for workload, factor in (("1k/1k", 1.0), ("16k/1k", 0.9))]
    points = [{"concurrency": one, "runs": 1, "metrics": {"output_throughput": 80.0 * one / (1 + one / 12.0)}} for one in (1, 2, 4, 8, 16, 32)]
    return {
        "benchmark": {
            "schema": 1,
            "run_id": "run",
            "suite": "gemma4",
            "title": "Gemma 4 as published",
            "label": None,
            "notes": ["a note of the suite"],
            "records": records,
            "hosts": {host: {"state": "measured", "reason": None} for host in plan["hosts"]},
            "left_out": [],
            "reference": comparison.against_reference(records, loaded["references"], loaded["suites"], files["models"], {}),
            "history": comparison.against_history(
                records, [dict(record, run_id="before", metrics=dict(record["metrics"], output_throughput=76.0)) for record in records], {}
            ),
            "outliers": comparison.between_hosts(records, {}),
            "before_after": None,
            "sweeps": [
                {
                    "host": "a2-1",
                    "instance": "gemma-4-e2b-it",
                    "model": "gemma-4-E2B-it",
                    "points": points,
                    "knee": {"concurrency": 8, "why": "the knee is at 8"},
                    "largest": {"concurrency": 16, "why": ""},
                }
            ],
            "slo": None,
            "gate": [
                finding("slo.output_throughput", "fail", "70.00", "at least 75", "-e slo", "measure again, then look at the host", "a2-2", "gemma-4-e2b-it")
            ],
            "verdict": "fail",
        }
    }, seen


KINDS = {"deploy": deploy, "preflight": preflight, "rollout": rollout, "benchmark": benchmark}


def put(folder, files):
    """Lay a run's files into its folder, as a run does."""
    folder.mkdir(parents=True, exist_ok=True)
    files = copy.copy(files)
    if "journal" in files:
        (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in files.pop("journal")), encoding="utf-8")
    for name, content in files.items():
        (folder / (name + ".json")).write_text(json.dumps(content), encoding="utf-8")
