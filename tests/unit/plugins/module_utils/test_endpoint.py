# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judgement of an endpoint, and the loop, with a clock that stands still until somebody sleeps."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint

UP = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "Result": "success", "LoadState": "loaded", "InvocationID": "1"}
MODELS = json.dumps({"data": [{"id": "gemma", "max_model_len": 4096}]})

CALL = json.dumps({"choices": [{"message": {"content": None, "tool_calls": [
    {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}]}}]})
DECLARED = {"arguments": ["/m", "--enable-auto-tool-choice", "--tool-call-parser", "x", "--reasoning-parser", "x"], "devices": ["/dev/davinci3"],
            "patch_set": {"name": "gemma4", "id": "abc"}}


ATTESTED = {"labels": {"vllm-ascend-fleet.patch-set": "abc"}, "record": b'{"files": {}, "imported": "/w/vllm"}', "files": {}, "imported": "/w/vllm",
            "error": None}


def stream_of(text, model="gemma", done=True, finish="stop"):
    stream = endpoint.Stream()
    stream.feed(("data: " + json.dumps({"model": model, "choices": [{"delta": {"content": text}}]}) + "\n\n").encode())
    stream.feed(("data: " + json.dumps({"model": model, "choices": [{"delta": {}, "finish_reason": finish}]}) + "\n\n").encode())
    if done:
        stream.feed(b"data: [DONE]\n\n")
    return stream


class World:
    """Evidence over time: each of ``events`` is (second, {name: value}) and holds from then on."""

    def __init__(self, *events):
        self.now, self.asked = 0.0, []
        self.events = [
            (
                0,
                {
                    "unit": UP,
                    "port": True,
                    "owners": {"ours": ["pid 7"], "foreign": [], "error": None},
                    "health": (200, ""),
                    "models": (200, MODELS),
                    "text": "Paris",
                    "status": 200,
                    "error": None,
                    "model": "gemma",
                    "journal": [],
                    "head": (200, ""),
                    "given_up": None,
                    "tool": (200, CALL),
                    "attestation": ATTESTED,
                    "chips": {"health": {"/dev/davinci3": "OK"}, "error": None},
                },
            )
        ] + list(events)

    def value(self, name):
        self.asked.append((self.now, name))
        return [state[name] for second, state in self.events if second <= self.now and name in state][-1]

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds

    def unit(self):
        return self.value("unit")

    def refresh(self):
        self.asked.append((self.now, "refresh"))

    def connect(self):
        return self.value("port")

    def owners(self):
        return self.value("owners")

    def health(self):
        return self.value("health")

    def models(self):
        return self.value("models")

    def journal(self):
        return self.value("journal")

    def head(self):
        return self.value("head")

    def given_up(self):
        return self.value("given_up")

    def attestation(self):
        return self.value("attestation")

    def tool_call(self):
        return self.value("tool")

    def chips(self):
        return self.value("chips")

    def complete(self):
        text = self.value("text")
        if isinstance(text, list):
            text = text.pop(0) if len(text) > 1 else text[0]
        return {"status": self.value("status"), "error": self.value("error"), "first_token_s": 0.1, "elapsed_s": 0.2,
                "stream": stream_of(text, self.value("model"))}


def prover(world, **changes):
    defaults = {"rounds": 3, "first_token_s": 60, "gap_s": 30, "ready_timeout_s": 900, "stability_window_s": 10}
    instance = endpoint.complete_instance(dict({"name": "one", "port": 8000, "served_model_name": "gemma", "max_model_len": 4096}, **changes), defaults)
    return endpoint.Prover(instance, world, world.clock, world.sleep)


def down(state, **more):
    return {"unit": dict(UP, ActiveState=state, **more)}


def bad(result):
    return [(item["rule"], item["status"], item["found"]) for item in result["findings"] if item["status"] != "pass"]


def test_a_good_server_is_proven_after_its_window():
    world = World((0, {"port": False}), (30, {"port": True}))
    result = prover(world, **DECLARED).run()
    assert result["ready"] and result["phase"] == "ready" and bad(result) == []
    assert [name for _second, name in world.asked].count("tool") == [name for _second, name in world.asked].count("chips") == 1
    assert [item["rule"] for item in result["findings"]] == [rule for rule in endpoint.RULES if rule not in ("endpoint.group", "endpoint.unpaused")]
    assert 30 <= result["elapsed_s"] <= 30.2 and 40 <= world.now <= 40.3
    assert [name for second, name in world.asked if second > 30].count("text") >= 12


MEMBER = {"group": {"role": "member", "members": ["a2-1", "a2-2"], "address": "192.0.2.1"}}


