# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi, release, survey

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures", "npu-smi")
CID = "f" * 64


def info_of(name):
    with open(os.path.join(FIXTURES, name + ".txt")) as stream:
        return npu_smi.parse_info(stream.read())


def nodes(*numbers):
    return ["/dev/davinci%d" % number for number in numbers] + ["/dev/davinci_manager", "/dev/devmm_svm"]


def raw_of(info, numbers, **changes):
    raw = {
        "errors": [], "host": {"hostname": "a2-1"},
        "npu_smi": {"path": "/usr/local/bin/npu-smi", "rc": 0, "timed_out": False, "elapsed_s": 0.1, "info": info, "warnings": []},
        "files": {
            "install_info": {"path": "/etc/ascend_install.info", "text": "UserName=HwHiAiUser\n", "error": None},
            "driver": {
                "path": "/d/version.info", "text": "Version=25.5.1\ncompatible_version_fw=[7.0.0,8.9.9]\n", "error": None, "install_path": "/d", "mtime": 5.0},
            "firmware": {"path": "/f/version.info", "text": "Version=7.8.0.5.216\nfirmware_version=1.0\n", "error": None},
            "toolkit": {"path": "/t", "text": None, "error": "/t: No such file or directory"},
            "nnal": {"path": "/n", "text": None, "error": "/n: No such file or directory"},
        },
        "device_nodes": dict((path, {"mode": "0660", "uid": 0, "gid": 1000, "character": True}) for path in nodes(*numbers)),
        "pci": {}, "pids": {}, "engine": {"name": "docker", "path": "/usr/bin/docker", "error": None, "containers": [], "images": []},
        "instances": {}, "units": {"text": "", "sha256": {}}, "ports": {}, "paths": {}, "weights": {}, "device_plugins": [],
    }
    raw.update(changes)
    return raw


@pytest.mark.parametrize("name, phy, family", [
    ("910A", False, "910"), ("910B", False, "910"), ("910ProB", False, "910"), ("910PremiumA", False, "910"), ("910B1", False, "910b"),
    ("910B2C", False, "910b"), ("910B4-1", False, "910b"), ("Ascend910B3", False, "910b"), ("Ascend 910B3", False, "910b"), ("Ascend910", True, "910c"),
    ("Ascend910", False, None), ("Ascend910_9382", True, "910c"), ("310", False, "310"), ("310P3", False, "310p"), ("310Pvir01", False, "310p"),
    ("310B4", False, "310b"), ("Ascend950PR", False, "950"), ("Ascend950DT", False, "950"), ("510", False, None), ("", False, None), (None, False, None),
])
def test_family(name, phy, family):
    assert survey.chip_family(name, phy) == family


def test_chips_of_a2_are_named_by_npu_id():
    family, chips, errors = survey.join_chips(info_of("06-910B3-2npu-processes"), nodes(0, 5))
    assert (family, errors) == ("910b", [])
    assert [(chip["index"], chip["device"], chip["device_present"]) for chip in chips] == [(0, "/dev/davinci0", True), (1, "/dev/davinci5", True)]
    assert chips[1]["processes"] == [{"pid": 2290156, "name": "VLLMEngineCore", "memory_mib": 56630}]
    assert (chips[1]["hbm_used_mib"], chips[1]["hbm_total_mib"]) == (60156, 65536)


def test_chips_of_a3_are_named_by_phy_id():
    family, chips, errors = survey.join_chips(info_of("02-910C-A3-16chip-idle"), nodes(*range(16)))
    assert (family, errors) == ("910c", [])
    assert [chip["device"] for chip in chips] == ["/dev/davinci%d" % number for number in range(16)]
    assert [chip["index"] for chip in chips] == list(range(16))


def test_chips_of_310p_take_the_nth_node_by_logic_id():
    family, chips, errors = survey.join_chips(info_of("25-310P3-94wide"), nodes(4, 8))
    assert (family, errors) == ("310p", [])
    assert [(chip["npu_id"], chip["index"], chip["device"]) for chip in chips] == [(32768, 1, "/dev/davinci8"), (96, 0, "/dev/davinci4")]
    assert (chips[0]["hbm_used_mib"], chips[0]["hbm_total_mib"]) == (1836, 21534)


def test_310p_with_other_number_of_nodes_is_unknown():
    _family, chips, errors = survey.join_chips(info_of("25-310P3-94wide"), nodes(4, 8, 12))
    assert [chip["device"] for chip in chips] == [None, None]
    assert errors[0] == "npu-smi prints 2 chips, /dev has 3 davinci nodes"
    assert "no source tells the device node of NPU 96 chip 0" in errors


