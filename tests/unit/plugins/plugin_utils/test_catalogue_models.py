# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every model on every platform of its own, as the command line that its host would run, against vLLM's flags and its source's words."""

from __future__ import annotations

import argparse
import json
import shlex

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent, plan
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue, release_files

CATALOGUE = catalogue.load()
PAIRS = [(model["name"], platform) for model in CATALOGUE["models"].values() for platform in model["platforms"]]
CHIPS = {"a2": ("910b", "910B3", 8), "a3": ("910c", "Ascend910", 16), "310p": ("310p", "310P3", 8)}
LOCKED = "sha256:" + "a" * 64

# The words of the sources, as they stand there. Left out are only line ends, and what a shell would expand.
GEMMA_4 = """--enable-auto-tool-choice --tool-call-parser gemma4 --reasoning-parser gemma4 --enable-prefix-caching
  --compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY","cudagraph_capture_sizes":[1,2,4,8]}'"""
SOURCES = {
    "gemma-4-E2B-it": "ASCEND_RT_VISIBLE_DEVICES=0 HCCL_OP_EXPANSION_MODE=AIV vllm serve /models/gemma-4-E2B-it "
                      "--served-model-name gemma-4-E2B-it " + GEMMA_4,
    "gemma-4-E4B-it": "ASCEND_RT_VISIBLE_DEVICES=0 HCCL_OP_EXPANSION_MODE=AIV vllm serve /models/gemma-4-E4B-it "
                      "--served-model-name gemma-4-E4B-it " + GEMMA_4,
    "gemma-4-26B-A4B-it": "ASCEND_RT_VISIBLE_DEVICES=0,1 HCCL_OP_EXPANSION_MODE=AIV HCCL_BUFFSIZE=256 vllm serve /models/gemma-4-26B-A4B-it "
                          "--served-model-name gemma-4-26B-A4B-it --tensor-parallel-size 2 --enable-expert-parallel " + GEMMA_4,
    "gemma-4-31B-it": "ASCEND_RT_VISIBLE_DEVICES=0,1,2,3 HCCL_OP_EXPANSION_MODE=AIV vllm serve /models/gemma-4-31B-it "
                      "--served-model-name gemma-4-31B-it --tensor-parallel-size 4 " + GEMMA_4,
    "gemma-3-270m-it": """VLLM_USE_MODELSCOPE=true PYTORCH_NPU_ALLOC_CONF=expandable_segments:True HCCL_BUFFSIZE=512 OMP_PROC_BIND=false
        OMP_NUM_THREADS=1 TASK_QUEUE_ENABLE=1 ASCEND_LOG_PATH=/opt/atomgit/ascend/log
        vllm serve /opt/atomgit/weights/gemma-3-270m-it --host 0.0.0.0 --port 8000 --data-parallel-size 1 --tensor-parallel-size 1
        --seed 1024 --served-model-name gemma-3-270m-it --max-num-seqs 32 --max-model-len 32768 --max-num-batched-tokens 4096
        --trust-remote-code --gpu-memory-utilization 0.90 --no-enable-prefix-caching
        --compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY"}' --additional-config '{"enable_cpu_binding":true}'""",
    "Qwen3-0.6B": "vllm serve --enforce-eager --dtype float16 --model Qwen/Qwen3-0.6B --tensor-parallel-size 4",
    "Qwen3-0.6B-TP1": "vllm serve --enforce-eager --dtype float16 --model Qwen/Qwen3-0.6B --tensor-parallel-size 1",
    "Qwen3-32B": """VLLM_USE_MODELSCOPE=True vllm serve --enforce-eager --dtype float16 --model /root/models/qwen3-32B
        --served-model-name qwen3-32b --enable-auto-tool-choice --tool-call-parser hermes --tensor-parallel-size 4""",
    "DeepSeek-R1-W8A8": """vllm serve --model=/DeepSeek-R1-W8A8 --quantization ascend --served-model-name auto --trust-remote-code
        --distributed-executor-backend=mp --port 8006 --tensor-parallel-size=16 --max-num-seqs 24 --max-model-len 32768
        --max-num-batched-tokens 8192 --block-size 128 --no-enable-prefix-caching --additional-config '{"torchair_graph_config":
        {"enable_multistream_mla": true,"enabled":true,"use_cached_graph":true,"graph_batch_sizes":[24]},
        "ascend_scheduler_config":{"enabled":true},"expert_tensor_parallel_size":16}' --gpu-memory-utilization 0.96""",
    "DeepSeek-R1-W8A8-2xA2": """HCCL_INTRA_PCIE_ENABLE=1 HCCL_INTRA_ROCE_ENABLE=0 OMP_PROC_BIND=false OMP_NUM_THREADS=1
        PYTORCH_NPU_ALLOC_CONF=expandable_segments:True vllm serve MODEL --tensor-parallel-size 4 --data-parallel-size 4 --data-parallel-size-local 2
        --data-parallel-address 192.0.2.1 --quantization ascend --enable-expert-parallel --max-num-seqs 16
        --max-model-len 16384 --max-num-batched-tokens 4096 --gpu-memory-utilization 0.92 --trust-remote-code --port 8000""",
    "Llama-2-7B": """ASCEND_VISIBLE_DEVICES=0 VLLM_USE_ASCEND=1 ASCEND_OP_FUSION=1 ASCEND_PARALLEL_STREAM_NUM=4
        vllm serve ./llama-2-7b-ascend --device ascend --port 8080""",
}
# What a source says and the catalogue does not; each is explained in the model's own file.
NOT_TAKEN = {
    "gemma-3-270m-it": ["ASCEND_LOG_PATH", "host"], "DeepSeek-R1-W8A8": ["additional_config"],
    "Llama-2-7B": ["ASCEND_VISIBLE_DEVICES", "VLLM_USE_ASCEND", "ASCEND_OP_FUSION", "ASCEND_PARALLEL_STREAM_NUM", "device"],
}
# What the plan adds to every command line, or decides itself: the place of the weights and of the port.
OURS = {"model", "model_tag", "port", "shutdown_timeout"}


