# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import glob
import json
import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures", "npu-smi")
NAMES = sorted(os.path.basename(path)[:-5] for path in glob.glob(os.path.join(FIXTURES, "*.json")))
BOOKKEEPING = ("source", "url", "provenance", "notes", "driver_version_line")


def text_of(name):
    with open(os.path.join(FIXTURES, name + ".txt")) as stream:
        return stream.read()


def label_of(name):
    with open(os.path.join(FIXTURES, name + ".json")) as stream:
        return dict((key, value) for key, value in json.load(stream).items() if key not in BOOKKEEPING)


def reading(text):
    result = npu_smi.parse_info(text)
    result.pop("excerpt", None)
    return result


def test_there_are_fixtures():
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_fixture(name):
    assert reading(text_of(name)) == label_of(name)


@pytest.mark.parametrize("text, kind, ret", [
    ("bash: npu-smi: command not found", "command-not-found", None),
    ("sh: 1: npu-smi: not found", "command-not-found", None),
    ('OCI runtime exec failed: exec: "npu-smi": executable file not found in $PATH: unknown', "command-not-found", None),
    ("bash: /usr/local/bin/npu-smi: No such file or directory", "command-not-found", None),
    ("npu-smi: error while loading shared libraries: libdrvdsmi_host.so: cannot open shared object file: No such file or directory",
     "library-missing", None),
    ("dcmi module initialize failed. ret is -8005", "dcmi-init-failed", -8005),
    ("DrvMngGetConsoleLogLevel failed. (ret=4)\ndcmi module initialize failed. ret is -8005\n", "dcmi-init-failed", -8005),
    ("dcmi model initialized failed, because the device is used. ret is -8020\nnpu get board type failed. ret is -9005", "device-occupied", -8020),
    ("npu get board type failed. ret is -9005", "board-type-failed", -9005),
    ("Failed to execute npu-smi info. ret is -8255.", "not-supported", -8255),
    ("Failed to execute npu-smi info. ret is -8020.", "device-occupied", -8020),
    ("dcmi module initialize failed. ret is -8002", "permission-denied", -8002),
    ("Command or option is not found.\nUsage: npu-smi info", "unknown-command", None),
    ("Error parameter of -t", "invalid-parameter", None),
    ("bash: /usr/local/bin/npu-smi: Permission denied", "permission-denied", None),
    ("sudo: a password is required", "sudo-password-required", None),
    ("[sudo] password for user: \nSorry, try again.", "sudo-password-required", None),
    ("user is not in the sudoers file.  This incident will be reported.", "permission-denied", None),
    ("Initialize SchedulerClient...", "timeout", None),
    ("Segmentation fault (core dumped)", "crashed", None),
    ("-bash: /usr/local/bin/npu-smi: cannot execute binary file: Exec format error", "wrong-architecture", None),
    ("something strange. ret is -7777", "command-failed", -7777),
    ("bash: npu-smi: \u672a\u627e\u5230\u547d\u4ee4", "command-not-found", None),
    ("bash: npu-smi\uff1a\u627e\u4e0d\u5230\u547d\u4ee4", "command-not-found", None),
    ("bash: /usr/local/bin/npu-smi: \u6743\u9650\u4e0d\u591f", "permission-denied", None),
    ("bash: /usr/local/bin/npu-smi: \u6ca1\u6709\u90a3\u4e2a\u6587\u4ef6\u6216\u76ee\u5f55", "command-not-found", None),
    ("hello", "unrecognized", None), ("", "empty-output", None), ("  \n\n", "empty-output", None), (None, "empty-output", None),
    ("+-----+\n| x y |\n+-----+", "unrecognized", None),
])
def test_failures(text, kind, ret):
    result = npu_smi.parse_info(text)
    assert (result["error"], result["kind"], result.get("ret"), result["chips"], result["processes"]) == (True, kind, ret, [], [])
    assert result["excerpt"] == (text or "")
    assert result.get("exit_nonzero", False) is (kind not in ("unrecognized", "empty-output"))