def test_missing_node_of_a2_is_not_present():
    _family, chips, errors = survey.join_chips(info_of("01-910B2-8chip-healthy"), nodes(0, 1, 2, 3, 4, 5, 6))
    assert [chip["device_present"] for chip in chips] == [True] * 7 + [False]
    assert errors == ["npu-smi prints 8 chips, /dev has 7 davinci nodes"]


def test_processes_of_950_go_by_npu():
    family, chips, _errors = survey.join_chips(info_of("26-950DT-116wide"), nodes(0, 6))
    assert family == "950"
    assert [len(chip["processes"]) for chip in chips] == [0, 1]
    assert [chip["device"] for chip in chips] == ["/dev/davinci0", "/dev/davinci6"]


def test_dropped_row_of_310p_leaves_the_other_chip_known():
    _family, chips, errors = survey.join_chips(info_of("31-310P3-second-row-dropped"), nodes(0, 1))
    assert [(chip["index"], chip["device"]) for chip in chips] == [(0, None), (1, "/dev/davinci1")]
    assert errors == ["no source tells the device node of NPU 1 chip None"]


def test_mapping_that_disagrees_makes_the_chip_unknown():
    info = info_of("25-310P3-94wide")
    mapping = {"chips": [{"npu_id": 32768, "chip_id": 0, "logic_id": 0}, {"npu_id": 96, "chip_id": 0, "logic_id": 1}]}
    _family, chips, errors = survey.join_chips(info, nodes(4, 8), mapping)
    assert [chip["device"] for chip in chips] == [None, None]
    assert "NPU 96 chip 0: the table makes it chip 0, npu-smi info -m says 1" in errors


def test_mixed_families_are_unknown():
    info = info_of("06-910B3-2npu-processes")
    info["chips"][1]["name"] = "310P3"
    family, chips, errors = survey.join_chips(info, nodes(0, 5))
    assert family is None
    assert errors[0] == "the chips 310P3, 910B3 are of no single known family"


def test_failure_gives_no_chips():
    assert survey.join_chips(npu_smi.parse_info(""), nodes(0)) == (None, [], [])


def test_holders_devices_and_owners():
    inspect = {
        "State": {"Pid": 4711}, "Config": {"Env": ["PATH=/bin"]},
        "HostConfig": {"Privileged": False, "Devices": [{"PathOnHost": "/dev/davinci5"}, {"PathOnHost": "/dev/davinci_manager"}]}}
    listed = [
        {"Id": CID, "Names": ["/vllm-ascend-gemma"], "State": "running", "Image": "x", "ImageID": "sha256:1", "Labels": {survey.INSTANCE_LABEL: "gemma"},
         "Ports": [{"PublicPort": 8000}, {"PrivatePort": 1}]},
        {"Id": "e" * 64, "Names": ["/old"], "State": "exited", "Image": "x", "Labels": None},
    ]
    raw = raw_of(
        info_of("06-910B3-2npu-processes"), [0, 5], pids={2290156: {"command": "python3", "cgroup": "0::/system.slice/docker-%s.scope\n" % CID}},
        engine={"name": "docker", "path": "/usr/bin/docker", "error": None, "containers": listed, "container_inspects": {CID: inspect}, "images": []},
        ports={8000: {"bind": {"IPv4": "Address already in use", "IPv6": None}, "listening": True,
                      "listener": {"pid": 9, "command": "docker-proxy", "cgroup": "0::/system.slice/docker.service"}},
               8001: {"bind": {"IPv4": None, "IPv6": None}}})
    result = survey.assemble(raw)
    assert [chip["holders"] for chip in result["chips"]] == [[], ["vllm-ascend-gemma"]]
    process = result["chips"][1]["processes"][0]
    assert (process["container"], process["instance"], process["command"]) == ("vllm-ascend-gemma", "gemma", "python3")
    assert [(item["name"], item["devices"], item["pid"]) for item in result["containers"]] == [
        ("vllm-ascend-gemma", ["/dev/davinci5"], 4711), ("old", [], None)]
    assert result["ports"]["8000"] == {
        "free": False, "error": "IPv4: Address already in use",
        "listener": {"pid": 9, "command": "docker-proxy", "instance": "gemma", "container": "vllm-ascend-gemma"}}
    assert result["ports"]["8001"] == {"free": True, "error": None, "listener": None}
    assert result["errors"] == []