def planned(name, platform, rank=0):
    """The instance that a healthy host of the platform would get; of a group over several hosts, the one of that rank."""
    family, chip, count = CHIPS[platform]
    survey = {
        "family": family, "host": {"architecture": "aarch64"}, "engine": {"name": "docker", "path": "/usr/bin/docker"}, "containers": [],
        "instances": {}, "weights": {}, "install_info": None, "network": {"interfaces": {"eth0": "192.0.2.1"}, "default": "eth0"},
        "chips": [{"index": n, "npu_id": n // 2, "chip_id": n % 2, "phy_id": n, "name": chip, "health": "OK", "hbm_used_mib": 3000,
                   "hbm_total_mib": 65536, "device": "/dev/davinci%d" % n, "device_present": True, "processes": [], "holders": []}
                  for n in range(count)]}
    settings, problems = intent.read("h", {"fleet_registry": {"address": "r:5000"}, "fleet_instances": [name]})
    patch_sets = {key: {"name": key, "id": "f" * 12} for key in CATALOGUE["patch_sets"]}
    hosts = ["h%d" % number for number in range(CATALOGUE["models"][name].get("group", 1))]
    for _round in range(2):
        made, found = plan.build("f", dict.fromkeys(hosts, settings), CATALOGUE, patch_sets, {"targets": {
            target: {"digest": LOCKED} for target in (made["images"] if _round else ())}}, dict.fromkeys(hosts, survey), None, release_files.render)
        problems += found
    assert problems == []
    return made["hosts"][hosts[rank]]["instances"][0]


