# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Known causes of failing engines, found by the texts that they leave. Pure."""

from __future__ import annotations

import re

# (row, pattern, cause, remedy); the first match wins, so the special stand before the general.
# The key is stable, so that reports can be counted by it. Texts were collected from public threads of vllm-ascend and vLLM.
CAUSES = tuple((row, re.compile(pattern, re.I), text, remedy) for row, pattern, text, remedy in (
    ("patch", r"invalid (?:tool call|reasoning) parser: (?:gemma4)",
     "the image is not patched for Gemma 4", "deploy with the patch set gemma4; the playbook deploy_gemma4 builds the image"),
    ("parser", r"invalid (?:tool call|reasoning) parser",
     "this image knows no such parser", "name one of the parsers that the message lists"),
    ("14", r"does not recognize this architecture|is required for a normal functioning of this module, but found",
     "transformers is too old for the model, or huggingface-hub was not moved along with it",
     "put transformers with its closed set of pins into the patch set"),
    ("23", r"Model architectures? \[.*\] (?:are|is) not supported|failed to be inspected",
     "this image does not know the model's architecture", "use an image or a patch set that supports it"),
    ("5", r"device type: .* does not match the installed version|Can not support soc_version|"
     r"socversion .* does not match|Cannot find option named 'Ascend",
     "the image was built for another chip", "use the image variant of this chip: none for A2, -a3 for A3, -310p for 300I"),
    ("5", r"exec format error|does not match the detected host platform",
     "the image is for another processor architecture", "pull the image for this host's architecture"),
    ("20", r"DT_BFLOAT16 not supported|bfloat16 is (?:not|only) supported",
     "this chip has no bfloat16", "set the argument dtype: float16"),
    ("18", r"HcclGetRootInfo.*error code is 19|ra init failed, return\[19\]",
     "the process may not open the NPU devices", "run as root with CAP_DAC_OVERRIDE, or as a user of group 1000 that has a passwd entry"),
    ("4", r"ret(?: is|:)? -?8005|ret(?:urned)? -?8020|507008|Free memory on device .* is less than desired",
     "the NPU already belongs to another container or process",
     "npu-smi info shows the processes; free the NPU or give the instance other devices"),
    ("1", r"NPU out of memory|Available KV cache memory: -|"
     r"No available memory for the cache blocks|To serve at least one request with the models?(?:'s)? max",
     "weights and context do not fit into the memory of the NPUs", "set max-model-len lower, or use more NPUs"),
    ("2", r"207005|207008|EL0009|"
     r"Alloc sq cq fail|resource alloc fail|rtStreamWaitEvent|Failed to apply for memory\. Check the remaining storage",
     "graph capture ran out of streams; disk space is not the reason",
     "use cudagraph_mode FULL_DECODE_ONLY with few capture sizes, or HDK 25.5.1 or later"),
    ("15", r"Set visible device failed|get device count failed|input data rang|visible devices \(\d+\)",
     "ASCEND_RT_VISIBLE_DEVICES does not fit the devices of the container", "count it from 0 up to the number of devices minus one"),
    ("6", r"507033|E30006|GEInitialize failed",
     "driver or firmware does not fit the CANN of the image", "update the driver: HDK 25.0 to 25.5 for CANN 8.5"),
    ("3", r"EI0006|Getting socket times? ?out|EJ0002|EI0009|EI0002",
     "the NPUs do not reach each other in time",
     "check link, addresses and TLS switch of all NPUs with hccn_tool; raise HCCL_CONNECT_TIMEOUT for large weights"),
    ("7", r"EJ0003|EI0019|Failed to bind the IP port|specific port\[\d+\] fail",
     "two jobs use the same HCCL ports", "give each instance its own HCCL_IF_BASE_PORT"),
    ("11", r"HCCL_?\s?BUFFSIZE is too small|DDR address of the MTE instruction is out of range",
     "HCCL_BUFFSIZE is too small for the expert traffic", "raise HCCL_BUFFSIZE: 256 for 26B-A4B, 1024 for the DeepSeek class"),
    ("8", r"lib(?:hccl|atb|ascend_hal|ascendcl)\S*: cannot open shared object|Failed to infer device type",
     "driver libraries are not in the container", "check that the driver's lib64 is mounted and the image's entry point is used"),
    ("9", r"KeyError: '(?:model|language_model)\.|There is no available ascend quantizer|Could not locate the \w+\.py",
     "the weights folder is incomplete, or its quantisation does not fit the arguments",
     "check the folder against its index; quantised weights need quantization: ascend"),
    ("28", r"huggingface\.co|modelscope\.cn|Repo id must be|LocalEntryNotFoundError|OfflineModeIsEnabled",
     "the weights are not where the arguments say, so the hub was asked", "put the weights on the host at the path of the plan"),
    ("12", r"Timed out waiting for engine core processes",
     "loading takes longer than the engine waits", "set VLLM_ENGINE_READY_TIMEOUT_S higher; measure the disk"),
    ("21", r"No available shared memory broadcast block",
     "/dev/shm of the container is too small, or a worker hangs", "raise shm_size"),
    ("19", r"pthread_create failed|can't start new thread",
     "the container engine filters a system call of newer images",
     "update to Docker 20.10.10 and containerd 1.6 or later; do not answer with --privileged"),
    ("17", r"aclOpExecutor|triton.*(?:compil|cache).*(?:error|fail)",
     "a stale Triton cache, or a compiler that does not fit", "clear ~/.triton of the instance"),
    ("26", r"(?:attention heads|num_heads).*(?:divisible|divided)",
     "the tensor parallel size does not divide the attention heads", "choose one that does"),
    ("29", r"Can not get running npu info",
     "CPU binding needs npu-smi in the container", "mount npu-smi"),
    ("25", r"error running prestart hook|failed to mount src",
     "Ascend Docker Runtime interferes with explicit devices", "set the engine's default runtime to runc"),
    ("mount", r"bind source path does not exist|statfs .*: no such file or directory",
     "a folder or file that the container needs is missing on the host",
     "see which path the message names; install the driver or copy the weights"),
    ("device", r"error gathering device information.*no such file|stat /dev/davinci\d+: no such file",
     "a device of the instance is missing on the host", "npu-smi info; ls /dev/davinci*"),
    ("image", r"No such image|image not known|Unable to find image",
     "the image is not on this host any more", "deploy again; it brings the image before it starts anything"),
    ("name", r"exists that is not ours|is already in use by container",
     "a container of somebody else has the instance's name", "rename or remove that container"),
    ("arguments", r"error: unrecognized arguments|error: argument |vllm serve: error",
     "vLLM does not accept an argument", "correct the arguments of the instance"),
    ("port", r"Address already in use|address already in use",
     "the port is taken", "ss -ltnp shows by whom; stop it or choose another port"),
    ("oom", r"OOMKilled|Out of memory: Killed|oom-kill|status=137|code=killed, status=9",
     "the process was killed, most likely for lack of host memory", "check the host's memory: dmesg | grep -i oom"),
    ("16", r"EngineDeadError|EngineCore encountered (?:a fatal|an issue)|died unexpectedly",
     "the engine process died while serving", "look further up in the journal for its last error"),
    ("core", r"Engine core initialization failed",
     "the engine did not come up", "look further up in the journal for the first error"),
))


def match(text):
    """The most telling known cause in a text: {"text", "remedy", "row"} or None."""
    for row, pattern, cause, remedy in CAUSES:
        if pattern.search(text):
            return {"text": cause, "remedy": remedy, "row": row}
    return None
