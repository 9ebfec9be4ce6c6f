# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing broken at a time: exactly the right rule speaks, with the right remedy, and nothing else does."""

from __future__ import annotations

import copy

import pytest
import surveys

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate

A2 = surveys.context("a2")
A3 = surveys.context("a3")
DUO = surveys.context("310p")
NAMES = dict((one["name"], index) for index, one in enumerate(A2["host_plan"]["instances"]))
E2B, MOE, DENSE = "gemma-4-e2b-it", "gemma-4-26b-a4b-it", "gemma-4-31b-it"
E2B_UNIT = "vllm-ascend-gemma-4-e2b-it.service"


def at(name, path):
    """The path of an instance's value in the plan of A2."""
    return "host_plan.instances.%d.%s" % (NAMES[name], path)


def container(name, image="busybox", labels=None, devices=()):
    return {"id": "c" * 12, "name": name, "state": "running", "pid": 77, "image": image, "labels": labels or {}, "devices": list(devices)}


def blocking(context):
    result = gate.judge({"h": context})
    return result, [f for f in result["findings"] if f["status"] in ("fail", "unknown")]


def smi(**info):
    return [("survey.npu_smi.info", info), ("survey.npu_smi.rc", 1), ("survey.chips", []), ("survey.family", None)]


KEY = "images.%s." % surveys.IMAGE.replace(".", "~")
LOCAL = {"id": "sha256:1", "digests": ["registry.example.net:5000/ascend/vllm-ascend@" + surveys.DIGEST], "tags": [surveys.IMAGE],
         "labels": {},
         "architecture": "arm64", "soc_version": "ascend910b1"}
OURS = {"vllm-ascend-fleet.instance": E2B, "vllm-ascend-fleet.release": "0"}
TAKEN = {"free": False, "error": "Address already in use",
         "listener": {"pid": 4242, "command": "python3 -m http.server 8000", "instance": None}}
BIG_EXPLICIT = [(at(E2B, "options.max-model-len"), 262144000), (at(E2B, "max_model_len"), 262144000)]
TEXT = "survey.weights./models/gemma-4-31B-it.config.text_config."


GROUP = {"name": DENSE, "id": "0", "members": ["h", "b"], "role": "head", "rank": 0, "address": "192.0.2.1", "interface": "eth0"}
NETWORK = {"interfaces": {"eth0": "192.0.2.1"}, "default": "eth0"}


def links(*changes):
    """The network of a deep survey with everything in order but these (number, question, status)."""
    network = dict((str(n), {"link": {"status": "UP"}, "net_health": {"status": "Success"}, "ip": {"status": "10.0.0.%d" % n}, "tls": {"status": "0"}})
                   for n in range(8))
    for number, question, status in changes:
        network[number][question] = {"status": status}
    pings = dict((str(n), dict(("10.0.1.%d" % m, "3 of 3") for m in range(4, 8))) for n in range(4, 8))
    return [("survey.deep", {"network": network, "pings": pings})]


# id: (base, changes, rule, status, instance, piece of found, piece of remedy)
def peer():
    """The second host of a group, as the first one sees it."""
    other = surveys.changed(A2, (at(DENSE, "group"), dict(GROUP, role="member", rank=1)), *links(*[(str(n), "ip", "10.0.1.%d" % n) for n in range(8)]))
    return {"b": {"survey": other["survey"], "host_plan": other["host_plan"]}}


def grouped(*changes):
    """A2 whose largest instance spans two hosts, with everything in order but these changes."""
    made = surveys.changed(A2, (at(DENSE, "group"), dict(GROUP)), ("peers", peer()), ("survey.network", dict(NETWORK)), *links())
    return surveys.changed(made, *changes)