def test_a_member_of_a_group_is_proven_by_its_unit_and_the_answer_of_its_head():
    world = World((0, {"head": (None, "no proper answer: refused")}), (30, {"head": (200, "")}))
    result = prover(world, **dict(DECLARED, **MEMBER)).run()
    assert result["ready"] and bad(result) == [] and 40 <= world.now <= 42
    assert not {"port", "health", "text", "tool"} & {name for _second, name in world.asked}, "nothing of it listens"
    assert [name for _second, name in world.asked].count("chips") == 1


@pytest.mark.parametrize("role", ["head", "member"])
def test_a_group_that_has_failed_elsewhere_is_not_waited_for(role):
    world = World((0, {"port": False, "head": (None, "refused")}), (12, {"given_up": "a2-2 is not proven"}))
    result = prover(world, group=dict(MEMBER["group"], role=role)).run()
    assert not result["ready"] and world.now < 15
    assert ("endpoint.group", "fail", "a2-2 is not proven") in bad(result)


def test_a_member_whose_group_stops_answering_within_its_window_is_not_proven():
    world = World((5, {"head": (503, "")}))
    result = prover(world, **MEMBER).run()
    assert not result["ready"] and ("endpoint.group", "fail", "HTTP 503, after 900 s of 900 s, phase starting without progress for 900 s") in bad(result)


def test_while_it_loads_only_the_port_is_asked():
    world = World((0, {"port": False}), (30, {"port": True}))
    prover(world).run()
    assert set(name for second, name in world.asked if second < 30) <= {"unit", "port", "journal"}


@pytest.mark.parametrize("event, rule, words, within", [
    (down("failed", SubState="failed", Result="start-limit-hit", ExecMainStatus="1"), "endpoint.unit_active", "result start-limit-hit, last exit status 1", 1),
    (down("inactive", SubState="dead"), "endpoint.unit_active", "inactive (dead)", 4),
    (down("inactive", LoadState="not-found"), "endpoint.unit_active", "inactive", 1),
    ({"owners": {"ours": [], "foreign": ["pid 9 (python3, in session-1.scope)"], "error": None}}, "endpoint.listener_ours", "pid 9 (python3", 1),
    ({"owners": {"ours": ["pid 7"], "foreign": ["pid 9 (vllm)"], "error": None}}, "endpoint.listener_ours", "also port 8000 belongs to pid 9", 1),
    ({"owners": {"ours": [], "foreign": [], "error": "not visible"}}, "endpoint.listener_ours", "not visible", 10),
    ({"models": (200, json.dumps({"data": [{"id": "qwen", "max_model_len": 4096}]}))}, "endpoint.model", "model 'qwen'", 1),
    ({"models": (200, json.dumps({"data": [{"id": "gemma", "max_model_len": 2048}]}))}, "endpoint.model", "context length 2048", 1),
    ({"models": (401, "{}")}, "endpoint.model", "the API key is not accepted", 1),
    ({"models": (200, "<html>")}, "endpoint.model", "not a list of models", 10),
    ({"health": (503, "")}, "endpoint.health", "HTTP 503", 10),
    ({"status": 500}, "endpoint.completion", "HTTP 500", 10),
    ({"error": "no first token within 60 s"}, "endpoint.completion", "no first token", 10),
    ({"model": "qwen"}, "endpoint.completion", "comes from model 'qwen'", 10),
    ({"text": ""}, "endpoint.sane", "an empty answer", 10),
    ({"text": "the the the the the the the the the the"}, "endpoint.sane", "it repeats itself", 10),
    ({"text": "\ufffd\ufffd\x02\x03"}, "endpoint.sane", "not readable", 10),
])
def test_what_cannot_become_good_is_not_waited_for(event, rule, words, within):
    world = World((0, event))
    result = prover(world).run()
    assert not result["ready"] and bad(result)[0][0] == rule and words in bad(result)[0][2]
    assert world.now <= within


def test_a_unit_that_systemd_is_about_to_start_is_waited_for():
    """The daemon of the container engine restarts, and systemd has the unit wait for it."""
    for state in ("inactive", "failed"):
        world = World((2, dict(down(state, Job="77"), port=False)), (12, {"unit": dict(UP, InvocationID="second"), "port": True}))
        assert prover(world).run()["ready"] and world.now >= 22, "the window began anew"


