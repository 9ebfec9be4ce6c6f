# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments

TABLE = os.path.join(os.path.dirname(__file__), *[os.pardir] * 4, "catalogue", "engine_flags", "vllm-0.18.0.tsv")


@pytest.fixture(scope="module")
def flags():
    with open(TABLE, encoding="utf-8") as stream:
        return arguments.parse_flag_table(stream.read())


def test_the_table_is_read_whole(flags):
    assert len(flags) > 200
    assert flags["enable-prefix-caching"]["kind"] == "bool"
    assert flags["headless"]["kind"] == "switch"
    assert flags["port"]["type"] == "int"
    assert "no-enable-prefix-caching" not in flags


def test_the_command_line_of_the_gemma_delivery(flags):
    given = {
        "tensor-parallel-size": 2, "enable-expert-parallel": True, "enable-auto-tool-choice": True, "tool-call-parser": "gemma4",
        "enable-prefix-caching": True, "compilation-config": {"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4, 8]},
    }
    assert arguments.check(given, flags, "0.18.0") == []
    assert arguments.render(given, flags) == [
        "--tensor-parallel-size", "2", "--enable-expert-parallel", "--enable-auto-tool-choice", "--tool-call-parser", "gemma4",
        "--enable-prefix-caching", "--compilation-config", '{"cudagraph_mode":"FULL_DECODE_ONLY","cudagraph_capture_sizes":[1,2,4,8]}']


@pytest.mark.parametrize("given, wanted", [
    ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
    ({"headless": False}, []),
    ({"max_model_len": 4096}, ["--max-model-len", "4096"]),
    ({"gpu-memory-utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
    ({"max-model-len": None}, []),
    ({"middleware": ["a", "b"]}, ["--middleware", "a", "b"]),
    ({"allowed-origins": ["*"]}, ["--allowed-origins", '["*"]']),
    ({"compilation-config.cudagraph_mode": "NONE"}, ["--compilation-config.cudagraph_mode", "NONE"]),
])
def test_rendering(flags, given, wanted):
    assert arguments.render(given, flags) == wanted


@pytest.mark.parametrize("given, word", [
    ({"tensor-paralel-size": 2}, "did you mean 'tensor-parallel-size'"),
    ({"device": "ascend"}, "finds the platform by itself"),
    ({"swap_space": 4}, "removed"),
    ({"enable-prefix-caching": "yes"}, "takes true or false"),
    ({"tensor-parallel-size": "two"}, "whole number"),
    ({"tensor-parallel-size": True}, "takes a value"),
    ({"uvicorn-log-level": "loud"}, "takes one of"),
    ({"additional-config": {"torchair_graph_config": {}}}, "ignored by vllm-ascend"),
    ({"additional-config": {"enable_cpu_bindin": True}}, "did you mean 'enable_cpu_binding'"),
    ({"api-key": "secret"}, "travels in a file"),
])
def test_problems_name_the_thing_and_the_remedy(flags, given, word):
    problems = arguments.check(given, flags, "0.18.0")
    assert len(problems) == 1
    assert word in problems[0]
    assert "secret" not in problems[0]


def test_without_a_table_true_and_false_are_no_values():
    """A version without a table once got `--enable-prefix-caching true`, which no parser takes."""
    assert arguments.render({"enforce-eager": True, "enable-prefix-caching": False, "max-num-seqs": 4}, {}) == [
        "--enforce-eager", "--no-enable-prefix-caching", "--max-num-seqs", "4"]