def test_ascend_runtime_gives_devices_by_variable():
    inspect = {"HostConfig": {"Runtime": "ascend", "Devices": None}, "Config": {"Env": ["ASCEND_VISIBLE_DEVICES=0-2,4"]}}
    assert survey.container_devices(inspect, "runc") == ["/dev/davinci0", "/dev/davinci1", "/dev/davinci2", "/dev/davinci4"]
    inspect["Config"]["Env"].append("ASCEND_RUNTIME_OPTIONS=NODRV,VIRTUAL")
    assert survey.container_devices(inspect, "runc")[0] == "/dev/vdavinci0"
    assert survey.container_devices({"HostConfig": {"Runtime": "runc"}, "Config": {"Env": ["ASCEND_VISIBLE_DEVICES=0"]}}, "ascend") == []
    assert survey.expand_numbers("void") == survey.expand_numbers("") == []


def test_a_port_that_a_loading_server_holds():
    ports = survey.join_ports({8000: {"bind": {"IPv4": "Address already in use", "IPv6": None}}}, [], "vllm-ascend-")
    assert ports["8000"]["free"] is False and "a server that is still loading holds it" in ports["8000"]["error"]


def test_a_port_that_is_refused_for_another_reason():
    ports = survey.join_ports({80: {"bind": {"IPv4": "Permission denied", "IPv6": None}}}, [], "vllm-ascend-")
    assert ports["80"] == {"free": False, "error": "IPv4: Permission denied", "listener": None}


def test_listener_in_our_unit():
    assert survey.owner_of("0::/system.slice/vllm-ascend-gemma-4.service\n", [], "vllm-ascend-") == (None, "gemma-4")
    assert survey.owner_of("0::/system.slice/sshd.service\n", [], "vllm-ascend-") == (None, None)
    assert survey.owner_of(None, None, "vllm-ascend-") == (None, None)


def test_owner_on_a_host_that_is_a_container_itself():
    outer, ours = "a" * 64, {"id": CID, "labels": {survey.INSTANCE_LABEL: "gemma"}}
    assert survey.owner_of("4:pids:/docker/%s/docker/%s\n" % (outer, CID), [ours], "vllm-ascend-") == (ours, "gemma")
    assert survey.owner_of("1:name=systemd:/docker/%s/system.slice/vllm-ascend-x.service\n" % outer, [ours], "vllm-ascend-") == (None, "x")


def test_a_process_belongs_to_the_innermost_container_that_the_engine_knows():
    ours = {"id": "b" * 64, "labels": {survey.INSTANCE_LABEL: "one"}}
    assert survey.owner_of("0::/docker/%s/engine/%s\n" % ("a" * 64, "b" * 64), [ours], "vllm-ascend-") == (ours, "one")
    assert survey.owner_of("0::/docker/%s\n" % ("a" * 64), [ours], "vllm-ascend-") == (None, None)


def test_proc_net_tcp():
    text = ("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
            "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n"
            "   1: 0100007F:1F41 0100007F:9999 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n"
            "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n")
    assert survey.parse_listeners(text, {8000, 8001}) == {8000: {"inodes": {"4242"}, "lingering": 0}, 8001: {"inodes": set(), "lingering": 1}}


UNITS = """Id=vllm-ascend-gemma.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NRestarts=2
ActiveEnterTimestamp=Sat 2026-11-21 10:34:05 UTC
NeedDaemonReload=no
MainPID=4711

Id=vllm-ascend-other.service
LoadState=masked
ActiveState=inactive
SubState=dead
UnitFileState=masked
NeedDaemonReload=yes
"""


def test_instances_and_units():
    state = {"gemma": {"release": "abc", "previous": None, "manifest": {"a": 1}}, "gone": {"release": None, "previous": None, "manifest": None}}
    files = {"vllm-ascend-gemma.service": "12", "vllm-ascend-other.service": None}
    instances = survey.join_instances(state, {"text": UNITS, "sha256": files}, "vllm-ascend-")
    assert instances["gemma"]["unit"] == {
        "name": "vllm-ascend-gemma.service", "load_state": "loaded", "active_state": "active", "sub_state": "running", "unit_file_state": "enabled",
        "active_since": "Sat 2026-11-21 10:34:05 UTC", "restarts": 2, "needs_reload": False, "unit_sha256": "12", "main_pid": 4711}
    assert (instances["gemma"]["release"], instances["gemma"]["manifest"]) == ("abc", {"a": 1})
    assert instances["gone"]["unit"] is None
    assert (instances["other"]["release"], instances["other"]["unit"]["load_state"], instances["other"]["unit"]["restarts"]) == (None, "masked", None)