BROKEN = {
    "unreachable": (A2, [("survey", {"unreachable": True, "error": "ssh: Connection refused"})], "host.reachable", "fail", None, "refused",
                    "ansible h"),
    "no survey": (A2, [("survey", None)], "host.reachable", "unknown", None, "no survey", "preflight"),
    "old python": (A2, [("survey.host.python", "3.6.8")], "host.python", "fail", None, "3.6.8", "ansible_python_interpreter"),
    "no python": (A2, [("survey.host.python", None)], "host.python", "unknown", None, "could not read host.python", "npu_info"),
    "clock ahead": (A2, [("survey.host.epoch_s", surveys.NOW + 60)], "host.clock", "fail", None, "+60", "chronyc"),
    "clock behind": (A2, [("survey.host.epoch_s", surveys.NOW - 3600)], "host.clock", "fail", None, "-3600", "chronyc"),
    "no systemd": (A2, [("survey.host.systemd.state", "offline")], "host.systemd", "fail", None, "offline", "systemctl"),
    "booting": (A2, [("survey.host.systemd.state", "starting")], "host.systemd", "unknown", None, "starting", "--wait"),
    "old systemd": (A2, [("survey.host.systemd.version", "219")], "host.systemd", "fail", None, "219", "230"),
    "edited unit": (A2, [("survey.instances", {E2B: {"release": "0" * 12, "sha256": {E2B_UNIT: "a"}, "unit": {"unit_sha256": "b"}}})],
                    "instance.files_unchanged", "fail", E2B, "was edited", "/instances/gemma-4-e2b-it/current/vllm-ascend-gemma-4-e2b-it.service"),
    "edited release": (A2, [("survey.instances", {E2B: {"release": "0" * 12, "whole": False, "unit": None}})],
                       "instance.files_unchanged", "fail", E2B, "the files of release 000000000000 were edited", "fleet_waivers"),
    "masked": (A2, [("survey.instances", {E2B: {"unit": {"unit_file_state": "masked", "load_state": "masked"}}})],
               "host.unit_masked", "fail", E2B, "masked", "systemctl unmask vllm-ascend-gemma-4-e2b-it.service"),
    "riscv": (A2, [("survey.host.architecture", "riscv64"), ("host_plan.architecture", "riscv64")], "host.architecture", "fail", None,
              "riscv64", "inventory"),
    "few pids": (A2, [("survey.host.limits.pid_max", 4096)], "host.limits", "fail", None, "pid_max 4096", "sysctl -w kernel.pid_max=32768"),
    "few threads": (A2, [("survey.host.limits.threads_max", 9000)], "host.limits", "fail", None, "9000", "kernel.threads-max=32768"),
    "image of another chip": (A2, [("survey.images", [dict(LOCAL, soc_version="ascend910_9391")])], "image.variant", "fail", None,
                              "ascend910_9391", "docker image rm"),
    "image of another machine": (A2, [("survey.images", [dict(LOCAL, architecture="amd64")])], "image.variant", "fail", None, "amd64",
                                 "arm64"),
    "tag without a family": (A2, [(KEY + "origin", "registry.example.net/team/llm:7")], "image.variant", "unknown", None, "does not tell",
                             "SOC_VERSION"),
    "no engine": (A2, [("survey.engine", {"name": None, "error": None})], "engine.present", "fail", None, "no container engine",
                  "install docker"),
    "docker down": (A2, [("survey.engine.error", "Cannot connect to the Docker daemon")], "engine.present", "fail", None, "Cannot connect",
                    "systemctl enable --now docker"),
    "other engine": (A2, [("host_plan.engine", "podman")], "engine.present", "fail", None, "docker", "fleet_container_engine: docker"),
    "old docker": (A2, [("survey.engine.version", "18.09.0.332")], "engine.version", "fail", None, "18.09", "upgrade docker"),
    "docker 20.10.9": (A2, [("survey.engine.version", "20.10.9")], "engine.version", "fail", None, "20.10.9", "upgrade docker"),
    "full data root": (A2, [("survey.paths./var/lib/docker.free_bytes", 9 * surveys.GIB)], "engine.storage", "fail", None, "9.0 GiB",
                       "docker system df"),
    "no inodes": (A2, [("survey.paths./var/lib/docker.free_inodes", 12)], "engine.storage", "fail", None, "12 inodes", "df -i"),
    "data root unseen": (A2, [("survey.paths./var/lib/docker", None)], "engine.storage", "unknown", None, "not known", "df -h"),
    "foreign name": (A2, [("survey.containers", [container("vllm-ascend-" + E2B)])], "engine.container_name", "fail", E2B, "not ours",
                     "rename"),
    "gpustack": (A2, [("survey.containers", [container("worker", "gpustack/gpustack:v2")])], "host.foreign_manager", "fail", None,
                 "GPUStack (container worker)", "stop it"),
    "device plugin": (A2, [("survey.containers", [container("k8s_x", "swr/ascend-k8sdeviceplugin:v6")])], "host.foreign_manager", "fail",
                      None, "Kubernetes", "inventory"),
    "device plugin socket": (A2, [("survey.device_plugins", ["/var/lib/kubelet/device-plugins/Ascend910.sock"])], "host.foreign_manager",
                             "fail", None, "Ascend910.sock", "inventory"),
    "selinux": (A2, [("survey.host.selinux", "enforcing"), ("survey.engine.security_options", ["name=selinux"])], "host.selinux",
                "unknown", None, "enforcing", "chcon -R -t container_file_t /models/gemma"),
    "proxy": (A2, [("survey.host.proxies", {"http_proxy": "http://proxy:3128", "no_proxy": "localhost,.lan"})], "host.proxies", "fail",
              None, "no_proxy lacks 127.0.0.1", "no_proxy=localhost,.lan,127.0.0.1"),
    "old containerd": (A2, [("survey.engine.containerd_version", "1.5.9")], "engine.version", "fail", None, "containerd 1.5.9",
                       "upgrade containerd"),
    "read-only root": (A2, [("survey.paths./var/lib/docker.read_only", True)], "engine.storage", "fail", None, "read-only", "remount"),
    "not executable": (A2, smi(error=True, kind="permission-denied", reason="/x/npu-smi: not executable", chips=[]), "npu.smi", "fail",
                       None, "not executable", "chmod 0755"),
    "device mode": (A2, [("survey.device_nodes./dev/davinci0.mode", "0060")], "npu.device_node", "fail", E2B, "/dev/davinci0 (mode 0060)",
                    "HwHiAiUser"),
    "a file for a device": (A2, [("survey.device_nodes./dev/davinci0.character", False)], "npu.device_node", "fail", E2B,
                            "no character device", "reboot"),
    "shard missing": (A2, [("survey.weights./models/gemma-4-31B-it.missing_files", ["model-00002-of-00002.safetensors"])],
                      "instance.weights", "fail", DENSE, "model-00002-of-00002.safetensors", "download"),
    "pointer": (A2, [("survey.weights./models/gemma-4-31B-it.small_files", ["model-00001-of-00002.safetensors"])], "instance.weights",
                "fail", DENSE, "a few bytes long", "download"),
    "quantised unasked": (A2, [("survey.weights./models/gemma-4-31B-it.quantization_description", True)], "instance.quantization", "fail",
                          DENSE, "quant_model_description.json", "quantization: ascend"),
    "quantised in name": (A2, [(at(DENSE, "options.quantization"), "ascend")], "instance.quantization", "fail", DENSE, "no quant_model",
                          "ModelSlim"),
    "no npu-smi": (A2, smi() + [("survey.npu_smi.path", None)], "npu.smi", "fail", None, "not installed", "driver"),
    "hung": (A2, smi() + [("survey.npu_smi.timed_out", True)], "npu.smi", "unknown", None, "did not answer", "timeout 60"),
    "-8020": (A2, smi(error=True, kind="device-occupied", ret=-8020, chips=[]), "npu.smi", "fail", None, "-8020", "namespace_node"),
    "-8005": (A2, smi(error=True, kind="dcmi-init-failed", ret=-8005, chips=[]), "npu.smi", "fail", None, "-8005", "reboot"),
    "no library": (A2, smi(error=True, kind="library-missing", chips=[]), "npu.smi", "fail", None, "library-missing", "ldconfig"),
    "garbage": (A2, smi(error=True, kind="unrecognized", excerpt="??##", chips=[]), "npu.smi", "unknown", None, "??##", "dmesg"),
    "half a table": (A2, smi(error=True, kind="truncated", reason="ends in a row", chips=[]), "npu.smi", "unknown", None, "ends in a row",
                     "npu-smi info"),
    "no chips": (A2, smi(chips=[]), "npu.smi", "unknown", None, "no chip", "lspci"),
    "odd exit": (A2, [("survey.npu_smi.rc", 215)], "npu.smi", "unknown", None, "215", "echo $?"),
    "row dropped": (A2, [("survey.npu_smi.info.incomplete", ["NPU 3: no first row"])], "npu.smi", "unknown", None, "NPU 3", "npu-smi"),
    "310B": (A2, [("survey.family", "310b")], "npu.family_supported", "fail", None, "310B", "inventory"),
    "910A": (A2, [("survey.family", "910")], "npu.family_supported", "fail", None, "first-generation", "inventory"),
    "unknown family": (A2, [("survey.family", None)], "npu.family_supported", "unknown", None, "unknown family", "npu-smi info -t board"),
    "A3 named A2": (A3, [("host_plan.platform", "a2")], "npu.family_supported", "fail", None, "Atlas A3", "fleet_platform: a3"),
    "chip gone": (A2, [("survey.chips", A2["survey"]["chips"][:7])], "npu.chips_present", "fail", DENSE, "7 of 8 chips; /dev/davinci7",
                  "lspci"),
    "alarm": (A2, [("survey.chips.3.health", "Alarm")], "npu.chip_healthy", "fail", MOE, "NPU 3 chip 0 (/dev/davinci3) health Alarm",
              "-t health -i 3 -c 0"),
    "critical die": (A3, [("survey.chips.5.health", "Critical")], "npu.chip_healthy", "fail", DENSE, "NPU 2 chip 1", "-i 2 -c 1"),
    "no health": (A2, [("survey.chips.0.health", None)], "npu.chip_healthy", "unknown", E2B, "not shown", "-t health"),
    "process": (A2, [("survey.chips.0.processes", [{"pid": 4711, "name": "python3", "memory_mib": 900}])], "npu.chip_free", "fail", E2B,
                "pid 4711 (python3)", "-p 4711"),
    "held": (A2, [("survey.chips.0.holders", ["jupyter"]), ("survey.containers", [container("jupyter", devices=["/dev/davinci0"])])],
             "npu.chip_free", "fail", E2B, "container jupyter", "docker stop jupyter"),
    "held by another of ours": (A2,
                                [("survey.chips.7.holders", ["vllm-ascend-" + E2B]),
                                 ("survey.containers", [container("vllm-ascend-" + E2B, labels=OURS)])],
                                "npu.chip_free", "fail", DENSE, "vllm-ascend-" + E2B, "systemctl stop vllm-ascend-%s.service" % E2B),
    "memory held": (A2, [("survey.chips.0.hbm_used_mib", 29954)], "npu.chip_free", "fail", E2B, "29954 MiB", "namespace_node"),
    "no device file": (A2,
                       [("survey.chips.1.device_present", False),
                        ("survey.devices", [d for d in A2["survey"]["devices"] if d != "/dev/davinci1"])],
                       "npu.device_node", "fail", "gemma-4-e4b-it", "/dev/davinci1", "lsmod"),
    "reboot pending": (A2, [("survey.driver.version", "25.5.1")], "npu.reboot_pending", "fail", None,
                       "25.5.1 is installed, 25.5.0 is running", "reboot"),
    "old driver": (A2, [("survey.driver.version", "24.1.rc3"), ("survey.npu_smi.info.driver_version", "24.1.RC3")],
                   "npu.driver_version", "fail", None, "24.1.rc3 with CANN 8.5.1", "install HDK 25.5"),
    "unlisted driver": (A2, [("survey.driver.version", "26.0.rc1"), ("survey.npu_smi.info.driver_version", "26.0.rc1")],
                        "npu.driver_version", "unknown", None, "nobody published", "waive npu.driver_version"),
    "firmware": (A2, [("survey.firmware.version", "6.4.12.1.241")], "npu.firmware_compatible", "fail", None, "6.4.12",
                 "install the firmware"),
    "no firmware": (A2, [("survey.firmware.version", None), ("survey.firmware.error", "no such file")], "npu.firmware_compatible",
                    "unknown", None, "no such file", "npu_info"),
    "A2 image on A3": (A3, [(KEY + "origin", "quay.io/ascend/vllm-ascend:v0.18.0rc1-openeuler")],
                       "image.variant", "fail", None, "v0.18.0rc1-openeuler", "v0.18.0rc1-a3-openeuler"),
    "amd64 image": (A2, [(KEY + "architecture", "amd64")], "image.variant", "fail", None, "amd64",
                    "arm64"),
    "conflict": (A2, [("host_plan.conflict", {"demands": [{"name": "x"}, {"name": "y"}], "message": "x x8, y x1 want 9 of 8"})],
                 "plan.placement", "fail", None, "9 of 8", "x, y"),
    "not placed": (A2, [(at(E2B, "devices"), [])], "plan.placement", "fail", E2B, "no chip", "plan.yml"),
    "chips missing in the plan": (A2, [(at(DENSE, "devices"), ["/dev/davinci4"]), (at(DENSE, "tensor_parallel_size"), 1)], "plan.placement",
                                  "fail", DENSE, "1 of 4 chips", "plan.yml"),
    "two on one chip": (A2, [(at("gemma-4-e4b-it", "devices"), ["/dev/davinci0"])], "plan.placement", "fail", "gemma-4-e4b-it",
                        "/dev/davinci0 (also gemma-4-e2b-it)", "take devices off"),
    "two on one port": (A2, [(at(E2B, "port"), 8001)], "instance.ports_distinct", "fail", "gemma-4-e4b-it", "also gemma-4-e2b-it",
                        "another port"),
    "port taken": (A2, [("survey.ports.8000", TAKEN)], "instance.port_free", "fail", E2B, "pid 4242: python3 -m http.server", "4242"),
    "port bound in silence": (A2, [("survey.ports.8000", {"free": False, "error": None, "listener": None})], "instance.port_free", "fail",
                              E2B, "no listener seen", "ss -tanp"),
    "port not tried": (A2, [("survey.ports", dict((p, {"free": True}) for p in ("8001", "8002", "8003")))], "instance.port_free",
                       "unknown", E2B, "not tried", "ss -ltnp"),
    "one HCCL base": (A2, [(at(DENSE, "environment"), {})], "instance.hccl_ports", "fail", DENSE, "60000 .. 60031 overlap " + MOE,
                      "'60032'"),
    "HCCL base near": (A2, [(at(DENSE, "environment"), {"HCCL_IF_BASE_PORT": "60016"})], "instance.hccl_ports", "fail", DENSE, "overlap",
                       "60032"),
    "HCCL base high": (A2, [(at(DENSE, "environment"), {"HCCL_IF_BASE_PORT": "65530"})], "instance.hccl_ports", "fail", DENSE, "65530",
                       "60032"),
    "mount missing": (DUO, [("survey.paths./usr/local/dcmi.exists", False)], "instance.mounts_exist", "fail", "qwen3-32b",
                      "/usr/local/dcmi", "driver"),
    "mount hollow": (DUO, [("survey.paths./usr/local/bin/npu-smi.kind", "directory")], "instance.mounts_exist", "fail", "qwen3-32b",
                     "a directory", "rmdir"),
    "mount unseen": (DUO, [("survey.paths./usr/local/dcmi", None)], "instance.mounts_exist", "unknown", "qwen3-32b", "not looked at",
                     "ls -ld"),
    "no weights": (A2, [("survey.weights./models/gemma-4-31B-it", {"exists": False})], "instance.weights", "fail", DENSE, "does not exist",
                   "--local-dir /models/gemma-4-31B-it"),
    "short weights": (A2, [("survey.weights./models/gemma-4-31B-it.size_bytes", 31 * surveys.GB)], "instance.weights", "fail", DENSE,
                      "31.0 GB", "download"),
    "cut shard": (A2, [("survey.weights./models/gemma-4-31B-it.damaged_files", ["model-00002-of-00002.safetensors: cut off: 7 of 9 bytes"])],
                  "instance.weights", "fail", DENSE, "model-00002-of-00002.safetensors: cut off: 7 of 9 bytes", "download"),
    "no weight files": (A2, [("survey.weights./models/gemma-4-31B-it.size_bytes", 0)], "instance.weights", "fail", DENSE, "no weights",
                        "download"),
    "no config": (A2, [("survey.weights./models/gemma-4-31B-it.config", None)], "instance.weights", "fail", DENSE,
                  "no readable config.json", "download"),
    "context too long": (A2, BIG_EXPLICIT, "instance.capacity", "fail", E2B, "262144000 tokens", "set max-model-len: "),
    "model too big": (A2, [("survey.weights./models/gemma-4-E2B-it.index_total_size", 60 * surveys.GB),
                           ("survey.weights./models/gemma-4-E2B-it.size_bytes", 60 * surveys.GB)],
                      "instance.capacity", "fail", E2B, "weights 57.6 by the index", "tensor_parallel_size"),
    "default context": (A2, [("survey.weights./models/gemma-4-E2B-it.index_total_size", 52 * surveys.GB),
                             ("survey.weights./models/gemma-4-E2B-it.size_bytes", 52 * surveys.GB)],
                        "instance.context_explicit", "fail", E2B, "default of 131072", "set max-model-len: "),
    "heads": (A2, [(TEXT + "num_attention_heads", 30)], "instance.tp_divides_heads", "fail", DENSE, "30 attention heads",
              "tensor-parallel-size: "),
    "heads unknown": (A2, [(TEXT + "num_attention_heads", None)], "instance.tp_divides_heads", "unknown", DENSE, "config.json",
                      "config.json"),
    "no patch set": (A2, [(at(E2B, "patch_set"), None)], "instance.model_supported", "fail", E2B, "gemma4 with vllm-ascend 0.18.0rc1",
                     "patch_set"),
    "bf16 on 310P": (DUO, [("host_plan.instances.0.options.dtype", "bfloat16")], "instance.dtype_310p", "fail", "qwen3-32b", "bfloat16",
                     "float16"),
    "graphs on 310P": (DUO, [("host_plan.instances.0.options.enforce-eager", False)], "instance.dtype_310p", "fail", "qwen3-32b",
                       "enforce-eager", "true"),
    "small shm": (A2, [(at(E2B, "shm_size"), "64m")], "instance.shm", "fail", E2B, "64m", "10g"),
    "odd shm": (A2, [(at(E2B, "shm_size"), "much")], "instance.shm", "fail", E2B, "much", "10g"),
    "link down": (A2, links(("5", "link", "DOWN")), "links.up", "fail", DENSE, "/dev/davinci5 DOWN", "hccn_tool -i 5 -link -g"),
    "net unhealthy": (A2, links(("3", "net_health", "Receive timeout")), "links.healthy", "fail", MOE, "/dev/davinci3 Receive timeout", "-i 3 -netdetect"),
    "one address twice": (A2, links(("7", "ip", "10.0.0.6")), "links.addresses", "fail", DENSE, "/dev/davinci6 10.0.0.6, /dev/davinci7 10.0.0.6",
                          "hccn_tool -i 6 -ip -s"),
    "TLS differs": (A2, links(("6", "tls", "1")), "links.tls_same", "fail", DENSE, "/dev/davinci6 enable [1]", "hccn_tool -i 6 -tls -s enable 0"),
    "no interface": (grouped((at(DENSE, "group.interface"), None), ("survey.network.default", None)), [], "group.interface", "fail", DENSE,
                     "eth0 192.0.2.1", "fleet_address of h"),
    "no head": (grouped((at(DENSE, "group.address"), None)), [], "group.interface", "unknown", DENSE, "the head, h,", "fleet_address of h"),
    "another driver": (grouped(("peers.b.survey.driver.version", "24.1.0")), [], "group.same", "fail", DENSE, "driver 25.5.0, on b 24.1.0", "the same"),
    "other weights": (grouped(("peers.b.host_plan.instances.%d.weights.path" % NAMES[DENSE], "/data/x")), [], "group.same", "fail", DENSE,
                      "on b /data/x", "the same"),
    "peer not seen": (grouped(("peers.b.survey", {"unreachable": True, "deep": {}})), [], "group.same", "unknown", DENSE, "b was not surveyed", "--limit b"),
    "an address on both": (grouped(("peers.b.survey.deep.network.4.ip.status", "10.0.0.7")), [], "group.links", "fail", DENSE,
                           "h /dev/davinci7 and b /dev/davinci4 both have 10.0.0.7", "-ip -s"),
    "TLS on one host": (grouped(*[("peers.b.survey.deep.network.%d.tls.status" % n, "1") for n in range(8)]), [], "group.links", "fail", DENSE,
                        "enable [1] on b /dev/davinci4", "enable 0"),
    "a ping lost": (grouped(("survey.deep.pings.6", {"10.0.1.4": "3 of 3", "10.0.1.5": "1 of 3", "10.0.1.6": "3 of 3", "10.0.1.7": "3 of 3"})), [],
                    "group.links", "fail", DENSE, "packets lost: /dev/davinci6 to b /dev/davinci5 (1 of 3)", "hccn_tool -i 6 -ping"),
    "nobody pinged": (grouped(("survey.deep.pings", {})), [], "group.links", "unknown", DENSE,
                      "/dev/davinci4 to b /dev/davinci7 and 12 more", "-e deep=true"),
    "peer's links not read": (grouped(("peers.b.survey.deep", None)), [], "group.links", "unknown", DENSE, "not read: b /dev/davinci4", "--limit h,b"),
    "small buffer": (A2, [(at(MOE, "environment.HCCL_BUFFSIZE"), "200")], "instance.hccl_buffer", "fail", MOE, "200", "'256'"),
}


