# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builders of hosts with nothing wrong: survey, plan and context as docs/architecture.md describes them."""

from __future__ import annotations

import copy
import io
import os

import yaml

GB = 10 ** 9
GIB = 1024 ** 3
NOW = 1790000000.0
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))
IMAGE = "registry.example.net:5000/ascend/vllm-ascend:v0.18.0rc1-0123456789ab-arm64"
DIGEST = "sha256:" + "a" * 64
COMMON = ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]


def read_catalogue(*path):
    with io.open(os.path.join(ROOT, "catalogue", *path), encoding="utf-8") as stream:
        return yaml.safe_load(stream)


COMPATIBILITY = read_catalogue("compatibility.yml")
PLATFORMS = dict((name, read_catalogue("platforms", name + ".yml")) for name in ("a2", "a3", "310p"))


def gemma4(layers, sliding, heads, kv_heads, full_kv_heads, context, window=1024):
    """config.json of a Gemma 4 with the numbers that the cache depends on."""
    return {"model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "text_config": {
        "model_type": "gemma4_text", "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "num_global_key_value_heads": full_kv_heads, "head_dim": 256, "global_head_dim": 512, "sliding_window": window, "hidden_size": 5376,
        "layer_types": ["sliding_attention"] * sliding + ["full_attention"] * (layers - sliding), "max_position_embeddings": context}}


CONFIGS = {
    "gemma-4-E2B-it": gemma4(35, 28, 8, 1, 1, 131072, 512),
    "gemma-4-E4B-it": gemma4(42, 35, 8, 2, 2, 131072, 512),
    "gemma-4-26B-A4B-it": gemma4(30, 25, 16, 8, 2, 262144),
    "gemma-4-31B-it": gemma4(60, 50, 32, 16, 4, 262144),
    "gemma-3-270m-it": {"model_type": "gemma3_text", "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
                        "head_dim": 256,
                        "hidden_size": 640, "sliding_window": 512, "_sliding_window_pattern": 6, "max_position_embeddings": 32768},
    "Qwen3-32B": {"model_type": "qwen3", "num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
                  "hidden_size": 5120, "max_position_embeddings": 40960, "use_sliding_window": False, "sliding_window": None},
    "DeepSeek-R1-W8A8": {"model_type": "deepseek_v3", "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
                         "kv_lora_rank": 512, "qk_rope_head_dim": 64, "hidden_size": 7168, "max_position_embeddings": 163840},
}
SIZES_GB = {"gemma-4-E2B-it": 10.2, "gemma-4-E4B-it": 16, "gemma-4-26B-A4B-it": 51.6, "gemma-4-31B-it": 62.6, "gemma-3-270m-it": 0.54,
            "Qwen3-32B": 65.5, "DeepSeek-R1-W8A8": 680}

FAMILIES = {
    "a2": {"family": "910b", "name": "910B3", "npus": 8, "chips_per_npu": 1, "total": 65536, "idle": 3430, "suffix": ""},
    "a3": {"family": "910c", "name": "Ascend910", "npus": 8, "chips_per_npu": 2, "total": 65536, "idle": 3430, "suffix": "-a3"},
    "310p": {"family": "310p", "name": "310P3", "npus": 4, "chips_per_npu": 2, "total": 43693, "idle": 1836, "suffix": "-310p"},
}


def chips(platform="a2"):
    """The chips of a healthy idle host."""
    kind, found = FAMILIES[platform], []
    for npu in range(kind["npus"]):
        for chip in range(kind["chips_per_npu"]):
            index = len(found)
            found.append({
                "index": index, "npu_id": npu, "chip_id": chip, "phy_id": index if platform == "a3" else None, "name": kind["name"],
                "health": "OK", "bus_id": "0000:%02X:00.0" % (0x80 + npu), "hbm_used_mib": kind["idle"], "hbm_total_mib": kind["total"],
                "device": "/dev/davinci%d" % index, "device_present": True, "processes": [], "holders": []})
    return found


