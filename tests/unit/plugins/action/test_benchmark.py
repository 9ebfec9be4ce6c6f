# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three stages of a benchmark, verification and history on the controller; the hosts are dictionaries and their job module a function."""

from __future__ import annotations

import json
import pathlib
import types

import jsonschema
import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from referencing import Registry, Resource

from ansible_collections.vllm_ascend.fleet.plugins.action import benchmark, history, scrape_targets, verify
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_result
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history as database
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace

SCHEMAS = pathlib.Path(benchmark.__file__).resolve().parents[2] / "docs" / "schemas"
KEY = "sk-planted"


class HostVars(dict):
    """What Ansible hands to an action as hostvars."""

    raw_get = dict.__getitem__


def valid(name, path):
    """The content of a report's file, held against its published schema."""
    schemas = [json.loads((SCHEMAS / f"{one}.json").read_text()) for one in ("benchmark", "verify")]
    registry = Registry().with_resources([(schema["$id"], Resource.from_contents(schema)) for schema in schemas])
    content = json.loads(pathlib.Path(path).read_text())
    jsonschema.Draft202012Validator({"$ref": f"{name}.json"}, registry=registry).validate(content)
    return content


def survey(name="gemma", model="gemma-4-E2B-it", active=True, unit=None, **manifest):
    return {"family": "910b", "driver": {"version": "25.5.0"}, "instances": {name: {
        "release": "0" * 12, "unit": {"active_state": "active" if active else "inactive"}, "files": {"unit": unit}, "manifest": dict({
            "name": name, "model": model, "served_model_name": model, "port": 8000, "container": "vllm-ascend-" + name, "unit": f"vllm-ascend-{name}.service",
            "engine": "docker", "arguments": ["/models/" + model], "image_reference": "r:5000/x@sha256:" + "a" * 64, "devices": ["/dev/davinci0"],
            "patch_set": {"name": "p", "id": "b" * 12}, "secret": True}, **manifest)}}}


def result(**changes):
    """The text of a good result."""
    return json.dumps(dict({"num_prompts": 1, "duration": 12.75, "completed": 1, "failed": 0, "total_input_tokens": 1024, "total_output_tokens": 1024,
                            "output_throughput": 80.31, "total_token_throughput": 160.62, "mean_ttft_ms": 121.3, "mean_tpot_ms": 12.35}, **changes))


class World:
    """One controller with some hosts."""

    def __init__(self, path, monkeypatch):
        monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
        monkeypatch.setattr(benchmark, "follow", self.follow)
        monkeypatch.setattr(benchmark.lean, "execute", self.execute)
        (path / "workspace").mkdir()
        monkeypatch.setattr(workspace, "folder", lambda: path / "workspace")
        self.path, self.shown, self.warned, self.calls, self.check_mode = path, [], [], [], False
        self.hosts, self.surveys = HostVars({"a2-1": {}}), {"a2-1": survey()}
        self.answers, self.ended, self.epoch = {}, None, 1000.0

    def variables(self):
        for host in self.hosts.values():
            host.setdefault("fleet_report_directory", str(self.path / "reports"))
        return self.hosts

    def act(self, module, host=None, **args):
        made = object.__new__(module.ActionModule)
        made._task = types.SimpleNamespace(args=args, check_mode=self.check_mode)
        made._display = types.SimpleNamespace(display=lambda text, color=None: self.shown.append(text), warning=self.warned.append)
        made.validate_argument_spec = lambda spec: (None, {name: args.get(name, rule.get("default")) for name, rule in spec.items()})
        hosts = self.variables()
        workspace.save("surveys", self.surveys)
        return made.run(task_vars={"hostvars": hosts, "ansible_play_hosts": list(hosts), "ansible_play_hosts_all": list(hosts),
                                   "inventory_hostname": host or next(iter(hosts))})

    def execute(self, _action, entry, arguments, _task_vars):
        self.calls.append((entry, arguments))
        return self.answers.get(entry, {"changed": True, "job": {"state": "running"}})

    def follow(self, execute, show, arguments, patience_s):
        if isinstance(self.ended, Exception):
            raise self.ended
        show("1/6 …")
        return self.ended

    def plan(self, **args):
        return self.act(benchmark, stage="plan", **dict({"suite": "gemma4"}, **args))

    def measure(self, texts, state="succeeded", **args):
        """Every step of every host with a text of its own, or one for all."""
        planned = workspace.load("benchmark")
        for host, steps in planned["steps"].items():
            left = []
            for number, step in enumerate(steps):
                text = texts(host, number, step) if callable(texts) else texts
                read = bench_result.read(step["tool"], text, "", step["wanted"])
                left.append({"key": step["key"], "chain": step["chain"], "kept": False, "rc": 0, "output": "", "text": text, "problems": read["problems"],
                             "started_epoch_s": self.epoch + number, "ended_epoch_s": self.epoch + 13.0 + number,
                             "server": {"other_requests": 0, "busy_before": 0, "cache_hit_ratio": 0.99}, "tokenizer_sha256": None})
            self.ended = {"job": {"state": state, "reason": "exit status 3", "result": {"complete": state == "succeeded", "results": left}}}
            measured = self.act(benchmark, host=host, stage="measure", **args)
        return measured

    def judge(self):
        return self.act(benchmark, stage="judge")


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def whole(world, texts=None, run=None, **args):
    world.plan(**args)
    if run:
        workspace.save("benchmark", dict(workspace.load("benchmark"), run_id="run%d" % run))
        world.epoch = 1000.0 * run
    world.measure(texts or result())
    return world.judge()


