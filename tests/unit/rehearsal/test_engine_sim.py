# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rehearsal engine, started as a process on a loopback port with a tree, a driver and devices made for the test."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[3] / "roles" / "rehearsal_fleet" / "files" / "engine"
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
GEMMA4 = {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
          "text_config": {"max_position_embeddings": 4096, "num_attention_heads": 8, "num_experts": 128}}
GEMMA3 = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3", "max_position_embeddings": 512, "num_attention_heads": 4}
PARSERS = ("--enable-auto-tool-choice", "--tool-call-parser", "gemma4", "--reasoning-parser", "gemma4")


class Box:
    """A container's file system as far as the engine looks at it."""

    def __init__(self, root):
        self.root, self.faults = root, root / "driver" / "lib64" / "rehearsal_faults"
        self.faults.mkdir(parents=True)
        (root / "driver" / "lib64" / "libascend_hal.so").touch()
        (root / "dev").mkdir()
        self.devices(2)
        self.chip("910B3")
        self.tree(patched=True)
        self.transformers("5.5.0")
        self.model(GEMMA3)
        self.processes = []

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def devices(self, count, managers=MANAGERS):
        for path in (self.root / "dev").iterdir():
            path.unlink()
        for name in ["davinci%d" % (4 + index) for index in range(count)] + list(managers):
            (self.root / "dev" / name).touch()

    def chip(self, name):
        self.write("driver/lib64/rehearsal_node.json", json.dumps({"chip_name": name}))

    def tree(self, patched):
        gemma4 = '"gemma4": ("a", "b"), ' if patched else ""
        self.write("tree/vllm/vllm/tool_parsers/__init__.py", '_TOOL_PARSERS_TO_REGISTER = {%s"hermes": ("a", "b")}\n' % gemma4)
        self.write("tree/vllm/vllm/reasoning/__init__.py", '_REASONING_PARSERS_TO_REGISTER = {%s"qwen3": ("a", "b")}\n' % gemma4)
        known = '"Gemma4ForConditionalGeneration": 1, ' if patched else ""
        self.write("tree/vllm/vllm/model_executor/models/registry.py", '_TEXT_GENERATION_MODELS = {%s"Gemma3ForCausalLM": 1}\n' % known)
        self.write("tree/vllm/vllm/envs.py", 'environment_variables = {"VLLM_API_KEY": 1, "VLLM_ENGINE_READY_TIMEOUT_S": 1}\n')
        self.write("tree/vllm-ascend/vllm_ascend/ops/fused_moe/moe_mlp.py", "gelu\r\n" if patched else "swiglu\r\n")

    def transformers(self, version):
        self.write("site/transformers.dist-info/METADATA", "Metadata-Version: 2.1\nName: transformers\nVersion: %s\n" % version)

    def model(self, config):
        self.write("model/config.json", json.dumps(config))

    def command(self, *words, **environment):
        port = free_port()
        env = dict(os.environ, PYTHONPATH="%s:%s" % (ENGINE, self.root / "site"), REHEARSAL_TREE=str(self.root / "tree"),
                   REHEARSAL_DEV=str(self.root / "dev"), REHEARSAL_DRIVER=str(self.root / "driver"), REHEARSAL_START_S="0.05",
                   REHEARSAL_TOKEN_S="0.002", REHEARSAL_WATCHDOG_S="0.5", SOC_VERSION="ascend910b1", PYTHONDONTWRITEBYTECODE="1")
        env.update(environment)
        words = [sys.executable, "-m", "vllm_sim", "serve", str(self.root / "model"), "--served-model-name", "m", "--host", "127.0.0.1",
                 "--port", str(port)] + list(words)
        return words, env, port

    def refused(self, *words, **environment):
        """Exit code and output of a start that must fail."""
        words, env, _port = self.command(*words, **environment)
        done = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False, text=True)
        return done.returncode, done.stdout

    def start(self, *words, **environment):
        """A server that answers /health."""
        server = self.launch(*words, **environment)
        server.until_ready()
        return server

    def launch(self, *words, **environment):
        """A server as it is while it starts."""
        words, env, port = self.command(*words, **environment)
        log = self.root / "log"
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(words, env=env, stdout=out, stderr=out, preexec_fn=end_with_parent)  # pylint: disable=subprocess-popen-preexec-fn
        self.processes.append(process)
        return Server(process, port, log)