def instance(name, model, devices, port, platform="a2", hccl=None, **changes):
    """One instance of a plan on the given davinci numbers."""
    options = {"tensor-parallel-size": len(devices)}
    environment = {"HCCL_OP_EXPANSION_MODE": "AIV"}
    if platform == "310p":
        options.update({"dtype": "float16", "enforce-eager": True, "max-model-len": 16384})
    if model == "gemma-4-26B-A4B-it":
        options["enable-expert-parallel"] = True
        environment["HCCL_BUFFSIZE"] = "256"
    if hccl is not None:
        environment["HCCL_IF_BASE_PORT"] = str(hccl)
    sources = ["/usr/local/dcmi", "/usr/local/bin/npu-smi", "/usr/local/Ascend/driver/lib64", "/usr/local/Ascend/driver/version.info",
               "/etc/ascend_install.info", "/models/" + model]
    config = CONFIGS[model].get("text_config", CONFIGS[model])
    made = {
        "name": name, "model": model, "served_model_name": model, "unit": "vllm-ascend-%s.service" % name,
        "container": "vllm-ascend-" + name,
        "device_count": len(devices), "explicit_devices": None, "devices": ["/dev/davinci%d" % n for n in devices], "chips": list(devices),
        "common_devices": list(COMMON), "port": port, "tensor_parallel_size": len(devices), "image": IMAGE,
        "image_reference": "%s@%s" % (IMAGE.rsplit(":", 1)[0], DIGEST),
        "patch_set": {"name": "gemma4-v0.18.0rc1", "id": "0123456789ab"} if model.startswith("gemma-4") else None,
        "weights": {"path": "/models/" + model, "size_gb": SIZES_GB[model]},
        "max_model_len": options.get("max-model-len") or config["max_position_embeddings"], "environment": environment, "options": options,
        "mounts": [{"source": source, "target": source, "read_only": True} for source in sources], "shm_size": "10g",
    }
    made.update(changes)
    return made


def gemma_instances(platform="a2"):
    """The four models of the Gemma 4 delivery; they fill the eight NPUs of an A2."""
    return [
        instance("gemma-4-e2b-it", "gemma-4-E2B-it", [0], 8000, platform),
        instance("gemma-4-e4b-it", "gemma-4-E4B-it", [1], 8001, platform),
        instance("gemma-4-26b-a4b-it", "gemma-4-26B-A4B-it", [2, 3], 8002, platform, hccl=60000),
        instance("gemma-4-31b-it", "gemma-4-31B-it", [4, 5, 6, 7], 8003, platform, hccl=60032),
    ]