def test_no_chip_is_a_failure():
    text = "".join(line + "\n" for line in text_of("01-910B2-8chip-healthy").split("\n")[:6])
    assert npu_smi.parse_info(text)["kind"] == "no-chips"


def test_unknown_health_is_kept_and_marked():
    result = npu_smi.parse_info(text_of("06-910B3-2npu-processes").replace("| OK   ", "| Fine ", 1))
    assert result["chips"][0]["health"] == "Fine"
    assert "health 'Fine' is not one of" in result["incomplete"][0]


def test_error_of_one_chip_marks_the_reading():
    lines = text_of("01-910B2-8chip-healthy").split("\n")
    result = npu_smi.parse_info("\n".join(lines[:9] + ["Failed to get info of NPU 1. ret is -8005"] + lines[12:]))
    assert [chip["npu_id"] for chip in result["chips"]] == [0, 2, 3, 4, 5, 6, 7]
    assert result["incomplete"][0] == "an error inside the table: Failed to get info of NPU 1. ret is -8005"
    assert result["excerpt"]


def test_second_chip_without_its_own_row_belongs_to_the_npu_above():
    lines = text_of("23-910C-116wide-phy-id").split("\n")
    result = npu_smi.parse_info("\n".join(line for line in lines if "Critical" not in line))
    assert [(chip["npu_id"], chip["chip_id"], chip["phy_id"], chip["health"]) for chip in result["chips"]] == [(3, 0, 6, "OK"), (3, 1, 7, None)]


def test_second_chip_that_is_missing_whole_is_noticed():
    lines = text_of("02-910C-A3-16chip-idle").split("\n")
    # The tool gives a card up in the middle when its Phy-ID cannot be read: the thin rule stays, the thick one is not printed.
    result = npu_smi.parse_info("\n".join(lines[:9] + lines[12:]))
    assert [(chip["npu_id"], chip["phy_id"]) for chip in result["chips"][:2]] == [(0, 0), (1, 2)]
    assert result["incomplete"] == ["after chip 0 of NPU 0 another chip of it is missing"]


def test_chip_without_any_row_is_noticed():
    lines = text_of("05-310P3-1chip-partial-container").split("\n")
    assert npu_smi.parse_info("\n".join(lines[:6] + lines[8:]))["kind"] == "no-chips"
    result = npu_smi.parse_info("\n".join(lines[:8] + lines[8:9] + lines[8:]))
    assert result["incomplete"] == ["nothing between two rules: a chip without rows"]


def test_version_line_without_versions():
    text = text_of("06-910B3-2npu-processes").replace("Version: 25.5.1", "Version:       ")
    result = npu_smi.parse_info(text)
    assert (result["npu_smi_version"], result["driver_version"], len(result["chips"])) == ("25.5.1", None, 2)


MAPPING = """\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Name
\t0                              0                              0                              Ascend 910B3
\t0                              1                              -                              Mcu
\t1                              0                              1                              Ascend 910B3
\t1                              1                              -                              Mcu
"""


def test_mapping():
    chips = npu_smi.parse_mapping(MAPPING)["chips"]
    assert [(chip["npu_id"], chip["chip_id"], chip["logic_id"], chip["phy_id"], chip["name"]) for chip in chips] == [
        (0, 0, 0, None, "Ascend 910B3"), (1, 0, 1, None, "Ascend 910B3")]


def test_mapping_of_a3():
    text = "NPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n0 0 0 0 Ascend910\n0 1 1 1 Ascend910\n0 2 - - Mcu\n"
    assert [(chip["logic_id"], chip["phy_id"]) for chip in npu_smi.parse_mapping(text)["chips"]] == [(0, 0), (1, 1)]


def test_mapping_of_950():
    text = "\tNPU ID   Slot ID   Chip ID   Chip Phy-ID   Chip Name\n\t0   3   0   5   Ascend950PR\n"
    assert npu_smi.parse_mapping(text)["chips"] == [
        {"npu_id": 0, "slot_id": 3, "chip_id": 0, "logic_id": None, "phy_id": 5, "name": "Ascend950PR"}]


