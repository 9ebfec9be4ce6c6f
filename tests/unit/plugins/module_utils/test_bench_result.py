# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Result files as the tool writes them, and as it leaves them when something went wrong."""

from __future__ import annotations

import json
import math

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_result

GOOD = {
    "date": "20261125-050000",
    "endpoint_type": "openai-chat",
    "backend": "openai-chat",
    "label": None,
    "model_id": "/models/m",
    "tokenizer_id": "/models/m",
    "num_prompts": 2,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 1,
    "duration": 12.75,
    "completed": 2,
    "failed": 0,
    "total_input_tokens": 2048,
    "total_output_tokens": 2048,
    "request_throughput": 0.157,
    "request_goodput": None,
    "output_throughput": 80.31,
    "total_token_throughput": 160.62,
    "max_output_tokens_per_s": 82.0,
    "max_concurrent_requests": 1,
    "rtfx": 0.0,
    "mean_ttft_ms": 121.3,
    "p0_ttft_ms": 120.0,
    "p100_ttft_ms": 122.0,
    "mean_tpot_ms": 12.35,
}
WANTED = {"num_prompts": 2, "input_len": 1024, "output_len": 1024}


def read(changes=(), text=None, **more):
    data = dict(GOOD, **dict(changes, **more))
    return bench_result.read("serve", json.dumps(data) if text is None else text, "", WANTED)


def test_a_good_result_is_its_numbers_without_what_was_asked_for():
    found = read()
    assert found["problems"] == [] and found["counts"] == {"completed": 2, "failed": 0, "total_input_tokens": 2048, "total_output_tokens": 2048}
    assert found["metrics"]["mean_ttft_ms"] == 121.3 and found["metrics"]["p100_ttft_ms"] == 122.0
    assert not {"num_prompts", "burstiness", "max_concurrency", "completed", "request_goodput"} & set(found["metrics"])
    assert "p99_ttft_ms" not in found["metrics"], "percentiles 0 and 100 bring no p99"


@pytest.mark.parametrize("text, words", [
    ("", "the result file is empty"), ("  \n", "the result file is empty"), (None, "the result file is empty"),
    (json.dumps(GOOD)[:200], "cut off or not JSON"), ("Traceback (most recent call last):", "cut off or not JSON"),
    (json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n", "holds 2 JSON objects, as --append-result"),
    (json.dumps(GOOD) + "\n{\"date\":", "a whole JSON object and then something else"),
    (json.dumps([GOOD]), "a *.pytorch.json is not the result"), ("3", "holds no object but 3"),
])
def test_a_file_that_is_no_result_is_told(text, words):
    found = bench_result.read("serve", text, "", WANTED)
    assert found["metrics"] == {} and len(found["problems"]) == 1 and words in found["problems"][0] and "\n" not in found["problems"][0]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"failed": 2, "completed": 0}, "2 of 2 requests failed although the tool ended with 0"),
        (
            {"failed": 1, "completed": 1, "errors": ["", "Traceback\nValueError: too long"]},
            "1 of 2 requests failed although the tool ended with 0: Traceback ValueError: too long",
        ),
        ({"completed": 1}, "1 of 2 requests completed"),
        ({"total_output_tokens": 1500}, "1500 tokens came instead of 2048"),
        ({"total_output_tokens": 0}, "0 tokens came instead of 2048"),
        ({"mean_ttft_ms": 0.0}, "the time to the first token is 0"),
        ({"completed": None}, "lacks 'completed'"),
        ({"duration": None}, "lacks 'duration'"),
    ],
)
def test_a_run_that_is_no_measurement_is_told(changes, words):
    found = read(changes)
    assert words in found["problems"][0] and (found["metrics"] == {} or "tokens" in words or "token" in words)


def test_requests_that_failed_without_asking_for_a_number_are_counted():
    assert "3 of 5 requests failed" in bench_result.read("serve", json.dumps({"completed": 2, "failed": 3, "duration": 1.0}))["problems"][0]


def test_details_are_left_where_they_are():
    found = read(input_lens=[1024, 1024], output_lens=[1024, 1024], ttfts=[0.1, 0.1], itls=[[0.01], [0.01]], generated_texts=["", ""], errors=["", ""],
                 start_times=[1.0, 2.0])
    assert found["problems"] == [] and not set(bench_result.DETAILS) & set(found["metrics"])