def test_a_survey_without_anything_says_so():
    raw = raw_of(npu_smi.failure("npu-smi: not found", "command-not-found"), [], files={}, host={})
    raw["engine"] = {"name": None, "path": None, "error": "neither a socket nor a command of docker or podman"}
    result = survey.assemble(raw)
    assert (result["family"], result["chips"], result["images"], result["containers"], result["install_info"]) == (None, [], None, None, None)
    assert [entry["source"] for entry in result["errors"]] == [
        "npu-smi info", "container engine", "driver version.info", "firmware version.info", "/etc/ascend_install.info"]
    assert result["driver"]["version"] is None and result["driver"]["error"] == "not read"


def test_bus_ids_that_sysfs_does_not_have():
    raw = raw_of(info_of("06-910B3-2npu-processes"), [0, 5], pci={"0000:c1:00.0": on_bus(numa=6)})
    result = survey.assemble(raw)
    assert [chip["numa_node"] for chip in result["chips"]] == [6, None]
    assert [chip["device"] for chip in result["chips"]] == ["/dev/davinci0", None]
    assert result["errors"] == [{"source": "sysfs", "error": "NPU 5 chip 0: bus id 0000:02:00.0 is not on the PCI bus"}]
    raw["pci"] = {}   # a container's sysfs shows none of them: nothing to compare with
    assert survey.assemble(raw)["errors"] == []


def on_bus(vendor="0x19e5", numa=None):
    return {"vendor": vendor, "device": "0xd802", "numa_node": numa}


BOTH = {"0000:c1:00.0": on_bus(), "0000:02:00.0": on_bus()}


def test_a_chip_that_only_the_pci_bus_has_is_told():
    result = survey.assemble(raw_of(info_of("06-910B3-2npu-processes"), [0, 5], pci=dict(BOTH, **{"0000:81:00.0": on_bus()})))
    assert [entry["error"] for entry in result["errors"]] == ["an NPU at 0000:81:00.0 is on the PCI bus, npu-smi does not list it"]
    assert [chip["device"] for chip in result["chips"]] == ["/dev/davinci0", "/dev/davinci5"]


def test_a_bus_id_of_another_vendor_makes_the_chip_unknown():
    result = survey.assemble(raw_of(info_of("06-910B3-2npu-processes"), [0, 5], pci=dict(BOTH, **{"0000:02:00.0": on_bus("0x10de")})))
    assert [entry["error"] for entry in result["errors"]] == ["NPU 5 chip 0: bus id 0000:02:00.0 belongs to vendor 0x10de"]
    assert [chip["device"] for chip in result["chips"]] == ["/dev/davinci0", None]


def test_both_dies_of_a_duo_share_a_bus_id_and_two_npus_do_not():
    info = info_of("03-310P3-Duo-2card-processes")
    assert len(set(chip["bus_id"] for chip in info["chips"])) == len(info["chips"]) // 2
    assert survey.assemble(raw_of(info, range(len(info["chips"]))))["errors"] == []
    info = info_of("06-910B3-2npu-processes")
    info["chips"][1]["bus_id"] = info["chips"][0]["bus_id"]
    result = survey.assemble(raw_of(info, [0, 5]))
    assert [chip["device"] for chip in result["chips"]] == [None, None]
    assert "is that of another NPU too" in result["errors"][0]["error"]


def test_a_board_with_another_bus_id_makes_the_chip_unknown():
    board = {"5": {"board": {"npu": {"PCIe Bus Info": "0000:82:00.0"}, "chips": []}}, "0": {"board": {"npu": {"PCIe Bus Info": "0000:C1:00.0"}}}}
    result = survey.assemble(raw_of(info_of("06-910B3-2npu-processes"), [0, 5], deep={"mapping": None, "npus": board, "network": {}}))
    assert [chip["device"] for chip in result["chips"]] == ["/dev/davinci0", None]
    assert result["errors"][0]["error"] == "NPU 5 chip 0: npu-smi info prints bus id 0000:02:00.0, -t board 0000:82:00.0"


def test_a_bus_id_of_no_known_form_does_not_end_the_survey():
    info = info_of("06-910B3-2npu-processes")
    info["chips"][1]["bus_id"] = "zz"
    assert [chip["device"] for chip in survey.assemble(raw_of(info, [0, 5], pci=BOTH))["chips"]] == ["/dev/davinci0", None]