def test_a_whole_run_is_kept_compared_and_valid(world):
    judged = whole(world)
    content = valid("benchmark", judged["file"])
    assert judged["failures"] == {} and judged["verdict"] == "pass" == content["verdict"]
    assert len(content["records"]) == 6 and [record["counts_as"] for record in content["records"]] == ["warm-up", "kept"] * 3
    record = content["records"][1]
    assert (record["platform"], record["driver"], record["release"], record["patch_set"], record["image_digest"]) == (
        "a2", "25.5.0", "0" * 12, "b" * 12, "sha256:" + "a" * 64)
    kept = pathlib.Path(judged["file"]).parent / record["source"]
    assert json.loads(kept.read_text()) == json.loads(result()) and "a2-1" in record["source"]
    assert {row["table"] for row in content["reference"]} == {"table 1", "table 2"}
    text = "\n".join(world.shown)
    assert "121.30" in text and "none is picked" in text and world.warned == []
    one = database.History(str(world.path / "reports" / "history.sqlite"))
    assert len(one.benchmarks("gemma4")) == 6
    one.close()


def test_the_job_gets_a_program_and_its_plan(world):
    world.plan()
    world.measure(result())
    (entry, given), = [call for call in world.calls if call[0] == "bench_runner:begin"]
    assert given["id"] == "benchmark-gemma4" and given["state_directory"] == "/var/lib/vllm-ascend-fleet" and len(given["plan"]["steps"]) == 6
    compile(given["program"], "program.py", "exec")
    assert "protocol" not in json.dumps(given["plan"]) and given["plan"]["engine"] == "docker"


def test_without_a_look_before_it_says_so(world):
    workspace.folder().joinpath("surveys.json").unlink(missing_ok=True)
    made = object.__new__(benchmark.ActionModule)
    made._task = types.SimpleNamespace(args={}, check_mode=False)
    made.validate_argument_spec = lambda spec: (None, dict({name: rule.get("default") for name, rule in spec.items()}, stage="judge"))
    assert "run the whole playbook" in made.run(task_vars={"hostvars": {}})["msg"]


@pytest.mark.parametrize("change, args, words", [
    ({}, {"suite": "gemma5"}, "unknown suite 'gemma5'; did you mean 'gemma4'?; choose one with -e suite=, known are deepseek_ab, gemma3"),
    ({}, {"suite": ""}, "no suite was named; choose one"),
    ({}, {"suite": "qwen3"}, "no instance of this run belongs to the suite 'qwen3' (Qwen3-0.6B, Qwen3-0.6B-TP1, Qwen3-32B)"),
    ({"model": "DeepSeek-R1-W8A8"}, {"suite": "deepseek_ab"}, "give -e label=before or -e label=after, not ''"),
    ({}, {"label": "during"}, "give -e label=before or -e label=after, not 'during'"),
    ({}, {"slo": {"tftt_p99_ms": 1}}, "unknown objective 'tftt_p99_ms'"),
    ({}, {"slo": "no-such-file.yml"}, "there is no file 'no-such-file.yml'"),
    ({}, {"slo": "{ttft_p99_ms: ["}, "cannot be read"),
    ({}, {"repeats": -1}, "repeats -1 is no number of runs"),
    ({"active": False}, {}, "a2-1: gemma does not run, and what is measured online has to; start it with start.yml"),
    ({"arguments": []}, {}, "its manifest names no weights"),
    ({"model": "gemma-3-270m-it", "unit": "ExecStart=docker run r:5000/x@sha256:%s vllm serve" % ("a" * 64)}, {"suite": "gemma3"},
     "serves, and the workload 'offline' needs its NPUs for a container of its own: the instance would be stopped"),
])
def test_what_cannot_be_measured_is_refused_before_anything_is(world, change, args, words):
    world.surveys["a2-1"] = survey(**change)
    refused = world.plan(**args)
    assert refused["failed"] and words in refused["msg"] and refused["msg"].endswith("-- nothing was measured") and world.calls == []


