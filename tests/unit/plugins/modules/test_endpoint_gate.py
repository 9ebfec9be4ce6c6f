# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate against real servers, most of which lie. systemctl, journalctl and docker are scripts; the listener is found in /proc."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.modules import endpoint_gate as module

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")


class Server(http.server.BaseHTTPRequestHandler):
    """A good server; a subclass lies in one place."""

    protocol_version = "HTTP/1.1"
    key = None
    words = ["The ", "capital ", "is ", "Paris."]

    def log_message(self, *unused):
        return

    def reply(self, status, body, kind="application/json"):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/health":
            return self.health()
        if self.key and self.headers.get("Authorization") != "Bearer " + self.key:
            return self.reply(401, '{"error": "Unauthorized"}')
        return self.models()

    def health(self):
        self.reply(200, "")

    def models(self):
        self.reply(200, json.dumps({"data": [{"id": "gemma", "max_model_len": 4096}]}))

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        asked = dict({"stream": False}, **json.loads(self.rfile.read(length)))
        assert asked["temperature"] == 0 and asked["stream"] is not ("tools" in asked)
        if "tools" in asked:
            return self.call(asked["tools"][0]["function"]["name"])
        self.complete()

    def call(self, name):
        message = {"content": None, "tool_calls": [{"type": "function", "function": {"name": name, "arguments": '{"city": "Paris"}'}}]}
        self.reply(200, json.dumps({"model": "gemma", "choices": [{"message": message}]}))

    def complete(self):
        self.start_stream()
        for word in self.words:
            self.event({"model": "gemma", "choices": [{"delta": {"content": word}}]})
        self.end_stream()

    def start_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, data):
        self.chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def end_stream(self):
        self.event({"model": "gemma", "choices": [{"delta": {}, "finish_reason": "stop"}]})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")


class Threads(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *unused):
        return


