# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification and benchmarks of a real instance over real SSH, systemd and containers; only what computes is simulated."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest
import yaml
from fleet_operator import ADDRESSES, BIN, INVENTORY, ROOT, STATE, on, play

HOST, INSTANCE, MODEL = "a2-1", "gemma-4-e2b-it", "gemma-4-E2B-it"
KEY = "sk-planted-secret-5432109876"
# Its closed connections linger for a minute; nobody else's instance shall wait for them.
PORT = 8123
BENCHMARK = "playbooks/benchmark.yml"
# One workload online, and one that needs the NPUs.
SUITE = {"name": "tiny", "title": "Tiny", "models": [MODEL], "runs": 2, "kept_from": 2, "timeout_s": 120, "arguments": {
    "backend": "openai-chat", "endpoint": "/v1/chat/completions", "base-url": "{base_url}", "model": "{weights}", "served-model-name": "{served_model_name}",
    "tokenizer": "{weights}", "dataset-name": "random", "seed": 7, "temperature": 0, "num-prompts": 2, "max-concurrency": 1, "percentile-metrics": "ttft,tpot,itl,e2el",
    "metric-percentiles": "50,99"}, "workloads": [
        {"name": "short", "arguments": {"random-input-len": 512, "random-output-len": 64}},
        {"name": "too long", "arguments": {"random-input-len": 200000, "random-output-len": 8, "num-prompts": 1}},
        {"name": "slow", "arguments": {"random-input-len": 512, "random-output-len": 512, "num-prompts": 4}},
        {"name": "offline", "tool": "throughput", "runs": 1, "arguments": {
            "model": "{weights}", "dataset-name": "random", "random-input-len": 256, "random-output-len": 64, "num-prompts": 8}}]}