@pytest.mark.parametrize("vendor, device, pci_class, npu", [
    ("0x19e5", "0xd802", "0x120000", True), ("0x19e5", "0xd500", "0x120000", True), ("0x19e5", "0xa250", "0x120000", False),
    ("0x19e5", "0xa120", "0x060400", False), ("0x10de", "0x20b0", "0x120000", False), (None, None, None, False),
])
def test_kunpengs_own_accelerators_are_no_npus(vendor, device, pci_class, npu):
    assert survey.is_npu(vendor, device, pci_class) is npu


def test_engine_of_both_kinds():
    docker = survey.join_engine({
        "name": "docker", "version": {"Version": "26.1.4", "ApiVersion": "1.45", "Components": [{"Name": "containerd", "Version": "1.7.1"}]},
        "info": {"DockerRootDir": "/var/lib/docker", "CgroupDriver": "systemd", "HttpProxy": "http://u:secret@proxy:3128"}})
    assert (docker["data_root"], docker["containerd_version"]) == ("/var/lib/docker", "1.7.1")
    assert docker["proxies"] == {"http_proxy": "http://***@proxy:3128"}
    podman = survey.join_engine({
        "name": "podman", "version": {"Version": "4.9.3", "ApiVersion": "4.9.3"},
        "info": {"host": {"cgroupManager": "systemd", "cgroupVersion": "v2"}, "store": {"graphRoot": "/var/lib/containers/storage"}}})
    assert (podman["data_root"], podman["cgroup_driver"], podman["cgroup_version"]) == ("/var/lib/containers/storage", "systemd", "2")


def test_images():
    images = survey.join_images(
        [{"Id": "sha256:1", "RepoTags": ["a:1", "<none>:<none>"], "RepoDigests": ["a@sha256:2"], "Labels": None, "Size": 7},
         {"Id": "3", "Names": ["b:1"], "Size": 8}],
        {"sha256:1": {"Architecture": "arm64", "Config": {"Env": ["SOC_VERSION=ascend910b1"]}}})
    assert images[0] == {
        "id": "sha256:1", "tags": ["a:1"], "digests": ["a@sha256:2"], "labels": {}, "architecture": "arm64", "size_bytes": 7, "soc_version": "ascend910b1"}
    assert (images[1]["id"], images[1]["tags"], images[1]["architecture"]) == ("sha256:3", ["b:1"], None)


@pytest.mark.parametrize("query, text, status", [
    ("link", "link status: UP\n", "UP"), ("net_health", "net health status: Success\n", "Success"),
    ("net_health", "net health status: Receive timeout\n", "Receive timeout"),
    ("ip", "ipaddr:10.45.100.1\nnetmask:255.255.255.0\n", "10.45.100.1"),
    ("tls", "dev_id:0, tls switch[1](0:disable, 1:enable), tls alarm time threshold[60]days\n", "1"), ("link", "Cmd executed failed\n", None),
])
def test_hccn(query, text, status):
    assert survey.parse_hccn(query, text)["status"] == status


def test_npu_smi_result():
    with open(os.path.join(FIXTURES, "06-910B3-2npu-processes.txt")) as stream:
        table = stream.read()
    warned = survey.npu_smi_result("/x", 0, False, 0.1, table + "[WARNING]The driver package may not be completely installed\n", "", None)
    assert warned["warnings"] == ["[WARNING]The driver package may not be completely installed"] and "incomplete" not in warned["info"]
    good = survey.npu_smi_result("/x", 0, False, 0.1, table, "noise on stderr\n", None)
    assert "error" not in good["info"] and "incomplete" not in good["info"]
    assert survey.npu_smi_result("/x", 1, False, 0.1, table, "", None)["info"]["incomplete"] == ["npu-smi ended with status 1 after its table"]
    assert survey.npu_smi_result("/x", None, True, 60, "Initialize SchedulerClient...\n", "", None)["info"]["kind"] == "timeout"
    missing = survey.npu_smi_result("/x", 127, False, 0.1, "", "npu-smi: error while loading shared libraries: libc_sec.so", None)
    assert missing["info"]["kind"] == "library-missing"


@pytest.mark.parametrize("text, said", [
    ("device 0 PING 10.0.0.1\nrecv seq=0,time=0.043000ms\n3 packets transmitted, 3 received, 0.00% packet loss", "3 of 3"),
    ("recv time out seq=0\n3 packets transmitted, 0 received, 100.00% packet loss", "0 of 3"), ("device id 9 is invalid", None), ("", None)])
def test_a_ping_of_a_chip_is_counted(text, said):
    assert survey.parse_ping(text) == said


def test_a_survey_asks_of_units_what_the_proof_wants_to_know_too():
    assert set(release.SHOW) <= set(survey.UNIT_PROPERTIES)