@pytest.mark.parametrize("platform", ["a2", "a3", "310p"])
def test_a_good_host_passes_every_rule(platform):
    result, open_findings = blocking(surveys.context(platform))
    assert open_findings == []
    assert result["hosts"] == {"h": "pass"}
    assert result["skipped"] == []


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_one_broken_thing_stops_one_rule(name):
    base, changes, rule, status, instance, found, remedy = BROKEN[name]
    result, open_findings = blocking(surveys.changed(base, *changes))
    assert set((f["rule"], f["status"], f["instance"]) for f in open_findings) == {(rule, status, instance)}
    assert found in open_findings[0]["found"]
    assert remedy in open_findings[0]["remedy"]
    assert open_findings[0]["source"] and open_findings[0]["expected"]
    assert result["hosts"]["h"] == status


@pytest.mark.parametrize("changes", [
    [], links(), links(("0", "link", "DOWN"), ("1", "tls", "1")), links(("4", "net_health", "Init")), links(("4", "ip", None), ("5", "ip", None)),
    links(("2", "link", None), ("2", "net_health", None)), [("survey.deep", {"network": {}})],
])
def test_links_that_one_host_does_not_need_are_no_fault(changes):
    assert blocking(surveys.changed(A2, *changes))[1] == []


@pytest.mark.parametrize("changes, rules", [
    ([("survey.deep", None)], {"links.up", "links.addresses", "links.tls_same"}), (links(), set()), (links(("4", "net_health", "Init")), {"links.healthy"}),
    (links(("4", "link", None)), {"links.up"}), (links(("5", "ip", None)), {"links.addresses"}), (links(("5", "tls", None)), {"links.tls_same"}),
])
def test_an_instance_over_several_hosts_needs_every_answer(changes, rules):
    found = blocking(grouped(*changes))[1]
    assert set(f["rule"] for f in found) == rules
    assert set(f["instance"] for f in found) <= {DENSE}


