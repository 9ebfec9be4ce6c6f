# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The true server: deploy, gate, load, drain, death and benchmark. The tests run in the order of the file."""

from __future__ import annotations

import json
import threading

from fleet_operator import ROOT, module, on, play
from real_engine import HOST, PORTS, ask, inside, journal, load, request, streams, unit, until

BABBLER, TAUGHT = "tiny-gemma-3", "tiny-gemma-4"
KEY = "sk-planted-secret-real-vllm"
FIXTURES = ROOT / "tests" / "fixtures" / "bench"
# The flags of the Gemma 4 delivery's benchmark.
BENCH = ("vllm bench serve --backend openai-chat --endpoint /v1/chat/completions --base-url http://127.0.0.1:8000 --model /models/tiny-gemma-3 "
         "--served-model-name tiny-gemma-3 --tokenizer /models/tiny-gemma-3 --dataset-name random --random-output-len 32 --max-concurrency 2 "
         "--seed 20260410 --temperature 0 --disable-tqdm --save-result --result-dir /tmp/results --ignore-eos "
         "--percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 0,100 ")


def changed(model, **keys):
    """Extra variables that change one model's instance."""
    return "-e", json.dumps({"fleet_models": {model: keys}})


def gate(model, **keys):
    """One look of the gate at an instance."""
    instance = dict({"name": model, "port": PORTS[model], "served_model_name": model, "sanity": "text"}, **keys)
    return module(HOST, "vllm_ascend.fleet.endpoint_gate", {"quick": True, "instances": [instance]})


def test_every_rule_of_the_gate_was_asked_of_the_true_server(deployed):
    report = sorted((ROOT / "reports").glob("*/run.json"), key=lambda path: path.stat().st_mtime)[-1]
    proven = json.loads(report.read_text())["hosts"][HOST]["proven"]
    found = {name: {item["rule"].partition(".")[2]: item["found"] for item in proof["findings"] if item["status"] == "pass"}
             for name, proof in proven.items()}
    common = {"unit_active", "restarts_steady", "listener_ours", "health", "model", "completion", "sane", "chips", "stable"}
    assert set(found[BABBLER]) == common
    assert set(found[TAUGHT]) == common | {"reasoning", "tool_call"}
    assert found[TAUGHT]["tool_call"] == 'a call: get_weather {"city": "Paris"}'


def test_a_second_run_changes_nothing():
    assert set(play("playbooks/deploy.yml").succeeded().changed.values()) == {0}


def test_answers_are_whole_and_equal_at_temperature_0():
    """The prefix cache is warm from the second round on."""
    answers = [ask(TAUGHT, "What is the capital of France? Answer with one word.")[1]["choices"][0]["message"] for _round in range(3)]
    assert [(answer["content"], answer["reasoning"]) for answer in answers] == [("Paris", "It is Paris.")] * 3


def test_the_gate_refuses_what_is_wrong_with_a_living_server():
    gate(BABBLER).succeeded()
    gate(BABBLER, max_model_len=2048).refused("endpoint.model", "context length 4096")
    gate(BABBLER, served_model_name="gemma-4-E2B-it").refused("endpoint.model", "tiny-gemma-3")
    gate(BABBLER, sanity="full").refused("endpoint.sane", "repeats itself")
    gate(BABBLER, expected_answer="paris").refused("endpoint.sane", "wrong answer")
    gate(BABBLER, port=PORTS[TAUGHT]).refused("endpoint.listener_ours", "belongs to")


def test_arguments_are_held_to_the_table_of_this_version():
    play("playbooks/plan.yml", *changed(BABBLER, arguments={"max-modle-len": 2048})).refused("'max-modle-len' does not exist in vLLM 0.27.1",
                                                                                             "max-model-len")


def test_what_only_the_engines_own_parser_knows_stops_nothing():
    before = unit(BABBLER, "InvocationID")
    wrong = changed(BABBLER, arguments={"compilation-config": {"cudagraph_mode": "NONSENSE"}})
    play("playbooks/deploy.yml", *wrong).refused("NONSENSE", BABBLER, "nothing was stopped")
    assert unit(BABBLER, "InvocationID") == before


def test_metrics_tell_the_truth_while_streams_run():
    """Two sequences at most run in this engine, so the third has to wait."""
    assert load(BABBLER) == (0, 0)
    running = streams(BABBLER, 3, 1500)
    until(lambda: load(BABBLER) == (2, 1), 20, "two run and one waits")
    for stream in running:
        stream.join(120)
    assert all(stream.whole for stream in running)
    until(lambda: load(BABBLER) == (0, 0), 10, "nothing runs any more")