def test_what_is_no_number_is_left_out_and_told():
    found = read(text=json.dumps(dict(GOOD, output_throughput=math.inf, std_ttft_ms=math.nan, request_rate=math.inf)))
    assert "output_throughput" not in found["metrics"] and found["problems"] == []
    assert found["notes"] == ["output_throughput is inf and was left out", "std_ttft_ms is nan and was left out"]


def test_an_older_result_without_failed_is_read():
    data = {key: value for key, value in GOOD.items() if key != "failed"}
    assert read(text=json.dumps(data))["problems"] == []


def test_pooling_has_a_smaller_result():
    found = bench_result.read("serve", json.dumps({"num_prompts": 4, "duration": 1.5, "completed": 4, "total_input_tokens": 400, "request_throughput": 2.6,
                                                   "total_token_throughput": 266.0, "mean_e2el_ms": 300.0}))
    assert found["problems"] == [] and found["metrics"]["mean_e2el_ms"] == 300.0


OFFLINE = {"elapsed_time": 92.7, "num_requests": 200, "total_num_tokens": 230400, "requests_per_second": 2.157, "tokens_per_second": 2485.4}
SAID = "Throughput: 2.16 requests/s, 2489.63 total tokens/s, 276.63 output tokens/s\nTotal num prompt tokens:  %d\nTotal num output tokens:  25600\n"
ASKED = {"num_prompts": 200, "input_len": 1024, "output_len": 128}


def test_an_offline_result_takes_its_output_tokens_from_what_was_printed():
    found = bench_result.read("throughput", json.dumps(OFFLINE), SAID % 204800, ASKED)
    assert found["problems"] == [] and found["metrics"]["output_throughput"] == pytest.approx(25600 / 92.7)
    assert found["counts"] == {"completed": 200, "total_input_tokens": 204800, "total_output_tokens": 25600}
    assert bench_result.read("throughput", json.dumps(OFFLINE), SAID % 205000, ASKED)["problems"] == [], "a token before each prompt"


@pytest.mark.parametrize("said, asked, words", [
    (SAID % 204800, dict(ASKED, input_len=256), "204800 prompt tokens instead of 51200: the lengths that were asked for did not take effect"),
    (SAID % 204800, dict(ASKED, num_prompts=100), "200 of 100 requests completed"),
])
def test_offline_lengths_that_did_not_take_effect_are_told(said, asked, words):
    found = bench_result.read("throughput", json.dumps(OFFLINE), said, asked)
    assert words in found["problems"][0] and found["metrics"] == {}


def test_offline_without_printed_tokens():
    assert bench_result.read("throughput", json.dumps(OFFLINE), (SAID % 1).splitlines()[0], ASKED)["metrics"]["output_throughput"] == 276.63
    found = bench_result.read("throughput", json.dumps(OFFLINE), "", ASKED)
    assert "output_throughput" not in found["metrics"] and "no output throughput" in found["notes"][0]
    assert "lacks 'elapsed_time'" in bench_result.read("throughput", "{}")["problems"][0]


PAGE = '''# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} %s
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} %s
vllm:request_success_total{engine="1",finished_reason="stop",model_name="m"} 2.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} %s
vllm:prefix_cache_hits_total{engine="0",model_name="m"} %s
vllm:request_success_created{engine="0"} broken
'''


def test_the_server_tells_of_others_and_of_its_cache():
    before, after = [bench_result.counters(PAGE % numbers) for numbers in ((1.0, 4.0, 1000.0, 100.0), (0.0, 7.0, 3000.0, 2060.0))]
    assert before == {"running": 1.0, "waiting": 0.0, "finished": 6.0, "cache_queries": 1000.0, "cache_hits": 100.0}
    assert bench_result.between(before, after, 2) == {"other_requests": 1, "busy_before": 1, "cache_hit_ratio": 0.98}
    assert bench_result.between(before, after, 3)["other_requests"] == 0


def test_a_server_that_tells_nothing_is_not_known():
    assert bench_result.counters("<html>") == {} == bench_result.counters(None)
    assert bench_result.between({}, {}, 1) == {"other_requests": None, "busy_before": None, "cache_hit_ratio": None}