@pytest.fixture
def serve():
    running = []

    def start(handler=Server):
        server = Threads(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return server.server_address[1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class World:
    """Scripts that answer like the tools, for a container whose first process is this test."""

    def __init__(self, root):
        self.root = str(root)
        self.tool("systemctl", "cat %s\n" % self.path("show"))
        self.tool("journalctl", "cat %s\n" % self.path("log"))
        self.tool("docker", "cat %s\n" % self.path("inspect"))
        self.chips("01-910B2-8chip-healthy.txt")
        self.write("log", "Starting to load model\n")
        self.unit()
        self.container(os.getpid())

    def path(self, name):
        return os.path.join(self.root, name)

    def write(self, name, text):
        with open(self.path(name), "w") as stream:
            stream.write(text)

    def tool(self, name, script):
        self.write(name, "#!/bin/sh\n" + script)
        os.chmod(self.path(name), 0o755)

    def unit(self, **values):
        values = dict({"Id": "vllm-ascend-one.service", "ActiveState": "active", "SubState": "running", "NRestarts": "0",
                       "LoadState": "loaded"}, **values)
        self.write("show", "".join("%s=%s\n" % pair for pair in values.items()))

    def chips(self, fixture):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "fixtures", "npu-smi", fixture)
        self.tool("npu-smi", "echo call >> %s\ncat %s\n" % (self.path("npu-smi-calls"), os.path.abspath(path)))

    def container(self, pid, name="one"):
        self.write("inspect", json.dumps([{"Config": {"Labels": {"vllm-ascend-fleet.instance": name}}, "State": {"Pid": pid}}]))

    def run(self, port, check_mode=False, instance=None, **params):
        params = dict({
            "api_keys": {}, "quick": False, "smoke": False, "rounds": 3, "first_token_s": 0.5, "gap_s": 0.3, "address": "127.0.0.1", "engine": "docker",
            "engine_path": self.path("docker"), "systemctl": self.path("systemctl"), "journalctl": self.path("journalctl"),
            "npu_smi_path": self.path("npu-smi")}, **params)
        one = dict({"name": "one", "port": port, "served_model_name": "gemma", "max_model_len": 4096, "ready_timeout_s": 30,
                    "stability_window_s": 0}, **(instance or {}))
        result, sentences = module.endpoint_probes.run(dict(params, instances=[one]), check_mode)
        return result["instances"]["one"], sentences


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(module.endpoint_probes.domain, "RETRY_S", 0.05)
    return World(tmp_path)


def statuses(result):
    return [item["status"] for item in result["findings"]]


def test_good_server(world, serve):
    result, sentences = world.run(serve(), instance={"stability_window_s": 0.2})
    assert result["ready"] and sentences == [] and set(statuses(result)) == {"pass"}
    assert len(result["findings"]) == 8 and result["journal_tail"] == []
    assert "pid %d" % os.getpid() in result["findings"][2]["found"]


def test_a_container_that_the_survey_saw_is_not_asked_for_again(world, serve):
    world.tool("docker", "exit 1\n")

    def seen(labels):
        return {"Id": "1", "Config": {"Labels": labels}, "State": {"Pid": os.getpid()}}

    labels = {"vllm-ascend-fleet.instance": "one"}
    instance, port = {"container": "vllm-ascend-one"}, serve()
    assert world.run(port, instance=instance, quick=True, containers={"vllm-ascend-one": seen(labels)})[0]["ready"]
    foreign = world.run(port, instance=instance, quick=True, containers={"vllm-ascend-one": seen({})})[0]
    assert not foreign["ready"] and not world.run(port, instance=instance, quick=True)[0]["ready"]


DECLARED = {"arguments": ["/m", "--enable-auto-tool-choice", "--reasoning-parser", "x"], "devices": ["/dev/davinci0", "/dev/davinci7"],
            "stability_window_s": 0.1}


def test_what_an_instance_declares_must_show(world, serve):
    result, sentences = world.run(serve(), instance=DECLARED)
    assert result["ready"] and sentences == [] and len(result["findings"]) == 11
    assert "/dev/davinci0 OK, /dev/davinci7 OK" in json.dumps(result)
    with open(world.path("npu-smi-calls")) as stream:
        assert stream.read().count("call") == 1


class ForgetsTheCall(Server):
    def call(self, name):
        self.reply(200, json.dumps({"choices": [{"message": {"content": "call:%s{city:Paris}" % name}}]}))


class ThinksAloud(Server):
    words = ["<think>", "France? ", "Paris."]


@pytest.mark.parametrize("server, rule", [(ForgetsTheCall, "endpoint.tool_call"), (ThinksAloud, "endpoint.reasoning")])
def test_a_parser_that_does_not_fit_is_no_proof(world, serve, server, rule):
    result, sentences = world.run(serve(server), instance=DECLARED)
    assert not result["ready"] and rule in sentences[0]


@pytest.mark.parametrize("fixture, words", [
    ("04-310B4-1chip-unhealthy-alarm.txt", "/dev/davinci0"), ("07-error-8020-device-used.txt", "endpoint.chips")])
def test_chips_that_are_not_well_in_the_end_are_no_proof(world, serve, fixture, words):
    world.chips(fixture)
    result, sentences = world.run(serve(), instance=dict(DECLARED, devices=["/dev/davinci0"]))
    assert not result["ready"] and "endpoint.chips" in sentences[0] and words in sentences[0]


def test_quick_look(world, serve):
    result, dummy = world.run(serve(), quick=True)
    assert result["ready"] and len(result["findings"]) == 7


class Talks(Server):
    """Answers what deployers ask by hand; whoever asks must send the key."""

    key = "planted-key"
    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer " + self.key and body["model"] == "gemma"
        self.asked.append((self.path, body))
        if "tools" in body:
            return self.call(body["tools"][0]["function"]["name"])
        question = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        answers = {"17": "42", "Japan": "Tokyo", "\u9996\u90fd": "\u5317\u4eac", "France": "Paris, with planted-key"}
        self.words = [next((answer for word, answer in answers.items() if word in question), "well")]
        self.complete()


def test_what_is_asked_by_hand_is_asked_when_it_is_proven(world, serve):
    Talks.asked = []
    instance = dict(DECLARED, expected_answer="paris", devices=[], stability_window_s=0)
    result, sentences = world.run(serve(Talks), quick=True, smoke=True, api_keys={"one": Talks.key}, instance=instance)
    assert result["ready"] and sentences == []
    checks = [item["rule"] for item in result["findings"] if item["rule"].startswith("smoke.")]
    assert checks == ["smoke.chat", "smoke.consistency", "smoke.arithmetic", "smoke.fact", "smoke.chinese", "smoke.completion", "smoke.reasoning",
                      "smoke.tool_call"]
    assert [path for path, dummy in Talks.asked].count("/v1/completions") == 1 and Talks.key not in json.dumps(result)
    assert [answer["text"] for answer in result["answers"] if answer["check"] == "smoke.consistency"] == ["Paris, with ********"] * 3


def test_nothing_more_is_asked_of_what_is_not_proven(world, serve):
    result, sentences = world.run(serve(DeadEngine), quick=True, smoke=True)
    assert not result["ready"] and result["answers"] == [] and not any("smoke" in item["rule"] for item in result["findings"])


class Miscounts(Talks):
    key = "other"

    def complete(self):
        self.words = ["43"] if self.words == ["42"] else self.words
        super(Miscounts, self).complete()


def test_a_wrong_answer_is_no_proof(world, serve):
    result, sentences = world.run(serve(Miscounts), quick=True, smoke=True, api_keys={"one": "other"}, instance={"expected_answer": "paris"})
    assert not result["ready"] and "one: smoke.arithmetic: a wrong answer: '43'; expected 42" in sentences[0]
    assert world.run(serve(Miscounts), quick=True, smoke=True, api_keys={"one": "other"})[0]["ready"], "a small model may be wrong"


def test_api_key_is_used_and_never_shown(world, serve):
    class Keyed(Server):
        key = "planted-key"

    port = serve(Keyed)
    assert world.run(port, api_keys={"one": "planted-key"})[0]["ready"]
    world.write("log", "args: api_key=['planted-key']\nheader planted-key\n")
    result, sentences = world.run(port, api_keys={"one": "planted-key-2", "other": "planted-key"})
    assert "the API key is not accepted" in sentences[0]
    assert "planted-key" not in json.dumps(result) + sentences[0] and len(result["journal_tail"]) == 2


class DeadEngine(Server):
    def complete(self):
        self.reply(500, '{"error": {"message": "EngineCore encountered an issue."}}')


class ErrorBody(Server):
    def complete(self):
        self.reply(200, '{"error": {"message": "engine died"}}')


class ErrorEvent(Server):
    def complete(self):
        self.start_stream()
        self.event({"error": {"message": "engine died"}})
        self.chunk(b"")


class HangsAfterHeaders(Server):
    def complete(self):
        self.start_stream()
        threading.Event().wait(5)


class HangsInTheMiddle(Server):
    def complete(self):
        self.start_stream()
        self.event({"model": "gemma", "choices": [{"delta": {"content": "Par"}}]})
        threading.Event().wait(5)


class TricklesComments(Server):
    def complete(self):
        self.start_stream()
        for dummy in range(100):
            self.chunk(b": ping\n")
            threading.Event().wait(0.05)


class TricklesHeaders(Server):
    def complete(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for dummy in range(100):
            self.wfile.write(b"X-A: b\r\n")
            self.wfile.flush()
            threading.Event().wait(0.05)


class RoleOnly(Server):
    words = ["", ""]


class Closes(Server):
    def complete(self):
        self.start_stream()
        self.event({"model": "gemma", "choices": [{"delta": {"content": "Par"}}]})
        self.close_connection = True


class Plain(Server):
    def complete(self):
        self.reply(200, json.dumps({"model": "gemma", "choices": [{"message": {"content": "Paris"}}]}))


class Html(Server):
    def models(self):
        self.reply(200, "<html>welcome</html>", "text/html")


class Garbage(Server):
    def health(self):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.close_connection = True


class Babbles(Server):
    words = ["no "] * 20


class Binary(Server):
    words = ["\ufffd\ufffd\x00\x01"]


class OtherModel(Server):
    def complete(self):
        self.start_stream()
        self.event({"model": "qwen", "choices": [{"delta": {"content": "Paris"}}]})
        self.end_stream()


class Fickle(Server):
    count = 0

    def complete(self):
        Fickle.count += 1
        self.words = ["Paris %d" % Fickle.count]
        super().complete()


@pytest.mark.parametrize("liar, rule, words", [
    (DeadEngine, "endpoint.completion", "HTTP 500: error: EngineCore"),
    (ErrorBody, "endpoint.completion", "error: engine died"),
    (ErrorEvent, "endpoint.completion", "error: engine died"),
    (HangsAfterHeaders, "endpoint.completion", "no first token within"),
    (HangsInTheMiddle, "endpoint.completion", "no token for"),
    (TricklesComments, "endpoint.completion", "no first token within"),
    (TricklesHeaders, "endpoint.completion", "no first token within 0.5 s"),
    (RoleOnly, "endpoint.completion", "the stream held no token"),
    (Closes, "endpoint.completion", "no proper answer: IncompleteRead"),
    (Plain, "endpoint.completion", "not a stream of events"),
    (Html, "endpoint.model", "not a list of models"),
    (Garbage, "endpoint.health", "no proper answer: BadStatusLine"),
    (Babbles, "endpoint.sane", "it repeats itself"),
    (Binary, "endpoint.sane", "not readable"),
    (OtherModel, "endpoint.completion", "comes from model 'qwen' and model 'gemma'"),
    (Fickle, "endpoint.sane", "the rounds differ"),
])
def test_liars_fail_and_do_not_stay_unknown(world, serve, liar, rule, words):
    result, sentences = world.run(serve(liar))
    assert not result["ready"] and len(sentences) == 1
    last = result["findings"][-1]
    assert (last["rule"], last["status"]) == (rule, "fail") and words in last["found"]
    assert sentences[0].startswith("one: %s: " % rule)


def test_closed_port_dead_unit_and_known_cause(world):
    world.unit(ActiveState="failed", SubState="failed", Result="start-limit-hit", ExecMainStatus="1")
    world.write("log", "KeyError: 'invalid tool call parser: gemma4 (chose from { hermes })'\n")
    result, sentences = world.run(free_port())
    assert result["cause"]["row"] == "patch"
    assert sentences[0] == (
        "one: endpoint.unit_active: failed (failed), result start-limit-hit, last exit status 1; expected the unit is active; likely cause: "
        "the image is not patched for Gemma 4; remedy: deploy with the patch set gemma4; the playbook deploy_gemma4 builds the image")


def test_right_answers_from_the_wrong_process(world, serve):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        world.container(stranger.pid)
        result, dummy = world.run(serve())
    finally:
        stranger.kill()
        stranger.wait()
    assert result["findings"][-1]["rule"] == "endpoint.listener_ours" and result["findings"][-1]["status"] == "fail"
    assert "belongs to pid %d" % os.getpid() in result["findings"][-1]["found"]


def test_a_container_of_another_instance_does_not_count(world, serve):
    world.container(os.getpid(), name="two")
    assert world.run(serve())[0]["findings"][-1]["status"] == "fail"


def test_a_second_listener_on_the_same_port_is_seen(world):
    """vLLM shares its port; the kernel then gives each connection to one of the two."""
    ours = socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    ours.bind(("127.0.0.1", 0))
    port = ours.getsockname()[1]
    ours.listen(5)
    script = (
        "import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', %d)); "
        "s.listen(5); print('up', flush=True); sys.stdin.read()" % port)
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    owner = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        other.stdout.readline()
        world.container(owner.pid)
        found = world.run(port)[0]["findings"][-1]
        assert found["status"] == "fail" and "pid %d" % other.pid in found["found"] and "pid %d" % os.getpid() in found["found"]
        world.container(other.pid)
        found = world.run(port)[0]["findings"][-1]
        assert found["found"].startswith("also port %d belongs to pid %d" % (port, os.getpid()))
    finally:
        ours.close()
        for process in (other, owner):
            process.kill()
            process.communicate()


def test_check_mode_looks_once_and_refuses_nothing(world):
    result, sentences = world.run(free_port(), check_mode=True)
    assert not result["ready"] and len(sentences) == 1 and "nothing listens" in sentences[0]


def test_silent_systemd_is_unknown_not_good(world, serve):
    world.tool("systemctl", "echo 'Failed to connect to bus' >&2; exit 1\n")
    result, dummy = world.run(serve(), quick=True)
    assert not result["ready"] and result["findings"][0]["status"] == "unknown" and "Failed to connect to bus" in result["findings"][0]["found"]


def test_all_instances_are_judged_at_the_same_time(world, serve):
    params = {"api_keys": {}, "quick": True, "smoke": False, "rounds": 1, "first_token_s": 5, "gap_s": 5, "address": "127.0.0.1", "engine": "docker",
              "engine_path": world.path("docker"), "systemctl": world.path("systemctl"), "journalctl": world.path("journalctl"), "npu_smi_path": None}
    here = threading.Barrier(2, timeout=10)

    class Together(Server):
        def health(self):
            here.wait()
            super().health()

    world.write("show", "Id=vllm-ascend-one.service\nActiveState=active\n\nId=vllm-ascend-two.service\nActiveState=active\n")
    answer = '[{"Config": {"Labels": {"vllm-ascend-fleet.instance": "%%s"}}, "State": {"Pid": %d}}]' % os.getpid()
    world.tool("docker", "printf '%s' \"${3#vllm-ascend-}\"\n" % answer)
    both = [{"name": name, "port": serve(Together), "served_model_name": "gemma"} for name in ("one", "two")]
    result, sentences = module.endpoint_probes.run(dict(params, instances=both), False)
    assert sentences == [] and result["instances"]["two"]["ready"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