def test_a_group_in_order_passes_every_rule_and_a_member_needs_no_port():
    assert blocking(grouped())[1] == []
    taken = ("survey.ports.8003", {"free": False, "error": "in use", "listener": {"pid": 9, "command": "other", "instance": None}})
    assert blocking(grouped((at(DENSE, "group.role"), "member"), taken))[1] == []
    assert [f["rule"] for f in blocking(grouped(taken))[1]] == ["instance.port_free"]


@pytest.mark.parametrize("expert_parallel", [True, False])
def test_the_experts_of_a_group_are_spread_over_all_of_its_ranks(expert_parallel):
    """DeepSeek-R1 fits into two A2 hosts with its experts on all sixteen NPUs, and not with a whole copy on each four."""
    large = surveys.instance("deepseek", "DeepSeek-R1-W8A8", list(range(8)), 8000, tensor_parallel_size=4, group=dict(GROUP), max_model_len=16384, options={
        "tensor-parallel-size": 4, "data-parallel-size": 4, "data-parallel-size-local": 2, "enable-expert-parallel": expert_parallel,
        "max-model-len": 16384, "gpu-memory-utilization": 0.92, "quantization": "ascend"})
    made = dict(A2, survey=surveys.survey("a2", [large]), host_plan=dict(A2["host_plan"], instances=[large]))
    capacity = [f for f in gate.judge({"h": made})["findings"] if f["rule"] == "instance.capacity"]
    assert [f["status"] for f in capacity] == ["pass" if expert_parallel else "fail"], capacity