def end_with_parent():
    """ansible-test runs each test in a fork that ends without tearing down fixtures of the module."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """A running engine."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def until_ready(self):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/health")[0] == 200:
                    return
            except ConnectionError:
                time.sleep(0.02)
        pytest.fail("never ready: " + self.log.read_text(encoding="utf-8"))

    def request(self, method, path, body=None, headers=None, timeout=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers or {})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return response.status, text

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **body):
        status, text = self.request("POST", path, body)
        return status, json.loads(text)

    def ask(self, question, **more):
        return self.post("/v1/chat/completions", model="m", messages=[{"role": "user", "content": question}], **more)

    def text(self, question, **more):
        status, answer = self.ask(question, **more)
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]

    def titles(self):
        """Titles of the process tree below the server."""
        found = []
        for path in Path("/proc").iterdir():
            if not path.name.isdigit():
                continue
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                title = (path / "cmdline").read_bytes().rstrip(b"\0").decode()
            except (OSError, ValueError):
                continue
            if parent == self.process.pid or title.startswith("VLLM::Worker"):
                found.append((int(path.name), parent, title))
        cores = [pid for pid, parent, _title in found if parent == self.process.pid]
        return {title: pid for pid, parent, title in found if parent == self.process.pid or parent in cores}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def box(tmp_path):
    made = Box(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = Box(tmp_path_factory.mktemp("engine"))
    made.model(GEMMA4)
    yield made.start(*PARSERS)
    made.processes[0].kill()
    made.processes[0].wait()


# -- the surface -----------------------------------------------------------------------------------------------------------


def test_the_model_list_names_the_model_its_folder_and_its_context(running):
    status, text = running.get("/v1/models")
    card = json.loads(text)["data"][0]
    assert (status, card["id"], card["max_model_len"]) == (200, "m", 4096)
    assert card["root"].endswith("/model")


def test_version_health_and_unknown_paths(running):
    assert running.get("/version") == (200, '{"version":"0.18.0+empty"}')
    assert running.get("/health") == (200, "")
    assert running.request("POST", "/ping", {}) == (200, "")
    assert running.get("/nothing")[0] == 404
    assert running.get("/v1/chat/completions")[0] == 405


@pytest.mark.parametrize("question, part", [
    ("What is the capital of France?", "Paris"), ("What is 17 + 25?", "= 42"), ("Compute 6 * 7, reply with only the number.", "42"),
    ("中国的首都是哪里?", "北京"), ('Reply with exactly: "pong"', "pong")])
def test_simple_questions_get_the_right_answer(running, question, part):
    assert part in running.text(question)


def test_the_same_question_gets_the_same_answer(running):
    assert running.text("介绍下大模型", temperature=0) == running.text("介绍下大模型", temperature=0)


def test_tokens_are_counted_and_limited(running):
    status, answer = running.post("/v1/completions", model="m", prompt="Tell me more", max_tokens=7, ignore_eos=True)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stream_has_a_role_pieces_a_reason_usage_and_an_end(running):
    status, text = running.request("POST", "/v1/chat/completions", {
        "model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": [{"role": "user", "content": "capital of Italy"}]})
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert status == 200
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"]) == "The capital of Italy is Rome."
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == len(chunks) - 3


def test_a_tool_is_called_when_the_prompt_asks_for_it(running):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    _status, answer = running.ask("What is the weather in Berlin?", tools=[tool])
    call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Berlin"})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert running.ask("Good morning", tools=[tool])[1]["choices"][0]["finish_reason"] == "stop"


def test_errors_have_the_shape_of_vllm(running):
    assert running.post("/v1/completions", model="x", prompt="a") == (404, {"error": {
        "message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}})
    assert running.post("/v1/completions", model="m", prompt="a", max_tokens=0)[0] == 400
    assert "maximum context length is 4096" in running.post("/v1/completions", model="m", prompt="a", max_tokens=5000)[1]["error"]["message"]
    assert running.post("/v1/chat/completions", model="m")[0] == 400


def test_metrics_count_what_was_done(running):
    def metric(name):
        lines = running.get("/metrics")[1].split("\n")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    before = metric("vllm:generation_tokens_total"), metric("vllm:prefix_cache_hits_total")
    for _turn in range(2):
        running.post("/v1/completions", model="m", prompt="word " * 300, max_tokens=5)
    assert metric("vllm:generation_tokens_total") == before[0] + 10
    assert metric("vllm:prefix_cache_hits_total") == before[1] + 256
    assert metric("vllm:num_requests_running") == 0
    assert 'engine="0",model_name="m"' in running.get("/metrics")[1]


def test_an_engine_on_one_chip_has_no_workers(running):
    assert list(running.titles()) == ["VLLM::EngineCore"]


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, message", [
    (("--device", "ascend"), "vllm: error: unrecognized arguments: --device ascend"),
    (("--dtype", "int4"), "argument --dtype: invalid choice: 'int4'"),
    (("--compilation-config", "{bad"), "argument --compilation-config/-cc: Value {bad cannot be converted"),
    (("--tensor-parallel-size", "two"), "argument --tensor-parallel-size/-tp: invalid int value"),
    (("--gpu-memory",), "unrecognized arguments: --gpu-memory")])
def test_a_wrong_command_line_ends_with_code_2(box, words, message):
    code, output = box.refused(*words)
    assert code == 2
    assert message in output
    assert output.startswith("usage: vllm")


def test_an_unpatched_tree_does_not_know_the_parsers(box):
    box.tree(patched=False)
    code, output = box.refused(*PARSERS)
    assert code == 1
    assert "invalid tool call parser: gemma4 (chose from { hermes })" in output
    assert "invalid reasoning parser: gemma4 (chose from { qwen3 })" in box.refused("--reasoning-parser", "gemma4")[1]


def test_gemma4_needs_new_transformers_and_a_registered_model(box):
    box.model(GEMMA4)
    box.transformers("4.57.6")
    assert "Transformers does not recognize this architecture" in box.refused()[1]
    box.transformers("5.5.0")
    box.tree(patched=False)
    assert "Gemma4ForConditionalGeneration has no vLLM implementation" in box.refused()[1]


def test_an_image_for_another_chip_is_refused(box):
    box.chip("Ascend910")
    code, output = box.refused()
    assert code == 1
    assert "Current device type: AscendDeviceType.A3 does not match the installed version's device type: AscendDeviceType.A2" in output


def test_more_chips_than_are_mapped_are_refused(box):
    assert "local_world_size (4) must be less than or equal to the number of visible devices (2)" in box.refused("-tp", "4")[1]
    assert "input data rang[0-2), input:4" in box.refused(ASCEND_RT_VISIBLE_DEVICES="4")[1]
    box.devices(0)
    assert "visible devices (0)" in box.refused()[1]
    box.devices(1, managers=())
    assert "open /dev/davinci_manager failed" in box.refused()[1]


def test_a_driver_that_is_not_mounted_is_named(box):
    (box.root / "driver" / "lib64" / "libascend_hal.so").unlink()
    assert "libascend_hal.so: cannot open shared object file" in box.refused()[1]


def test_a_model_folder_without_config_and_a_long_context_are_refused(box):
    assert "(max_position_embeddings=512" in box.refused("--max-model-len", "1k")[1]
    (box.root / "model" / "config.json").unlink()
    assert "ensure the presence of a 'config.json'" in box.refused()[1]


def test_310p_wants_float16_and_no_graphs(box):
    box.chip("310P3")
    assert "EZ1001" in box.refused(SOC_VERSION="ascend310p1")[1]
    assert "use --enforce-eager" in box.refused("--dtype", "float16", SOC_VERSION="ascend310p1")[1]
    box.start("--dtype", "float16", "--enforce-eager", SOC_VERSION="ascend310p1")


def test_weights_that_do_not_fit_leave_no_cache(box):
    box.write("model/model.safetensors.index.json", '{"metadata": {"total_size": 70000000000}}')
    assert "No available memory for the cache blocks" in box.refused()[1]


# -- processes, port and signals ----------------------------------------------------------------------------------------


def test_tensor_parallel_workers_have_titles_and_take_the_engine_with_them(box):
    server = box.start("-tp", "2", "--enable-expert-parallel")
    titles = server.titles()
    assert sorted(titles) == ["VLLM::EngineCore", "VLLM::Worker_TP0_EP0", "VLLM::Worker_TP1_EP1"]
    os.kill(titles["VLLM::Worker_TP1_EP1"], signal.SIGTERM)
    deadline = time.monotonic() + 10
    while server.get("/health")[0] != 503:
        assert time.monotonic() < deadline
    assert server.process.wait(10) == 0


def test_the_port_is_taken_but_refuses_while_the_model_loads(box):
    (box.faults / "engine_start_delay_s.m").write_text("30")
    server = box.launch()
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as plain:
            try:
                plain.bind(("127.0.0.1", server.port))
            except OSError:
                break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ConnectionRefusedError):
        server.get("/health")
    server.process.terminate()
    assert server.process.wait(10) in (130, -signal.SIGINT)
    assert "KeyboardInterrupt: terminated" in server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("timeout, reason", [("20", "length"), ("0", "abort")])
def test_a_stop_drains_only_with_a_shutdown_timeout(box, timeout, reason):
    server = box.start("--shutdown-timeout", timeout)
    answers = []
    body = {"model": "m", "prompt": "a", "max_tokens": 300, "ignore_eos": True}
    client = threading.Thread(target=lambda: answers.append(server.request("POST", "/v1/completions", body)))
    client.start()
    while 'vllm:num_requests_running{engine="0",model_name="m"} 1.0' not in server.get("/metrics")[1]:
        time.sleep(0.01)
    server.process.terminate()
    client.join(10)
    assert server.process.wait(10) == 0
    assert json.loads(answers[0][1])["choices"][0]["finish_reason"] == reason


def test_requests_beyond_the_seats_wait_and_are_counted(box):
    server = box.start("--max-num-seqs", "1", REHEARSAL_TOKEN_S="0.02")
    body = {"model": "m", "prompt": "a", "max_tokens": 40, "ignore_eos": True}
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(server.request("POST", "/v1/completions", body)[0])) for _number in range(2)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 10
    while 'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0' not in server.get("/metrics")[1]:
        assert time.monotonic() < deadline
    for client in clients:
        client.join(15)
    assert answers == [200, 200]
    assert 'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0' in server.get("/metrics")[1]