def test_what_may_be_stopped_is_named_and_what_was_down_stays_down(world):
    unit = "ExecStart=docker run --name x r:5000/x@sha256:%s vllm serve" % ("a" * 64)
    world.surveys["a2-1"] = survey(model="gemma-3-270m-it", unit=unit)
    assert world.plan(suite="gemma3", stop=True)["stopped"] == {"a2-1": ["gemma"]}
    assert [step["tool"] for step in workspace.load("benchmark")["steps"]["a2-1"]] == ["serve", "serve", "throughput"]
    assert world.measure(result(num_prompts=100, completed=100, total_output_tokens=20000))["changed"] is True
    world.surveys["a2-1"] = survey(model="gemma-3-270m-it", unit=unit, active=False)
    assert world.plan(suite="gemma3", workloads=["offline"])["stopped"] == {"a2-1": []}
    assert workspace.load("benchmark")["steps"]["a2-1"][0]["unit"] is None


def test_a_regression_bound_measures_often_enough(world):
    def steps(**args):
        world.plan(**args)
        return len(workspace.load("benchmark")["steps"]["a2-1"])

    assert steps(slo={"regression": 0.05}) == 3 * 6 and steps(slo={"regression": 0.05}, repeats=2) == 3 * 3 and steps(slo={"ttft_mean_ms": 5}) == 6


@pytest.mark.parametrize("given", [{"ttft_mean_ms": 100}, "{ttft_mean_ms: 100}", "slo.yml"])
def test_objectives_come_in_three_ways_and_fail_the_host(world, given, monkeypatch):
    monkeypatch.chdir(world.path)
    (world.path / "slo.yml").write_text(yaml.safe_dump({"ttft_mean_ms": 100}))
    judged = whole(world, slo=given)
    assert judged["verdict"] == "fail" and judged["failures"]["a2-1"].startswith(
        "gemma: slo.mean_ttft_ms: found 1k/1k: mean_ttft_ms 121.30; bound 1k/1k: mean_ttft_ms at most 100"
    )
    assert [item["status"] for item in valid("benchmark", judged["file"])["gate"]] == ["fail"] * 3


def test_a_run_that_failed_fails_its_host_and_keeps_the_others(world):
    world.hosts["a2-2"], world.surveys["a2-2"] = {}, survey()

    def texts(host, number, step):
        return result(failed=1, completed=0) if host == "a2-2" and number == 1 else result()

    judged = whole(world, texts)
    assert judged["failures"] == {
        "a2-2": "gemma 1k/1k run 2 of 2: 1 of 1 requests failed although the tool ended with 0; run the same again to measure what is missing"
    }
    content = valid("benchmark", judged["file"])
    assert {host: entry["state"] for host, entry in content["hosts"].items()} == {"a2-1": "measured", "a2-2": "incomplete"}
    world.calls.clear()
    for host in ("a2-1", "a2-2"):
        world.act(benchmark, host=host, stage="forget")
    assert [(entry, given["state"]) for entry, given in world.calls] == [("job_host:answer", "absent")], "the other's job stays, to be gone on with"
    assert [record["status"] for record in content["records"]].count("failed") == 1 and "a2-2: gemma 1k/1k run 2 is left out: 1 of 1" in content["left_out"][0]


def test_a_host_that_went_away_is_told_and_its_job_goes_on(world):
    world.plan()
    world.ended = AnsibleConnectionFailure("ssh: connect to host\n192.0.2.1 port 22: No route to host")
    measured = world.act(benchmark, stage="measure")
    assert measured["state"] == "incomplete" and "No route to host" in measured["reason"] and "its job goes on: run the same again" in measured["reason"]
    workspace.folder().joinpath("benchmark.a2-1.json").unlink()
    judged = world.judge()
    assert judged["failures"] == {"a2-1": "the host could not be reached"} and valid("benchmark", judged["file"])["hosts"]["a2-1"]["state"] == "not measured"