def survey(platform="a2", instances=()):
    """What npu_info returns of a host on which everything is as it should be and nothing of ours runs yet."""
    kind, found = FAMILIES[platform], chips(platform)
    paths = dict((mount["source"], {"exists": True, "kind": "file" if mount["source"].endswith((".info", "npu-smi")) else "directory",
                                    "size_bytes": 4096, "mode": "0755", "free_bytes": 200 * GIB, "free_inodes": 10 ** 7})
                 for one in instances for mount in one["mounts"] if not mount["source"].startswith("/models"))
    paths["/var/lib/docker"] = {"exists": True, "kind": "directory", "size_bytes": 4096, "mode": "0711", "free_bytes": 200 * GIB,
                                "free_inodes": 10 ** 7}
    return {
        "schema": 1, "elapsed_s": 0.21,
        "host": {"hostname": "node", "architecture": "aarch64", "kernel": "5.10.0-182.0.0.95.oe2203sp3.aarch64", "boot_id": "b",
                 "python": "3.9.9",
                 "epoch_s": NOW + 0.5, "os": {"id": "openEuler", "version_id": "22.03", "pretty_name": "openEuler 22.03 (LTS-SP3)"},
                 "cpu_count": 192,
                 "memory_total_mib": 1546000, "memory_available_mib": 1500000, "systemd": {"state": "running", "version": "249"},
                 "selinux": "disabled",
                 "proxies": {}, "limits": {"nofile_soft": 1024, "nofile_hard": 524288, "pid_max": 4194304, "threads_max": 6000000}},
        "npu_smi": {"path": "/usr/local/bin/npu-smi", "rc": 0, "timed_out": False, "elapsed_s": 0.1,
                    "info": {"npu_smi_version": "25.5.0", "driver_version": "25.5.0", "chips": [{"npu_id": c["npu_id"]} for c in found],
                             "processes": [], "process_table": True, "idle_npus": list(range(kind["npus"]))}},
        "family": kind["family"], "chips": found,
        "driver": {"version": "25.5.0", "path": "/usr/local/Ascend/driver/version.info", "install_path": "/usr/local/Ascend",
                   "compatible_firmware": [["7.0.0", "8.9.9"]], "error": None},
        "firmware": {"version": "7.8.0.5.216", "package_version": "25.5.0", "compatible_driver": [["23.0", "25.5"]], "error": None},
        "install_info": {"Driver_Install_Path_Param": "/usr/local/Ascend"},
        "devices": [chip["device"] for chip in found] + COMMON,
        "device_nodes": dict((path, {"mode": "0660", "uid": 1000, "gid": 1000, "character": True})
                             for path in [chip["device"] for chip in found] + COMMON),
        "engine": {"name": "docker", "path": "/usr/bin/docker", "version": "20.10.24+dfsg1", "api_version": "1.41",
                   "data_root": "/var/lib/docker",
                   "cgroup_driver": "systemd", "containerd_version": "1.6.20~ds1", "security_options": ["name=seccomp,profile=default"],
                   "error": None},
        "images": [], "containers": [], "device_plugins": [], "instances": {},
        "ports": dict((str(one["port"]), {"free": True, "error": None, "listener": None}) for one in instances),
        "paths": paths,
        "weights": dict((one["weights"]["path"], {
            "exists": True, "missing_files": [], "small_files": [],
            "quantization_description": one["options"].get("quantization") == "ascend",
            "config": copy.deepcopy(CONFIGS[one["model"]]), "error": None,
            "size_bytes": int(SIZES_GB[one["model"]] * GB) + 10 ** 7,
            "index_total_size": int(SIZES_GB[one["model"]] * GB)}) for one in instances),
        "errors": [],
    }


def context(platform="a2", instances=None):
    """One host as the gate gets it, with nothing wrong."""
    if instances is None:
        instances = [instance("qwen3-32b", "Qwen3-32B", [0, 1, 2, 3], 8000, platform)] if platform == "310p" else gemma_instances(platform)
    plan = {"platform": platform, "architecture": "aarch64", "engine": "docker", "engine_path": "/usr/bin/docker",
            "state_directory": "/var/lib/vllm-ascend-fleet", "notes": [], "conflict": None, "instances": instances}
    images = {IMAGE: {"origin": "quay.io/ascend/vllm-ascend:v0.18.0rc1" + FAMILIES[platform]["suffix"], "architecture": "arm64",
                      "platform": platform,
                      "digest": DIGEST, "cann": "8.5.1", "target": IMAGE, "target_digest": DIGEST}}
    return {"survey": survey(platform, instances), "host_plan": plan, "images": images, "platform": PLATFORMS[platform],
            "compatibility": COMPATIBILITY, "now_epoch_s": NOW, "settings": {}}


def changed(base, *changes):
    """A copy of a context with values replaced.

    :param changes: (dotted path, value) pairs; a part of a path that is a number counts in a list, and "~" stands for a dot in a key.
    """
    made = copy.deepcopy(base)
    for path, value in changes:
        parts = [part.replace("~", ".") for part in path.split(".")]
        place = made
        for part in parts[:-1]:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(parts[-1])] = value
        else:
            place[parts[-1]] = value
    return made