def test_the_key_guards_v1_only(box):
    server = box.start(VLLM_API_KEY="secret")
    assert server.get("/v1/models") == (401, '{"error":"Unauthorized"}')
    assert server.get("/v1/models", headers={"Authorization": "Bearer wrong"})[0] == 401
    assert server.get("/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
    assert server.get("/health")[0] == 200
    assert server.post("/tokenize", prompt="one two")[1]["count"] == 2


# -- levers ----------------------------------------------------------------------------------------------------------------


def test_levers_of_the_start(box):
    (box.faults / "engine_crash_loop").write_text("NPU error 507015")
    code, output = box.refused()
    assert code == 1
    assert "RuntimeError: NPU error 507015" in output
    assert output.rstrip().endswith("Failed core proc(s): {'EngineCore_DP0': 1}")
    (box.faults / "engine_crash_loop").unlink()
    (box.faults / "engine_never_ready").touch()
    assert "Timed out waiting for engine core processes to start" in box.refused(VLLM_ENGINE_READY_TIMEOUT_S="0.2")[1]


def test_a_lever_for_another_model_does_nothing(box):
    (box.faults / "engine_crash_loop.other").touch()
    assert box.start().get("/health")[0] == 200


def test_levers_while_it_runs(box):
    server = box.start()

    def pulled(name, value=""):
        for path in box.faults.iterdir():
            path.unlink()
        (box.faults / name).write_text(value)

    pulled("wrong_model_answers", "gemma-2")
    assert json.loads(server.get("/v1/models")[1])["data"][0]["id"] == "gemma-2"
    assert server.ask("hello")[0] == 404
    pulled("engine_nonsense.m")
    assert server.text("What is the capital of France?", max_tokens=4) == "the the the the"
    pulled("engine_nonsense", "empty")
    assert server.text("What is the capital of France?") == ""
    pulled("engine_error_body", "device lost")
    assert server.ask("hello") == (200, {"error": {"message": "device lost", "type": "InternalServerError", "param": None, "code": 500}})
    for name in ("health_only", "engine_hangs_after_headers", "slow_tokens_s"):
        pulled(name, "30")
        with pytest.raises(socket.timeout):
            server.request("POST", "/v1/completions", {"model": "m", "prompt": "a"}, timeout=0.3)
        assert server.get("/health")[0] == 200
    pulled("engine_dies_after_s", "0")
    assert server.process.wait(10) == 0


def test_unpatched_experts_answer_nonsense_while_healthy(box):
    box.model(GEMMA4)
    box.write("tree/vllm-ascend/vllm_ascend/ops/fused_moe/moe_mlp.py", "swiglu\r\n")
    server = box.start()
    assert server.get("/health")[0] == 200
    assert "Paris" not in server.text("What is the capital of France?", max_tokens=9)


# -- the command line alone ---------------------------------------------------------------------------------------------


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.syspath_prepend(str(ENGINE))
    from vllm_sim import flags as module

    return module


def test_what_vllm_accepts_reaches_argparse(flags):
    said = []
    assert flags.normalise(["serve", "--model", "x", "--max_model_len=1K"], said.append) == ["serve", "x", "--max-model-len=1K"]
    assert "positional argument" in said[0]
    nested = ["serve", "x", "-cc.mode", "3", "--compilation_config.sizes+", "1,2", "-O2"]
    assert flags.normalise(nested, said.append) == ["serve", "x", "--optimization-level", "2", "-cc", '{"mode": 3}', "--compilation-config",
                                                    '{"sizes": ["1", "2"]}']
    with pytest.raises(ValueError, match="first positional argument"):
        flags.normalise(["serve", "--served-model-name", "x"], said.append)


@pytest.mark.parametrize("text, value", [("25.6k", 25600), ("1K", 1024), ("2m", 2000000), ("131072", 131072)])
def test_human_readable_integers(flags, text, value):
    assert flags.human_readable_int(text) == value


def test_every_flag_of_the_table_has_a_default(flags):
    defaults = flags.defaults()
    assert len(defaults) == 227
    assert (defaults["port"], defaults["gpu_memory_utilization"], defaults["allowed_origins"]) == (8000, 0.9, ["*"])
    assert (defaults["shutdown_timeout"], defaults["enable_prefix_caching"], defaults["kv_cache_dtype"]) == (0, None, "auto")


# -- ranks on several hosts ------------------------------------------------------------------------------------------------


def group(box, *more, start_rank=1):
    """(a head of two ranks, a function that starts the headless rank)."""
    box.model(GEMMA4)
    common = ["--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port",
              str(free_port()), "--shutdown-timeout", "5"]
    head = box.launch(*common, *more)

    def member(*words):
        argv, env, _port = box.command(*common, "--headless", "--data-parallel-start-rank", str(start_rank), *words)
        process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
            argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent)
        box.processes.append(process)
        return process

    return head, member