def test_a_paused_container_is_waited_for_and_proven_from_the_beginning():
    pause = {"owners": {"ours": [], "foreign": [], "error": None, "paused": "paused, probably by X (pid 7)"}}
    world = World((3, pause), (60, {"owners": {"ours": ["pid 7"], "foreign": [], "error": None}}))
    assert prover(world).run()["ready"] and world.now >= 70
    result = prover(World((3, pause)), ready_timeout_s=30).run()
    rule, status, found = [item for item in bad(result) if item[0] == "endpoint.unpaused"][0]
    assert not result["ready"] and status == "fail" and "paused, probably by X (pid 7), after 30 s of 30 s" in found


def test_a_crash_loop_is_noticed_long_before_the_deadline():
    world = World((0, dict(down("activating", SubState="auto-restart"), port=False)), (6, down("activating", SubState="auto-restart", NRestarts="1")),
                  (12, down("activating", SubState="auto-restart", NRestarts="2", ExecMainStatus="1")))
    result = prover(world).run()
    assert world.now < 13 and endpoint.sentence("one", result).startswith(
        "one: endpoint.restarts_steady: 2 restart(s) since the gate began, last exit status 1; ")


def test_restarts_before_the_gate_do_not_count():
    assert prover(World((0, {"unit": dict(UP, NRestarts="4")}))).run()["ready"]


def test_a_short_absence_of_the_unit_is_forgiven():
    assert prover(World((0, down("inactive")), (2, {"unit": UP}))).run()["ready"]


def test_death_within_the_window_starts_it_again():
    world = World((5, dict(down("activating", SubState="auto-restart", NRestarts="1"), port=False)),
                  (20, {"unit": dict(UP, NRestarts="1", InvocationID="2"), "port": True}))
    result = prover(world).run()
    assert result["ready"] and 20 <= result["elapsed_s"] < 21 and 30 <= world.now < 32
    assert result["findings"][-1]["found"] == "held for 10 s after 1 failure(s)"


def test_one_bad_moment_starts_the_window_again_and_three_end_it():
    world = World((3, {"health": (503, "")}), (4.5, {"health": (200, "")}))
    assert prover(world).run()["ready"] and world.now > 14
    flapping = World(*[(second, {"health": (503 if second % 8 == 0 else 200, "")}) for second in range(4, 400, 4)])
    result = prover(flapping).run()
    assert not result["ready"] and flapping.now < 60
    assert bad(result)[-1][0] == "endpoint.stable" and "3 failure(s) within the window" in bad(result)[-1][2]


def test_a_swap_of_the_process_within_the_window_is_seen():
    world = World((9.5, {"unit": dict(UP, InvocationID="2")}))
    result = prover(world).run()
    assert result["ready"] and result["findings"][-1]["found"].endswith("after 1 failure(s)")


def test_rounds_must_agree():
    result = prover(World((0, {"text": ["Paris", "Rome"] * 20}))).run()
    assert bad(result)[0][2] == "the rounds differ: 'Paris' and 'Rome'"


def test_a_first_slip_is_asked_again():
    assert prover(World((0, {"status": 500}), (1, {"status": 200}))).run()["ready"]


def test_expected_answer():
    assert prover(World(), expected_answer="paris").run()["ready"]
    result = prover(World((0, {"text": "banana"})), expected_answer="paris").run()
    assert bad(result)[0][2] == "a wrong answer: 'banana'" and "containing paris" in result["findings"][-1]["expected"]


def test_stuck_load_fails_at_its_deadline_and_names_the_phase():
    world = World((0, {"port": False, "journal": ["Started vllm-ascend-one.service.", "Starting to load model /models/x..."]}))
    result = prover(world, ready_timeout_s=600).run()
    assert 600 <= world.now < 603 and result["phase"] == "weights"
    assert "phase weights without progress" in bad(result)[0][2]