@pytest.mark.parametrize("text, kind", [
    ("", "empty-output"), ("There is no NPU card on this server.", "no-chips"), ("dcmi module initialize failed. ret is -8005", "dcmi-init-failed"),
    (MAPPING.replace("\t1 ", "\tx "), "unrecognized")])
def test_mapping_failures(text, kind):
    assert npu_smi.parse_mapping(text)["kind"] == kind


def test_chip_id_stands_above_its_block_in_common():
    text = ("\tNPU ID                         : 3\n\tChip Count                     : 1\n\n\tChip ID                        : 0\n"
            "\tMemory Usage Rate(%)           : 3\n\tTemperature(C)                 : 41\n")
    assert npu_smi.parse_key_values(text, "common") == {
        "npu": {"NPU ID": "3", "Chip Count": "1"},
        "chips": [{"chip_id": 0, "values": {"Memory Usage Rate(%)": "3", "Temperature(C)": "41"}, "processes": []}]}


def test_chip_id_stands_below_its_block_in_usages():
    text = ("\tNPU ID                         : 3\n\tChip Count                     : 2\n\n\tHBM Usage Rate(%)              : 5\n"
            "\tChip ID                        : 0\n\n\tHBM Usage Rate(%)              : 7\n\tChip ID                        : 1\n")
    chips = npu_smi.parse_key_values(text, "usages")["chips"]
    assert [(chip["chip_id"], chip["values"]["HBM Usage Rate(%)"]) for chip in chips] == [(0, "5"), (1, "7")]


def test_processes_of_proc_mem():
    text = ("\tNPU ID                         : 5\n\tChip Count                     : 1\n\n"
            "\tProcess id:2290156 Process name:VLLMEngineCore Process memory(MB):56630\n\tChip ID                        : 0\n")
    assert npu_smi.parse_key_values(text, "proc-mem")["chips"] == [
        {"chip_id": 0, "values": {}, "processes": [{"pid": 2290156, "name": "VLLMEngineCore", "mem_mb": 56630}]}]


def test_health_without_chips_of_950_and_failures():
    text = "\tNPU ID                         : 0\n\tHealth                         : Alarm\n\tError Code                     : 80E3A203\n"
    assert npu_smi.parse_key_values(text, "health")["npu"]["Error Code"] == "80E3A203"
    usages = npu_smi.parse_key_values("\tNPU ID   : 0\n\tHBM Usage Rate(%)   : 5\n", "usages")
    assert usages == {"npu": {"NPU ID": "0", "HBM Usage Rate(%)": "5"}, "chips": []}
    assert npu_smi.parse_key_values("Error parameter of -t", "health")["kind"] == "invalid-parameter"


def test_several_blocks_without_chip_id_are_not_mixed():
    text = "\tHealth Status                  : OK\n\tError Code                     : NA\n\tHealth Status                  : Alarm\n"
    assert npu_smi.parse_key_values(text, "health")["chips"] == [
        {"chip_id": None, "values": {"Health Status": "OK", "Error Code": "NA"}, "processes": []},
        {"chip_id": None, "values": {"Health Status": "Alarm"}, "processes": []}]


@pytest.mark.parametrize("text, kind", [
    ("", "empty-output"), ("npu-smi: command not found", "command-not-found"), ("dcmi module initialize failed. ret is -8005", "dcmi-init-failed"),
    ("npu-smi: error while loading shared libraries: libc_sec.so: cannot open shared object file", "library-missing")])
def test_key_value_failures(text, kind):
    assert npu_smi.parse_key_values(text, "board")["kind"] == kind


def test_no_process():
    text = "\tNPU ID                         : 0\n\tChip Count                     : 1\n\n\tNo process in device.\n\tChip ID                        : 0\n"
    assert npu_smi.parse_key_values(text, "proc-mem")["chips"] == [{"chip_id": 0, "values": {}, "processes": []}]