def test_the_head_serves_when_its_last_rank_has_joined_and_a_member_has_no_port(box):
    head, member = group(box)
    time.sleep(1.0)
    with pytest.raises(ConnectionError):
        head.get("/health")
    joined = member()
    head.until_ready()
    assert "Paris" in head.text("What is the capital of France?")
    assert "VLLM::EngineCore_DP0" in head.titles() and joined.poll() is None


def test_a_member_that_dies_ends_the_head_as_a_dead_engine_does(box):
    head, member = group(box)
    joined = member()
    head.until_ready()
    joined.kill()
    assert head.process.wait(10) == 0
    assert "died unexpectedly" in head.log.read_text(encoding="utf-8")


def test_a_member_follows_its_head_into_the_grave(box):
    head, member = group(box)
    joined = member()
    head.until_ready()
    head.process.kill()
    assert joined.wait(10) == 1


def test_a_rank_of_another_group_is_refused(box):
    head, member = group(box)
    stranger = member("--data-parallel-size", "3")
    assert head.process.wait(10) == 1 and "Configuration mismatch" in head.log.read_text(encoding="utf-8")
    assert stranger.wait(10) == 1


def test_sigterm_ends_a_member_at_once(box):
    head, member = group(box)
    joined = member()
    head.until_ready()
    joined.send_signal(signal.SIGTERM)
    assert joined.wait(10) == 0