def test_chips_without_ports_are_not_asked_for_links():
    assert blocking(surveys.changed(DUO, ("survey.deep", {"network": {"0": {"link": {"status": "DOWN"}}}})))[1] == []


@pytest.mark.parametrize("path,value", [
    ("survey.host.systemd.version", "230"), ("survey.host.python", "3.7.0"), ("survey.engine.version", "20.10.10"),
    ("survey.host.epoch_s", surveys.NOW + 5.2),
    ("survey.host.systemd.state", "degraded"), ("survey.paths./var/lib/docker.free_bytes", 40 * surveys.GIB),
    ("survey.host.limits.pid_max", 32768),
    ("survey.paths./var/lib/docker.free_inodes", None), ("survey.engine.containerd_version", None),
    ("survey.host.proxies", {"http_proxy": "http://p", "no_proxy": "127.0.0.1, localhost"}),
    ("survey.host.proxies", {"http_proxy": "http://p", "no_proxy": "*"}), ("survey.host.selinux", "enforcing"), (at(E2B, "shm_size"), "1g"),
    ("survey.containers", [container("ctrlnoded-shamir")]), ("survey.containers", [dict(container("gpustack"), state="exited")]),
])
def test_what_is_just_good_enough_passes(path, value):
    assert blocking(surveys.changed(A2, (path, value)))[1] == []


