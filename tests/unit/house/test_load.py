# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

"""The load of the end-to-end tests sees every way in which an answer can fail; otherwise "zero failed requests" says nothing."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.load import Load
from test_engine_sim import Box, free_port


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    made = Box(tmp_path_factory.mktemp("engine"))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(box):
    return box.start()


@pytest.fixture
def lever(box):
    yield lambda name, value="": (box.faults / name).write_text(value)
    for path in box.faults.iterdir():
        path.unlink()


def seen(server, seconds=0.5, meanwhile=lambda: None, **options):
    with Load(f"http://127.0.0.1:{server.port}", "m", **dict({"rate": 40, "timeout_s": 5}, **options)) as load:
        meanwhile()
        time.sleep(seconds)
    return load


def test_a_server_that_is_well_fails_nobody(server):
    found = seen(server, streamed=0.25).report()
    assert found["failed"] == 0 and found["requests"] >= 15 and found["held_back"] == 0
    assert found["streamed"] == pytest.approx(found["requests"] / 4, abs=1)
    assert sum(row["began"] for row in found["seconds"]) == found["requests"]
    assert 0 < found["first_s"]["median"] <= found["whole_s"]["max"]


@pytest.mark.parametrize("name, value, kinds", [
    ("engine_error_body", "device lost", {"status"}),
    ("engine_nonsense", "", {"wrong"}),
    ("engine_nonsense", "empty", {"wrong"}),
    ("wrong_model_answers", "other", {"status"}),
    ("engine_hangs_after_headers", "", {"late"}),
    ("health_only", "", {"late"}),
])
def test_each_wrong_answer_is_counted_with_its_words(server, lever, name, value, kinds):
    lever(name, value)
    load = seen(server, timeout_s=0.5)
    found = load.report()
    assert found["failed"] == found["requests"] > 0 and set(found["kinds"]) == kinds
    assert load.told().startswith(f"{found['failed']} of {found['requests']} requests failed")
    if value == "device lost":
        assert "device lost" in load.told()


def test_too_many_at_once_wait_and_are_told(server, lever):
    lever("slow_tokens_s", "0.2")
    found = seen(server, in_flight=2, max_tokens=2, expected="the").report()
    assert found["failed"] == 0 and found["held_back"] > 0


def test_streams_that_a_stop_cuts_and_requests_that_find_nobody_are_told_apart(box, lever):
    server = box.start()
    lever("slow_tokens_s", "0.1")
    found = seen(server, 1, lambda: (time.sleep(0.6), server.process.terminate(), server.process.wait()), rate=20).report()
    assert found["cut_streams"] > 0 and found["kinds"]["refused"] > 0
    assert any(text.startswith("cut: finish_reason 'abort' after") for text in found["texts"])


def test_a_connection_that_breaks_in_the_middle_is_a_cut_and_not_an_answer():
    listener = socket.create_server(("127.0.0.1", free_port()))

    def answer():
        event = b'data: {"choices":[{"delta":{"content":"Paris"},"finish_reason":null}]}\n\n'
        while True:
            connection, _address = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(event), event))
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    with Load(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", streamed=1.0, timeout_s=5) as load:
        time.sleep(0.3)
    assert set(load.report()["kinds"]) == {"cut"}