def test_a_job_of_another_suite_in_the_way_is_told(world):
    world.plan()
    world.answers["bench_runner:begin"] = {"failed": True, "msg": "job benchmark-gemma4 cannot run beside job benchmark-sweep"}
    measured = world.act(benchmark, stage="measure")
    assert measured["state"] == "failed" and "beside job benchmark-sweep" in measured["reason"]


def test_a_job_that_ended_badly_leaves_what_it_finished(world):
    world.plan()
    measured = world.measure(result(), state="stopped")
    assert measured["state"] == "incomplete" and measured["reason"] == "the job stopped: exit status 3"
    assert len(valid("benchmark", world.judge()["file"])["records"]) == 6


def test_a_job_that_runs_already_is_followed_and_fresh_forgets_it(world):
    world.plan()
    world.answers["bench_runner:begin"] = {"changed": False, "job": {"state": "running"}}
    world.measure(result())
    assert any("runs already and is followed" in line for line in world.shown)
    world.measure(result(), fresh=True)
    assert [given["fresh"] for entry, given in world.calls if entry == "bench_runner:begin"] == [False, True]


def test_a_job_that_cannot_be_forgotten_is_a_warning(world):
    whole(world)
    world.answers["job_host:answer"] = {"failed": True, "msg": "no space"}
    assert world.act(benchmark, stage="forget") == {"changed": False} and "was not removed: no space" in world.warned[0]


def test_check_mode_shows_commands_and_sends_nothing(world):
    world.check_mode = True
    world.plan()
    measured = world.act(benchmark, stage="measure")
    assert measured["changed"] is False and measured["state"] == "not measured" and world.calls == []
    assert sum("would run: docker exec" in line and "vllm bench serve" in line for line in world.shown) == 6
    assert world.judge()["failures"] == {} and not (world.path / "reports").exists()


def test_the_second_run_is_held_against_the_first(world):
    assert "no measurement that counts" in valid("benchmark", whole(world, run=1)["file"])["history"][0]["why"]
    content = valid("benchmark", whole(world, run=2)["file"])
    assert content["history"][0]["runs"] == 1 and "one measurement against one" in content["history"][0]["why"]


def test_after_is_held_against_the_newest_before(world):
    world.surveys["a2-1"] = survey(model="DeepSeek-R1-W8A8", served_model_name="auto")
    numbers = {"num_prompts": 200, "completed": 200, "total_output_tokens": 307200}
    for run, label, ttft in ((1, "before", 999.0), (2, "before", 942.7), (3, "after", 1019.25)):
        judged = whole(world, result(mean_ttft_ms=ttft, **numbers), run=run, suite="deepseek_ab", label=label)
    content = valid("benchmark", judged["file"])
    row = next(row for row in content["before_after"]["rows"] if row["metric"] == "mean_ttft_ms")
    assert (row["before"], row["after"], round(row["difference"], 2)) == (942.7, 1019.25, 76.55)
    assert "942.70" in "\n".join(world.shown) and content["label"] == "after"


def test_a_sweep_has_a_knee_and_the_largest_that_keeps_the_objectives(world):
    world.plan(suite="sweep", concurrency=[1, 2, 4, 8], slo={"ttft_p99_ms": 30})

    def texts(host, number, step):
        count = step["protocol"]["max-concurrency"]
        rate = min(count, 2) * 100.0
        return result(
            num_prompts=8 * count,
            completed=8 * count,
            total_output_tokens=1024 * count,
            output_throughput=rate,
            mean_e2el_ms=128000.0 * count / rate,
            p99_ttft_ms=10.0 * count,
        )

    world.measure(texts)
    judged = world.judge()
    (found,) = valid("benchmark", judged["file"])["sweeps"]
    assert found["knee"]["concurrency"] == 2 and found["largest"]["concurrency"] == 2 and judged["failures"] == {}
    assert "knee: 2 (" in "\n".join(world.shown) and "largest that keeps the objectives: 2 (p99_ttft_ms is 40.00" in "\n".join(world.shown)


def test_a_history_that_is_broken_warns_and_changes_nothing(world):
    (world.path / "history").write_bytes(b"not a database" * 100)
    world.hosts["a2-1"]["fleet_history"] = str(world.path / "history")
    judged = whole(world)
    assert judged["verdict"] == "pass" and len(world.warned) == 2 and "cannot be used" in world.warned[0]