def test_every_rule_can_fail():
    assert set(rule for _b, _c, rule, _s, _i, _f, _r in BROKEN.values()) == set(gate.RULES)


def running(name, devices, port):
    """A2 with one instance of ours that serves already."""
    return surveys.changed(
        A2, ("survey.containers", [container("vllm-ascend-" + name, labels={"vllm-ascend-fleet.instance": name}, devices=devices)]),
        ("survey.ports.%d" % port, {"free": False, "error": None, "listener": {"pid": 9, "command": "vllm", "instance": name}}),
        *[change for n in devices for change in (
            ("survey.chips.%s.holders" % n[-1], ["vllm-ascend-" + name]), ("survey.chips.%s.hbm_used_mib" % n[-1], 60156),
            ("survey.chips.%s.processes" % n[-1], [{"pid": 9, "name": "VLLMEngineCor", "memory_mib": 56630}]))])


def test_our_own_running_instance_is_no_fault():
    assert blocking(running(DENSE, ["/dev/davinci%d" % n for n in range(4, 8)], 8003))[1] == []


def test_another_container_on_a_chip_of_ours_is_foreign():
    made = surveys.changed(running(DENSE, ["/dev/davinci%d" % n for n in range(4, 8)], 8003), (
        "survey.chips.7.processes", [{"pid": 5, "name": "python3", "memory_mib": 9, "container": "privileged-one"}]))
    assert [(f["rule"], f["instance"]) for f in blocking(made)[1]] == [("npu.chip_free", DENSE)]