def test_slow_load_with_progress_gets_up_to_twice_its_time():
    shards = [(second, {"journal": ["Loading safetensors checkpoint shards: %d%% Completed" % (second // 30)]}) for second in range(0, 3000, 30)]
    world = World((0, {"port": False}), *(shards + [(700, {"port": True})]))
    assert prover(World((0, {"port": False}), *(shards + [(700, {"port": True})])), ready_timeout_s=600).run()["ready"]
    world = World((0, {"port": False}), *shards)
    assert not prover(world, ready_timeout_s=600).run()["ready"] and 1200 <= world.now < 1203


def test_one_look_neither_waits_nor_needs_a_window():
    world = World()
    result = prover(world).once()
    assert result["ready"] and world.now == 0 and [name for dummy, name in world.asked].count("text") == 1
    closed = prover(World((0, {"port": False, "journal": ["Starting to load model /models/x..."]}))).once()
    assert not closed["ready"] and closed["phase"] == "weights" and "phase weights" in bad(closed)[0][2]


def test_a_look_at_what_answers_asks_no_journal():
    world = World()
    assert prover(world).once()["ready"] and "journal" not in [name for dummy, name in world.asked]
    hung = World((0, {"health": (503, ""), "journal": ["Starting to load model /models/x..."]}))
    assert prover(hung).once()["phase"] == "weights"


def test_no_window_asked_for():
    world = World()
    assert prover(world, stability_window_s=0).run()["ready"] and world.now == 0


@pytest.mark.parametrize("lines, expected", [
    ([], "starting"),
    (["Starting to load model /models/x...", "Loading weights took 12.3 seconds"], "weights"),
    (["Model loading took 9.7 GiB", "Available KV cache memory: 30.1 GiB"], "kv_cache"),
    (["GPU KV cache size: 100 tokens", "Capturing CUDA graphs (decode, FULL): 50%"], "warm_up"),
    (["INFO:     Application startup complete."], "ready"),
    (["INFO:     Application startup complete.", "vllm-ascend-x.service: Scheduled restart job, restart counter is at 1."], "starting"),
])
def test_phase(lines, expected):
    assert endpoint.phase(lines)[0] == expected


def test_stream_takes_bytes_as_they_come():
    whole = b'data: {"model":"m","choices":[{"delta":{"reasoning":"h\xc3\xa9"}}]}\r\n\r\n: ping\ndata: {"model":"m","choices":[{"delta":{"content":"llo"},' \
            b'"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
    stream = endpoint.Stream()
    for number in range(len(whole)):
        stream.feed(whole[number:number + 1])
    assert (stream.text, stream.model, stream.done, stream.finish_reason, stream.error) == ("h\u00e9llo", "m", True, "length", None)


@pytest.mark.parametrize("data, words", [
    (b'{"error": {"message": "no such model"}}\n', "error: no such model"),
    (b'data: {"error": {"message": "engine died"}}\n', "error: engine died"),
    (b'data: {"choices": \n', "not a completion"),
    (b'data: 7\n', "not a completion"),
    (b"<html>\n", "not a stream of events"),
    (b": " + b"x" * (endpoint.ANSWER_LIMIT + 1), "does not end"),
])
def test_stream_refuses_what_is_none(data, words):
    stream = endpoint.Stream()
    stream.feed(data)
    assert words in stream.error


def test_an_unfinished_stream_is_no_answer():
    outcome = {"status": 200, "error": None, "first_token_s": 0.1, "elapsed_s": 0.2, "stream": stream_of("Par", done=False)}
    assert endpoint.judge_completion(outcome, "gemma")[1] == "the stream ended early after 3 characters"


def test_listening_sockets_of_a_port():
    text = ("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
            "   1: 0100007F:1F40 0100007F:D2F4 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n"
            "   2: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n")
    assert endpoint.listeners(text, 8000) == ["4711"]


def test_descent_survives_loops():
    assert endpoint.descends(5, 3, {5: 4, 4: 3, 3: 1}) and endpoint.descends(3, 3, {})
    assert not endpoint.descends(5, 2, {5: 4, 4: 5})


def test_ordinary_text_does_not_count_as_repetition():
    for text in ("The capital of France is Paris.", "Paris", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12", "Paris. " * 3, "ha ha ha"):
        assert not endpoint.repeats(text)
    for text in ("a b c " * 4, "x" * 30, "so on and " * 5, "Paris is and and and and and and and and"):
        assert endpoint.repeats(text)


def test_secrets_leave_no_trace():
    text = "api_key=['sk-1'] Authorization: Bearer sk-2 token=abc, port=8000 planted"
    assert endpoint.redact(text, ["planted"]) == "api_key=******** Authorization: Bearer ******** token=********, port=8000 ********"


def test_the_sentence_names_instance_rule_found_and_remedy():
    result = prover(World((0, {"models": (200, json.dumps({"data": [{"id": "qwen"}]}))}))).run()
    line = endpoint.sentence("one", result)
    assert line.startswith("one: endpoint.model: model 'qwen'; expected model 'gemma' with context length 4096; remedy: ")
    caused = endpoint.sentence("one", dict(result, cause={"text": "because", "remedy": "do", "row": "1"}))
    assert caused.endswith("; likely cause: because; remedy: do") and "\n" not in caused


def test_the_programs_own_last_words_are_found_among_systemds():
    tail = ["Started vllm-ascend-m.service - vLLM-Ascend m.", "RuntimeError: NPU out of memory.", "vllm-ascend-m.service: Main process exited, code=exited",
            "Stopped vllm-ascend-m.service - vLLM-Ascend m."]
    assert endpoint.last_words(tail) == "RuntimeError: NPU out of memory."
    assert endpoint.last_words(tail[2:]) is None


def test_what_is_not_declared_is_not_asked():
    world = World()
    result = prover(world).run()
    assert result["ready"] and not {"tool", "chips"} & set(name for _second, name in world.asked)
    assert not {"endpoint.tool_call", "endpoint.reasoning", "endpoint.chips"} & set(item["rule"] for item in result["findings"])
    assert prover(World((0, {"tool": (500, "")})), sanity="text", **DECLARED).run()["ready"]
    assert prover(World((0, {"tool": (500, "")})), stability_window_s=0, **DECLARED).run()["ready"], "what was not touched must only answer"


@pytest.mark.parametrize("body, words", [
    (json.dumps({"choices": [{"message": {"content": "<tool_call>get_weather</tool_call>", "tool_calls": []}}]}), "no call but the text"),
    (json.dumps({"choices": [{"message": {"tool_calls": [{"function": {"name": "get_weather", "arguments": "{"}}]}}]}), "without proper arguments"),
    (json.dumps({"choices": [{"message": {"tool_calls": [{"function": {"name": "other", "arguments": '{"city": "P"}'}}]}}]}), "a call: other"),
    (json.dumps({"choices": []}), "not a completion"),
    ("[]", "not a completion"),
    (json.dumps({"error": {"message": "parser broke"}}), "error: parser broke"),
])
def test_a_tool_call_that_is_not_parsed_is_no_proof(body, words):
    result = prover(World((0, {"tool": (200, body)})), **DECLARED).run()
    assert not result["ready"]
    ((rule, status, found),) = bad(result)
    assert (rule, status) == ("endpoint.tool_call", "fail") and words in found


@pytest.mark.parametrize("status, body, words", [(500, '{"error": {"message": "x"}}', "HTTP 500: error: x"), (None, "no answer within 9 s", "no answer")])
def test_a_tool_call_without_an_answer(status, body, words):
    assert endpoint.judge_tool_call(status, body)[0] == "fail" and words in endpoint.judge_tool_call(status, body)[1]


@pytest.mark.parametrize("mark", ["<think>", "</think>", "<|channel>thought"])
def test_reasoning_within_the_answer_is_no_proof(mark):
    result = prover(World((0, {"text": mark + " Paris"})), **DECLARED).run()
    assert not result["ready"] and [item[0] for item in bad(result)] == ["endpoint.reasoning"]
    assert prover(World((0, {"text": mark + " Paris"}))).run()["ready"]


def test_reasoning_in_its_own_field_is_well():
    stream = endpoint.Stream()
    stream.feed(b'data: {"model": "m", "choices": [{"delta": {"reasoning": "<think>", "content": "Paris"}}]}\n\n')
    assert stream.text == "<think>Paris" and stream.content == "Paris"


def test_a_sick_chip_ends_it_at_once_and_names_the_device():
    world = World((5, {"chips": {"health": {"/dev/davinci3": "Alarm"}, "error": None}}))
    result = prover(world, **DECLARED).run()
    assert not result["ready"] and ("endpoint.chips", "fail", "/dev/davinci3 health Alarm") in bad(result) and world.now < 12


def test_chips_that_nobody_tells_of_block():
    result = prover(World((0, {"chips": {"health": {}, "error": "npu-smi: no answer"}})), **DECLARED).run()
    assert not result["ready"] and ("endpoint.chips", "unknown", "npu-smi: no answer") in bad(result)


def test_a_changed_file_ends_it_at_once_and_says_what_to_do():
    world = World((5, {"attestation": dict(ATTESTED, imported="/usr/lib/vllm/__init__.py")}))
    assert prover(world, **DECLARED).run()["ready"], "asked once, before it changed"
    result = prover(world, **DECLARED).run()
    assert not result["ready"] and world.now < 20
    assert bad(result) == [("endpoint.attested", "fail", "vllm is imported from /usr/lib/vllm/__init__.py, not from /w/vllm")]
    assert "playbooks/restart.yml -e model=" in endpoint.sentence("one", result)


def test_a_look_tells_of_changed_files_also_when_the_answers_are_bad():
    changed = dict(ATTESTED, labels={})
    result = prover(World((0, {"attestation": changed, "status": 500})), **DECLARED).once()
    assert {rule for rule, dummy, dummy in bad(result)} == {"endpoint.completion", "endpoint.attested"}


def test_an_instance_without_a_patch_set_is_not_asked_for_its_files():
    world = World((0, {"attestation": dict(ATTESTED, labels={})}))
    assert prover(world).run()["ready"] and "attestation" not in [name for dummy, name in world.asked]