def test_history_prints_a_series_and_says_what_there_is(world):
    address = str(world.path / "reports" / "history.sqlite")
    assert "is empty; run benchmark.yml first" in world.act(history, address=address)["msg"]
    whole(world)
    world.shown.clear()
    found = world.act(history, address=address, metric="ttft_mean_ms", model="gemma-4-E2B-it", workload="1k/1k")
    assert [row["value"] for row in found["series"]] == [121.3] and "121.30" in world.shown[0]
    assert "no measurement has the metric 'speeed'" in world.act(history, address=address, metric="speeed")["msg"]
    assert "there are the models gemma-4-E2B-it" in world.act(history, address=address, model="x")["msg"]
    assert "knows no durations" in world.act(history, address=address, steps=True)["msg"]
    one = database.History(address)
    one.record_steps([{"run_id": "r", "host": "a2-1", "step": "load", "model": "m", "platform": "a2", "seconds": 41.5}])
    one.close()
    assert world.act(history, address=address, steps=True)["steps"][0]["median_s"] == 41.5
    (world.path / "garbage").write_bytes(b"x" * 500)
    assert "cannot be used" in world.act(history, address=str(world.path / "garbage"))["msg"]


def proof(ready=True, **changes):
    item = {"rule": "smoke.arithmetic", "host": None, "instance": "gemma", "status": "pass" if ready else "fail", "found": "'43'", "expected": "42",
            "source": "s", "remedy": ""}
    answer = {
        "check": "smoke.arithmetic",
        "asked": "17 + 25",
        "status": 200,
        "text": "43",
        "reasoning": "",
        "error": None,
        "first_token_s": 0.1,
        "elapsed_s": 0.2,
    }
    return {
        "instances": {"gemma": dict({"ready": ready, "elapsed_s": 1.0, "findings": [item], "answers": [answer], "journal_tail": [], "cause": None}, **changes)}
    }


def verified(world, model="", **hosts):
    world.surveys = {name: {"unreachable": True, "error": proven} if isinstance(proven, str) else survey() for name, proven in hosts.items()}
    workspace.save("proof", {name: proven.get("instances", {}) for name, proven in hosts.items() if not isinstance(proven, str)})
    return world.act(verify, model=model, report_directory=str(world.path / "reports"))


def test_verify_keeps_every_answer_and_fails_what_is_wrong(world):
    found = verified(world, one=proof(), two=proof(False))
    content = valid("verify", found["file"])
    assert found["verdict"] == "fail" and list(found["failures"]) == ["two"] and "smoke.arithmetic: '43'; expected 42" in found["failures"]["two"]
    assert [entry["answers"][0]["text"] for entry in content["instances"]] == ["43", "43"] and content["instances"][1]["findings"][0]["host"] == "two"
    text = "\n".join(world.shown)
    assert "ARITHMETIC" in text and "FAIL" in text and "two: gemma: smoke.arithmetic" in text and 'host="two"' in found["page"]


def test_verify_tells_of_what_was_not_asked(world):
    found = verified(world, **{"a2-1": proof(), "gone": "no route to host", "a2-2": {}})
    content = valid("verify", found["file"])
    assert found["failures"]["gone"] == "no route to host" == content["hosts"]["gone"]["reason"]
    assert "endpoint.unit_active: the unit is active" in found["failures"]["a2-2"] and "playbooks/start.yml" in found["failures"]["a2-2"]
    world.surveys = {"a2-1": dict(survey(), errors=[{"source": "proof", "error": "no container engine"}])}
    found = world.act(verify, report_directory=str(world.path / "reports"))
    assert found["failures"]["a2-1"] == "its instances could not be asked: no container engine"


def test_verify_of_nothing_is_no_success(world):
    world.surveys = {"a2-1": {"instances": {}}}
    workspace.save("proof", {})
    found = world.act(verify, report_directory=str(world.path / "reports"))
    assert found["verdict"] == "fail" and "nothing of ours is installed" in "\n".join(world.shown)
    found = verified(world, model="nope", one=proof())
    assert found["failed"] and "has a model or an instance 'nope'; installed are gemma" in found["msg"]


def test_targets_come_from_the_look_of_this_run(world):
    world.hosts = HostVars({"a2-1": {"ansible_host": "192.0.2.1", "fleet_npu_exporter_port": 8082}, "a2-2": {}})
    world.surveys = {"a2-1": survey()}
    found = world.act(scrape_targets, hosts=["a2-1", "a2-2"])
    assert found["keep"] == ["targets/a2-2.json"]
    assert [group["targets"] for group in found["files"]["targets/a2-1.json"]] == [["192.0.2.1:8000"], ["192.0.2.1:8082"]]