def test_a_loading_instance_holds_its_port_before_it_listens():
    made = surveys.changed(A2, ("survey.ports.8000", {"free": False, "error": None, "listener": None}),
                           ("survey.instances", {E2B: {"unit": {"active_state": "active", "load_state": "loaded"}}}))
    assert blocking(made)[1] == []


def test_a_sick_chip_that_is_not_planned_is_only_a_note():
    made = surveys.changed(A3, ("survey.chips.15.health", "Critical"))
    result, open_findings = blocking(made)
    assert open_findings == []
    assert any("NPU 7 chip 1 Critical" in f["found"] for f in result["findings"])


def test_present_images_need_no_room():
    made = surveys.changed(A2, ("survey.paths./var/lib/docker.free_bytes", 9 * surveys.GIB),
                           ("survey.images", [{"id": "i", "digests": ["mirror.example.net/x@" + surveys.DIGEST]}]))
    assert blocking(made)[1] == []


def test_without_an_index_the_catalogue_tells_the_size():
    made = surveys.changed(A2, ("survey.weights./models/gemma-4-31B-it.index_total_size", None),
                           ("survey.weights./models/gemma-4-31B-it.size_bytes", 4096))
    result, open_findings = blocking(made)
    assert open_findings == []
    assert [f for f in result["findings"] if f["rule"] == "instance.capacity" and "by the catalogue, no index found" in f["found"]]