def test_stopping_lets_a_running_stream_finish():
    results, flowing = [], streams(TAUGHT, 1, 6000)

    def stopping():
        # However long the play takes to get there, a stream is young then.
        if flowing[-1].events > 500:
            flowing.extend(streams(TAUGHT, 1, 6000))
        return unit(TAUGHT, "ActiveState")["ActiveState"] == "deactivating"
    stop = threading.Thread(target=lambda: results.append(play("playbooks/stop.yml", "-e", "model=" + TAUGHT)))
    stop.start()
    until(stopping, 90, "the unit stops")
    stream = flowing[-1]
    until(lambda: not stream.is_alive() or "draining in-flight requests" in journal(TAUGHT), 30, "the engine drains")
    assert stream.is_alive(), f"the stream of {stream.events} tokens ended before the stop, so nothing was drained"
    so_far = stream.events
    try:
        status = ask(TAUGHT, "Hello.", max_tokens=1)[0]
    except OSError:
        status = None
    assert status is None or status >= 500, f"a new request got HTTP {status} while the engine drained"
    stream.join(180)
    stop.join(180)
    assert stream.whole and stream.events > so_far
    results[0].succeeded()
    # A clean end, not the container engine's kill after the time-out.
    assert "Application shutdown complete" in journal(TAUGHT) and unit(TAUGHT, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}


def test_a_deploy_starts_it_again_with_an_api_key():
    done = play("playbooks/deploy.yml", "-e", "model=" + TAUGHT, "-e", "fleet_api_key=" + KEY).succeeded()
    question = "What is the capital of France? Answer with one word."
    assert ask(TAUGHT, question)[0] == 401 and ask(TAUGHT, question, key="another")[0] == 401
    assert ask(TAUGHT, question, key=KEY)[1]["choices"][0]["message"]["content"] == "Paris"
    with request(TAUGHT, "/v1/models") as answer:
        assert answer.status == 401
    assert KEY not in done.output
    # The shell that looks must not find itself.
    assert KEY not in on(HOST, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; journalctl --no-pager -o cat")


def test_the_benchmark_of_the_delivery_writes_a_result():
    for name, more in (("all-succeeded", "--random-input-len 64 --num-prompts 4"),
                       ("some-failed", "--random-input-len 3990 --random-range-ratio 0.03 --num-prompts 8")):
        inside(BABBLER, f"{BENCH} {more} --result-filename {name}.json")
        result = json.loads(inside(BABBLER, f"cat /tmp/results/{name}.json"))
        kept = json.loads((FIXTURES / f"vllm-0.27.1-{name}.json").read_text())
        assert set(result) == set(kept), "the fixture is not what this vLLM writes any more"
        assert (result["completed"], result["failed"]) == (kept["completed"], kept["failed"])


def test_the_death_of_the_engine_is_seen_and_survived():
    """The front end ends with exit code 0 after it, so only Restart=always brings the server back."""
    before = unit(BABBLER, "InvocationID")
    pid = next(line.split()[0] for line in on(HOST, f"docker top vllm-ascend-{BABBLER} -eo pid,args").splitlines() if "EngineCore" in line)
    since = on(HOST, "date +%s").strip()
    on(HOST, f"kill -9 {pid}")
    seen = gate(BABBLER)
    # The journal within the evidence holds the engine's own traceback, so only the verdict is looked at.
    assert seen.rc != 0 and "1 of 1 instances not proven: tiny-gemma-3: endpoint." in seen.output
    until(lambda: unit(BABBLER, "NRestarts")["NRestarts"] == "1", 60, "systemd starts the unit again")
    said = on(HOST, f"journalctl --no-pager -u vllm-ascend-{BABBLER} --since @{since} -o cat")
    assert "Deactivated successfully" in said and "Failed with result" not in said, "it ended with another exit code than 0"
    module(HOST, "vllm_ascend.fleet.endpoint_gate", {"instances": [{
        "name": BABBLER, "port": PORTS[BABBLER], "served_model_name": BABBLER, "sanity": "text", "max_model_len": 4096, "ready_timeout_s": 240,
        "stability_window_s": 1}]}).succeeded()
    assert unit(BABBLER, "InvocationID") != before