class Refused(Exception):
    """What argparse would say before it leaves the program."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


def parser():
    """argparse as vLLM 0.18.0 sets it up, from the table that was taken off the real one."""
    made = Parser(allow_abbrev=False)
    made.add_argument("model_tag", nargs="?")
    for line in (catalogue.BUILT_IN / "engine_flags" / "vllm-0.18.0.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            continue
        names, kind, kept, _default, choices, _group = line.split("\t")
        names = [name.strip() for name in names.split(",")]
        if kind.startswith("bool"):
            made.add_argument(*[n for n in names if not n.startswith("--no-")], action=argparse.BooleanOptionalAction)
        elif kind == "switch":
            made.add_argument(*names, action="store_true", default=None)
        elif kind == "append":
            made.add_argument(*names, action="append")
        else:
            convert = {"int": int, "float": float, "json": json.loads, "loads": json.loads}.get(kept, str)
            nargs = "+" if kind.endswith("nargs=+") or kind.startswith("list") else "?" if kind.endswith("nargs=?") else None
            made.add_argument(*names, type=convert, nargs=nargs, choices=[convert(c) for c in choices.split(",")] if choices else None)
    return made


PARSER = parser()


def parsed(words):
    return {key: value for key, value in vars(PARSER.parse_args(words)).items() if value is not None}


@pytest.mark.parametrize("name, platform", PAIRS)
def test_a_command_line_is_one_that_vllm_takes(name, platform):
    instance = planned(name, platform)
    found = parsed(instance["arguments"])
    assert found["model_tag"] == instance["weights"]["path"] and found["port"] == 8000
    assert found.get("tensor_parallel_size", 1) * found.get("data_parallel_size_local", 1) == len(instance["devices"])


def test_the_second_host_of_a_group_has_a_command_line_that_vllm_takes_too():
    head, member = [parsed(planned("DeepSeek-R1-W8A8-2xA2", "a2", rank)["arguments"]) for rank in (0, 1)]
    assert {key: member[key] for key in member if member[key] != head.get(key)} == {"headless": True, "data_parallel_start_rank": 2}
    assert set(head) - set(member) == {"port"} and 13389 <= head["data_parallel_rpc_port"] < 13901


@pytest.mark.parametrize("name, platform", PAIRS)
def test_a_release_is_rendered_for_it(name, platform):
    instance = planned(name, platform)
    (unit,) = [text for key, text in instance["release"]["files"].items() if key.endswith(".service")]
    words = shlex.split(unit.split("vllm serve ", 1)[1].split("\n", 1)[0])
    assert words == instance["arguments"]


def test_a_flag_that_vllm_does_not_have_is_refused_here_too():
    with pytest.raises(Refused, match="--device"):
        parsed(["/m", "--device", "ascend"])


def test_each_model_has_its_source():
    assert set(SOURCES) == set(CATALOGUE["models"])


@pytest.mark.parametrize("name, platform", PAIRS)
def test_the_source_is_followed_word_for_word_but_for_what_the_file_explains(name, platform):
    words = shlex.split(SOURCES[name])
    at = words.index("vllm")
    environment, arguments = dict(word.split("=", 1) for word in words[:at]), words[at + 2:]
    instance, left_out = planned(name, platform), NOT_TAKEN.get(name, [])
    assert {key: instance["environment"].get(key) for key in environment if key not in left_out} == {
        key: value for key, value in environment.items() if key not in left_out}
    ours = parsed(instance["arguments"])
    if "device" in left_out:
        arguments = [word for word in arguments if word not in ("--device", "ascend")]
    theirs = {key: value for key, value in parsed(arguments).items() if key not in OURS and key not in left_out}
    assert {key: ours.get(key) for key in theirs} == theirs
    text = (catalogue.BUILT_IN / "models" / (name + ".yml")).read_text(encoding="utf-8")
    for key in left_out:
        if key != "additional_config":
            assert key in text, "%s is left out without a word" % key


@pytest.mark.parametrize("name, platform", [pair for pair in PAIRS if pair[0].startswith("gemma-4")])
def test_gemma_4_has_exactly_the_words_of_its_delivery(name, platform):
    words = shlex.split(SOURCES[name])
    mine = planned(name, platform)["arguments"]
    for ours in ("--port", "--shutdown-timeout"):
        del mine[mine.index(ours):mine.index(ours) + 2]
    assert mine == words[words.index("serve") + 1:]