def test_an_image_of_our_own_is_judged_by_what_it_holds():
    made = surveys.changed(A2, (KEY + "origin", "registry.example.net/team/llm:7"), ("survey.images", [LOCAL]))
    assert blocking(made)[1] == []


def test_without_the_drivers_range_the_firmware_tells():
    silent = [("survey.driver.compatible_firmware", [])]
    assert blocking(surveys.changed(A2, *silent))[1] == []
    older = surveys.changed(A2, *(silent + [("survey.firmware.compatible_driver", [["23.0", "24.1"]])]))
    assert [(f["rule"], f["status"]) for f in blocking(older)[1]] == [("npu.firmware_compatible", "fail")]


def test_an_older_driver_of_the_range_gets_a_recommendation():
    result = gate.judge({"h": surveys.changed(A2, ("survey.driver.version", "25.0.rc1.1"),
                                              ("survey.npu_smi.info.driver_version", "25.0.RC1.1"))})
    assert result["hosts"] == {"h": "pass"}
    assert any("HDK 25.5 is recommended" in f["found"] for f in result["findings"])
    assert not any("recommended" in f["found"] for f in gate.judge({"h": A2})["findings"])


def test_ephemeral_hccl_ports_are_a_note():
    made = surveys.changed(A2, ("survey.host.port_range", [32768, 60999]), ("survey.host.reserved_ports", ""))
    result, open_findings = blocking(made)
    assert open_findings == []
    assert "ip_local_reserved_ports=60000-60031" in [f for f in result["findings"] if f["rule"] == "instance.hccl_ports"][0]["found"]


def test_a_slow_survey_is_not_a_wrong_clock():
    made = surveys.changed(A2, ("survey.elapsed_s", 60.2), ("survey.host.epoch_s", surveys.NOW + 55))
    assert blocking(made)[1] == []


def test_two_numbers_of_cann_are_both_held_to_the_driver():
    final = [(KEY + "origin", "quay.io/ascend/vllm-ascend:v0.18.0"), (KEY + "cann", None)]
    assert blocking(surveys.changed(A2, *final))[1] == []
    newer = final + [("survey.driver.version", "26.1.0"), ("survey.npu_smi.info.driver_version", "26.1.0")]
    assert [(f["rule"], f["status"]) for f in blocking(surveys.changed(A2, *newer))[1]] == [("npu.driver_version", "unknown")]


@pytest.mark.parametrize("key", sorted(A2["survey"]))
@pytest.mark.parametrize("value", [None, [], {}, "x", 7])
def test_no_shape_of_a_survey_ends_in_a_traceback(key, value):
    made = copy.deepcopy(A2)
    made["survey"][key] = value
    result = gate.judge({"h": made})
    assert gate.render_table(result)
    for rule in gate.RULES:
        assert gate.explain(rule, result, {"h": made})


@pytest.mark.parametrize("key",
                         ["host", "npu_smi", "chips", "family", "driver", "firmware", "devices", "engine", "containers", "paths",
                          "weights", "ports"])
def test_what_could_not_be_read_blocks(key):
    assert gate.judge({"h": surveys.changed(A2, ("survey." + key, None))})["hosts"]["h"] != "pass"


def test_a_lost_unit_is_put_back_without_asking():
    lost = surveys.changed(A2, ("survey.instances", {E2B: {"release": "0" * 12, "whole": True, "sha256": {E2B_UNIT: "a"}, "unit": {"unit_sha256": None}}}))
    found = [f for f in gate.judge({"h": lost})["findings"] if f["rule"] == "instance.files_unchanged" and f["instance"] == E2B]
    assert [f["status"] for f in found] == ["pass"]