SSH = ["ssh", "-o", "BatchMode=yes", "-i", STATE / "id_ed25519", "-o", f"UserKnownHostsFile={STATE / 'known_hosts'}", f"root@{ADDRESSES[HOST]}", "sh", "-s"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A catalogue folder and a history of this module's own."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "tiny.yml").write_text(yaml.safe_dump(SUITE))
    return folder


@pytest.fixture(scope="module")
def variables(files):
    given = {"fleet_instances": [{"model": MODEL, "port": PORT}], "fleet_api_key": KEY, "fleet_catalogue_directories": [str(files)], "fleet_history": str(files / "history.sqlite"),
             "fleet_report_directory": str(files / "reports")}
    return "--limit", HOST, "-e", json.dumps(given)


@pytest.fixture(scope="module", autouse=True)
def deployed(fleet, variables):
    """One instance whose tokens take half a millisecond; nothing of ours on the host afterwards."""
    play("playbooks/remove.yml", "--limit", HOST).succeeded()
    on(HOST, "printf 0.0005 > /etc/rehearsal/faults/slow_tokens_s")
    play("playbooks/deploy.yml", *variables).succeeded()
    yield
    play("playbooks/remove.yml", "--limit", HOST).succeeded()
    on(HOST, "rm -rf /etc/rehearsal/faults/slow_tokens_s /var/lib/vllm-ascend-fleet/jobs/benchmark-*")


def content(done, name="benchmark"):
    """What a run left in its folder."""
    with open(re.search(r"(/\S+/%s\.json)" % name, done.output).group(1), encoding="utf-8") as stream:
        return json.load(stream)


def jobs():
    return [name for name in on(HOST, "ls /var/lib/vllm-ascend-fleet/jobs 2>/dev/null; true").split() if name.startswith("benchmark-")]


def test_verify_asks_everything_and_keeps_the_answers(variables):
    done = play("playbooks/verify.yml", *variables).succeeded()
    (entry,) = content(done, "verify")["instances"]
    checks = {item["rule"]: item["found"] for item in entry["findings"] if item["rule"].startswith("smoke.")}
    assert set(checks) == {"smoke." + name for name in ("chat", "consistency", "arithmetic", "fact", "chinese", "completion", "reasoning", "tool_call")}
    texts = {answer["check"]: answer["text"] for answer in entry["answers"]}
    assert "42" in texts["smoke.arithmetic"] and "北京" in texts["smoke.chinese"] and "get_weather" in texts["smoke.tool_call"]
    assert "characters of reasoning in a field of their own" in checks["smoke.reasoning"] and done.changed[HOST] == 0


def test_verify_fails_on_nonsense(variables, fault):
    fault(HOST, "engine_nonsense", "the")
    play("playbooks/verify.yml", *variables).refused(INSTANCE, "endpoint.sane", "it repeats itself")


def test_gemma4_is_measured_as_the_delivery_measured_it(variables):
    done = play(BENCHMARK, *variables, "-e", "suite=gemma4", "-vvv").succeeded()
    made = content(done)
    kept = [record for record in made["records"] if record["counts_as"] == "kept"]
    assert [record["workload"] for record in kept] == ["1k/1k", "16k/1k", "64k/1k"] and all(record["status"] == "good" for record in made["records"])
    for record in kept:
        assert record["counts"]["total_output_tokens"] == 1024 and record["cache_hit_ratio"] > 0.95 and not record["disturbed"]
        assert record["release"] and record["image_digest"].startswith("sha256:") and record["patch_set"] and record["platform"] == "a2"
        metrics = record["metrics"]
        assert abs(1000 * metrics["duration"] - metrics["mean_ttft_ms"] - 1023 * metrics["mean_tpot_ms"]) < 0.05 * 1000 * metrics["duration"]
    assert {row["table"] for row in made["reference"]} == {"table 1", "table 2"} and "none is picked" in done.output
    assert re.search(rf"{HOST}: \d/6 {INSTANCE} \S+ run", done.output), "no step was shown"
    assert KEY not in done.output and jobs() == [] and done.changed[HOST] == 0
    pattern = "[%s]%s" % (KEY[0], KEY[1:])
    assert on(HOST, f"grep -rl -- '{pattern}' /var/lib/vllm-ascend-fleet /tmp", check=False).split() == []


def test_check_mode_measures_nothing(variables, files):
    before = len(list((files / "reports").glob("*/benchmark.json")))
    done = play(BENCHMARK, *variables, "-e", "suite=gemma4", "--check").succeeded()
    assert done.output.count("would run: docker exec") == 6 and jobs() == [] and len(list((files / "reports").glob("*/benchmark.json"))) == before


@pytest.mark.parametrize("words, said", [
    (["suite=gemma5"], ["unknown suite 'gemma5'", "nothing was measured"]), (["suite=tiny"], ["the workload 'offline' needs its NPUs", "-e stop=true"])])
def test_what_cannot_be_measured_is_refused(variables, words, said):
    play(BENCHMARK, *variables, *[word for pair in words for word in ("-e", pair)]).refused(*said)


def test_a_killed_controller_costs_no_finished_run(variables):
    argv = [BIN / "ansible-playbook", BENCHMARK, "-i", INVENTORY, *variables, "-e", "suite=tiny", "-e", '{"workloads": ["short", "slow"]}']
    environment = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", LC_ALL="C.UTF-8")
    first = subprocess.Popen([str(word) for word in argv], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 120
    while "results" not in on(HOST, "ls /var/lib/vllm-ascend-fleet/jobs/benchmark-tiny 2>/dev/null; true") or not on(
            HOST, "ls /var/lib/vllm-ascend-fleet/jobs/benchmark-tiny/results").split():
        assert time.monotonic() < until, "the first run did not end"
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    killed = time.time()
    done = play(*argv[1:2], *[str(word) for word in argv[4:]]).succeeded()
    records = content(done)["records"]
    assert [(record["workload"], record["round"], record["status"]) for record in records] == [
        ("short", 1, "good"), ("short", 2, "good"), ("slow", 1, "good"), ("slow", 2, "good")]
    assert records[0]["epoch_s"] < killed and len({record["id"] for record in records}) == 4 and jobs() == []


def test_a_stopped_job_goes_on_where_it_was(variables):
    argv = [*variables, "-e", "suite=tiny", "-e", '{"workloads": ["short", "too long"]}']
    done = play(BENCHMARK, *argv)
    done.refused("too long run 1 of 2: 1 of 1 requests failed although the tool ended with 0", "run the same again to measure what is missing")
    first = content(done)
    assert jobs() == ["benchmark-tiny"] and [record["status"] for record in first["records"]] == ["good", "good", "failed", "failed"]
    again = content(play(BENCHMARK, *argv))
    ids = [[record["id"] for record in made["records"] if record["status"] == "good"] for made in (first, again)]
    assert ids[0] == ids[1] and [record["id"] for record in first["records"][2:]] != [record["id"] for record in again["records"][2:]]
    on(HOST, "rm -rf /var/lib/vllm-ascend-fleet/jobs/benchmark-*")


def test_offline_stops_measures_starts_and_proves(variables):
    before = on(HOST, f"docker inspect --format '{{{{.State.StartedAt}}}}' vllm-ascend-{INSTANCE}")
    done = play(BENCHMARK, *variables, "-e", "suite=tiny", "-e", "stop=true", "-e", '{"workloads": ["offline"]}').succeeded()
    (record,) = content(done)["records"]
    assert record["status"] == "good" and record["counts"] == {"completed": 8, "total_input_tokens": 2048, "total_output_tokens": 512}
    assert record["protocol"]["tool"] == "vllm bench throughput" and "--enable-prefix-caching" in record["command"] and "--tool-call-parser" not in record["command"]
    assert on(HOST, f"docker inspect --format '{{{{.State.StartedAt}}}}' vllm-ascend-{INSTANCE}") != before
    assert "fleet-offline" not in on(HOST, "docker ps --all --format '{{.Names}}'") and done.changed[HOST] == 1


def test_objectives_and_regression_fail_the_play_by_name(variables):
    slo = '{"slo": {"ttft_p99_ms": 0.001, "output_throughput": 1}, "workloads": ["short"]}'
    done = play(BENCHMARK, *variables, "-e", "suite=tiny", "-e", slo)
    done.refused(f"{INSTANCE}: slo.p99_ttft_ms: found short: p99_ttft_ms", "bound short: p99_ttft_ms at most 0.001")
    assert [item["status"] for item in content(done)["gate"]] == ["fail", "pass"] and content(done)["history"][0]["runs"] >= 1


def test_slower_tokens_are_a_regression(variables, fault):
    argv = [*variables, "-e", "suite=tiny", "-e", "repeats=4", "-e", '{"workloads": ["short"]}']
    # Both long beside what a busy machine adds: otherwise the interval is too wide to tell.
    fault(HOST, f"slow_tokens_s.{MODEL}", "0.004")
    play(BENCHMARK, *argv, "-e", "label=before").succeeded()
    fault(HOST, f"slow_tokens_s.{MODEL}", "0.03")
    done = play(BENCHMARK, *argv, "-e", "label=after", "-e", '{"slo": {"regression": 0.5}}')
    done.refused(f"{INSTANCE}: slo.regression: found worse: ", "short output_throughput 0.", "no metric worse by more than 50 %")
    made = content(done)["before_after"]
    row = next(row for row in made["rows"] if row["metric"] == "mean_tpot_ms")
    assert row["difference"] > 0.5 and row["verdict"] == "worse" and made["verdict"] == "worse"


def test_requests_of_others_are_seen(variables):
    ask = (f"for i in $(seq 200); do curl -sS -o /dev/null http://127.0.0.1:{PORT}/v1/chat/completions -H 'Content-Type: application/json' "
           f"-H 'Authorization: Bearer {KEY}' -d '{{\"model\": \"{MODEL}\", \"max_tokens\": 4, \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}]}}'; "
           "sleep 0.05; done")
    on(HOST, f"cat > /tmp/others.sh <<'END'\n{ask}\nEND\nsystemd-run --quiet --unit=others sh /tmp/others.sh")
    try:
        made = content(play(BENCHMARK, *variables, "-e", "suite=tiny", "-e", '{"workloads": ["slow"]}').succeeded())
    finally:
        on(HOST, "systemctl stop others; rm -f /tmp/others.sh", check=False)
    assert any(record["disturbed"] for record in made["records"]) and any("requests of others" in note for record in made["records"] for note in record["notes"])


def test_a_sweep_shows_the_curve(variables):
    done = play(BENCHMARK, *variables, "-e", "suite=sweep", "-e", "concurrency=1,2,4", "-e", '{"slo": {"e2el_p99_ms": 100000}}').succeeded()
    (found,) = content(done)["sweeps"]
    assert [point["concurrency"] for point in found["points"]] == [1, 2, 4] and found["largest"]["concurrency"] == 4 and "knee: " in done.output


@pytest.fixture
def monitored(files):
    """An inventory with the host as its own monitoring host; packages and files of Prometheus are gone afterwards."""
    inventory = files / "monitoring.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"monitoring": {"hosts": {HOST: None}}}}}))
    packages = "dpkg-query --show --showformat='${Package}\\n'"
    before = set(on(HOST, packages).split())
    yield "-i", str(inventory), "-e", json.dumps({"monitoring_server": True, "monitoring_scrape_interval": "1s", "monitoring_down_for": "0s"})
    play("playbooks/monitoring.yml", "-i", str(inventory), "-e", "remove=true").succeeded()
    new = sorted(set(on(HOST, packages).split()) - before)
    if new:
        on(HOST, "DEBIAN_FRONTEND=noninteractive dpkg --purge " + " ".join(new))
    on(HOST, "rm -rf /var/lib/prometheus")


def asked(path, until, what, seconds=60):
    """What the Prometheus on the host answers, once it is as it should be."""
    limit = time.monotonic() + seconds
    while True:
        answer = json.loads(on(HOST, f"curl -sS 'http://127.0.0.1:9091/api/v1/{path}' || echo '{{}}'").splitlines()[-1])
        if answer.get("data") and until(answer["data"]):
            return answer["data"]
        assert time.monotonic() < limit, f"{what}: {json.dumps(answer)[:2000]}"
        time.sleep(0.5)


def test_a_real_prometheus_scrapes_and_alerts(variables, monitored):
    assert play("playbooks/monitoring.yml", *variables[2:], *monitored, "--check", "--diff").succeeded().changed[HOST] > 0
    play("playbooks/monitoring.yml", *variables[2:], *monitored).succeeded()
    assert play("playbooks/monitoring.yml", *variables[2:], *monitored).succeeded().changed[HOST] == 0
    rules = on(HOST, "cat /etc/prometheus/vllm-ascend-fleet/rules/fleet.yml").replace("for: \"0s\"", "for: \"2m\"")
    tests = (ROOT / "tests" / "fixtures" / "monitoring" / "rules_test.yml").read_text()
    on(HOST, "mkdir -p /root/promtool", check=True)
    for name, text in (("rules.yml", rules), ("rules_test.yml", tests)):
        subprocess.run([str(word) for word in SSH], input=f"cat > /root/promtool/{name} <<'END'\n{text}\nEND\n", text=True, check=True, timeout=60)
    assert "SUCCESS" in on(HOST, "cd /root/promtool && promtool test rules rules_test.yml; cd / && rm -rf /root/promtool")

    mine = f"%7Bhost=%22{HOST}%22,fleet_instance=%22{INSTANCE}%22%7D"
    asked(f"query?query=up{mine}", lambda data: data["result"] and data["result"][0]["value"][1] == "1", "it does not scrape")
    (series,) = asked(f"query?query=vllm:generation_tokens_total{mine}", lambda data: data["result"], "no tokens are counted")["result"]
    assert series["metric"]["model"] == MODEL and float(series["value"][1]) > 0
    play("playbooks/verify.yml", *variables, *monitored).succeeded()
    asked(f"query?query=vllm_ascend_fleet_instance_ready{mine}", lambda data: data["result"] and data["result"][0]["value"][1] == "1", "no result is shown")

    def firing(data):
        return [one for one in data["alerts"] if one["state"] == "firing" and one["labels"].get("host") == HOST]

    assert asked("alerts", lambda data: not firing(data), "an alert of something that is well")
    play("playbooks/stop.yml", *variables).succeeded()
    (alert,) = firing(asked("alerts", firing, "no alert fires"))
    assert alert["labels"]["alertname"] == "InstanceDown" and INSTANCE in alert["annotations"]["summary"]
    play("playbooks/start.yml", *variables).succeeded()
    asked("alerts", lambda data: not firing(data), "the alert does not end")


def test_the_history_has_the_series(variables):
    done = play("playbooks/history.yml", *variables, "-e", f"model={MODEL}", "-e", "metric=ttft_mean_ms", "-e", "workload=short").succeeded()
    assert len(re.findall(rf"^\d{{4}}-\d\d-\d\d .*{HOST} +{INSTANCE}", done.output, re.MULTILINE)) >= 2
