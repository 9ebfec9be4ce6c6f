# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged and invented outputs: a reading is right, or it is marked; it is never quietly wrong."""
from __future__ import annotations

import glob
import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings, strategies as st  # noqa: E402  (only once it is known to be there)

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures", "npu-smi")
TEXTS = {}
for fixture in sorted(glob.glob(os.path.join(FIXTURES, "*.txt"))):
    with open(fixture) as opened:
        TEXTS[os.path.basename(fixture)[:-4]] = opened.read()


def marked(result):
    return bool(result.get("error") or result.get("incomplete"))


TABLES = sorted(name for name, content in TEXTS.items() if not marked(npu_smi.parse_info(content)))


def assert_no_worse(result, whole, where):
    """Each chip and process that is left reads as it did, or misses values; nothing is invented."""
    if result.get("error"):
        assert result["chips"] == [] and result["kind"] and "excerpt" in result, where
        return
    assert result["chips"], where
    for chip in result["chips"]:
        assert any(all(chip[key] in (None, other[key]) for key in npu_smi.CHIP_KEYS) for other in whole["chips"]), (where, chip)
        if not marked(result):
            assert chip in whole["chips"], (where, chip)
    for process in result["processes"]:
        assert process in whole["processes"], (where, process)
    assert set(result["idle_npus"]) <= set(whole["idle_npus"]), where


@pytest.mark.parametrize("name", TABLES)
def test_cut_anywhere(name):
    text = TEXTS[name]
    whole = npu_smi.parse_info(text)
    for end in range(len(text)):
        result = npu_smi.parse_info(text[:end])
        assert_no_worse(result, whole, (name, end))
        line = text[:end].rpartition("\n")[2].rstrip()
        if line.startswith("|") and not line.endswith("|"):
            assert result["kind"] == "truncated", (name, end)


@pytest.mark.parametrize("name", TABLES)
def test_any_line_lost(name):
    lines = TEXTS[name].split("\n")
    whole = npu_smi.parse_info(TEXTS[name])
    for lost, line in enumerate(lines):
        result = npu_smi.parse_info("\n".join(lines[:lost] + lines[lost + 1:]))
        assert_no_worse(result, whole, (name, line))
        if "Health" in line or "Bus-Id" in line or "AICore" in line:
            assert result.get("error"), (name, line)
        if result.get("chips") and len(result["chips"]) == len(whole["chips"]) and result["chips"] != whole["chips"]:
            assert result["incomplete"], (name, line)


@pytest.mark.parametrize("name", TABLES)
def test_any_border_lost(name):
    text = TEXTS[name]
    whole = npu_smi.parse_info(text)
    for at in (at for at, character in enumerate(text) if character == "|"):
        result = npu_smi.parse_info(text[:at] + " " + text[at + 1:])
        assert marked(result) or result == whole, (name, at)


@pytest.mark.parametrize("name", TABLES)
def test_pasted_twice(name):
    assert npu_smi.parse_info(TEXTS[name] + TEXTS[name])["kind"] == "unrecognized"


@pytest.mark.parametrize("name", TABLES)
def test_new_column_is_not_guessed(name):
    text = TEXTS[name].replace("Temp(C)", "Fan(%)")
    result = npu_smi.parse_info(text)
    assert result["kind"] == "unrecognized" and "Fan(%)".lower() in result["reason"].lower()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"), lambda text: "\n".join("    " + line for line in text.split("\n")),
    lambda text: "\n".join("> " + line for line in text.split("\n")), lambda text: "\n".join("# " + line for line in text.split("\n")),
    lambda text: "\ufeff" + text,
    lambda text: "[INFO limiter::x] 12\n" + text + "\n[root@host ~]# \n", lambda text: text.replace("NA ", "N/A"),
    lambda text: "\x1b[0m" + text.replace("\n", "\x1b[K\n"),
])
def test_harmless_change(name, change):
    assert npu_smi.parse_info(change(TEXTS[name])) == npu_smi.parse_info(TEXTS[name])


@given(st.text(alphabet=st.sampled_from("|+-= 0123456789NA/.:OKnpu-smiVersion\n\tChipHealthBus-IdName"), max_size=600))
@settings(deadline=None, max_examples=300)
def test_soup(text):
    result = npu_smi.parse_info(text)
    assert result.get("error") or result["chips"]
    for query in ("board", "usages"):
        assert isinstance(npu_smi.parse_key_values(text, query), dict)
    assert isinstance(npu_smi.parse_mapping(text), dict)


@given(st.sampled_from(sorted(TEXTS)), st.data())
@settings(deadline=None, max_examples=300)
def test_mutations_do_not_raise(name, data):
    text = TEXTS[name]
    for _turn in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(at, min(len(text), at + 130)))
        text = text[:at] + data.draw(st.text(max_size=20)) + text[end:]
    result = npu_smi.parse_info(text)
    assert result.get("error") or result["chips"]


def test_large_inputs_come_to_an_end():
    for text in ("| " * 200000, "|" + " " * 1000000 + "x", "| npu-smi " + "1" * 1000000, "+" + "-" * 1000000, "ret is " * 100000,
                 "|NPU Name|Health|" * 50000,
                 TEXTS[TABLES[0]] + "| 0     910B2               |\n" * 50000, "\x1b[" * 300000, "9" * 1000000):
        assert npu_smi.parse_info(text)["error"]


# A table of any size in each layout, printed the way the tool does, must read back as what went in.
WIDE = {"hbm": True, "key2": ["Chip"], "hugepages": True}
LAYOUTS = {
    "A1": dict(WIDE, hugepages=False, processes=0), "A3": dict(WIDE, processes=4), "A4": dict(WIDE, key2=["Chip", "Phy-ID"], processes=4),
    "A5": dict(WIDE, key2=["Chip", "Phy-ID"], processes=5), "B1": {"hbm": False, "key2": ["Chip", "Device"], "hugepages": False, "processes": 0},
    "B4": {"hbm": False, "key2": ["Chip", "Device"], "hugepages": True, "processes": 4},
    "C1": dict(WIDE, key2=[], processes=5), "C2": dict(WIDE, key2=[], processes=4),
}
NUMBER = st.one_of(st.none(), st.integers(0, 999999))


@st.composite
def tables(draw):
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    layout = LAYOUTS[name]
    null = draw(st.sampled_from(["NA", "-"]))
    gap = draw(st.integers(1, 6))

    def shown(value):
        return null if value is None else str(value)

    def pair(used, total):
        return "%s%s/%s%s" % (shown(used), " " * draw(st.integers(0, 3)), " " * draw(st.integers(0, 2)), shown(total))

    def cell(words):
        return " " + (" " * (gap + 1)).join(words) + " "
    chips, lines = [], []
    versions = draw(st.sampled_from([("1.8.21", "20.2.2.spc001"), ("24.1.t52.b060", "24.1.t52.b060"), ("26.0.rc1", "26.0.rc1")]))
    lines.append("| npu-smi %s    Version: %s  |" % versions)
    third = ["Power(W)", "Temp(C)"] + (["Hugepages-Usage(page)"] if layout["hugepages"] else [])
    use = ["NPU Util(%)" if not layout["key2"] else "AICore(%)", "Memory-Usage(MB)"] + (["HBM-Usage(MB)"] if layout["hbm"] else [])
    if layout["key2"]:
        lines += ["|%s| Health |%s|" % (cell(["NPU", "Name"]), cell(third)), "|%s| Bus-Id |%s|" % (cell(layout["key2"]), cell(use))]
    else:
        lines += ["| NPU ID | Name | Health |%s|" % cell(third), "|        |      | Bus-Id |%s|" % cell(use)]
    lines.append("+===+===+")
    for number in range(draw(st.integers(1, 6))):
        chip = dict.fromkeys(npu_smi.CHIP_KEYS)
        chip.update(
            npu_id=draw(st.integers(0, 33000)) * 8 + number, name=draw(st.sampled_from(["910B3", "310P3", "Ascend910", "310Pvir01", "Ascend950PR"])),
            health=draw(st.sampled_from(npu_smi.HEALTH_STATES)),
            power_w=draw(st.one_of(st.none(), st.integers(0, 5000).map(lambda value: value / 10.0))),
            temp_c=draw(NUMBER), bus_id=draw(st.sampled_from([None, "0000:C1:00.0", "0001:0a:10.1"])),
            aicore_pct=draw(st.one_of(st.none(), st.integers(0, 100))),
            mem_used_mb=draw(NUMBER), mem_total_mb=draw(NUMBER))
        if layout["hugepages"]:
            chip.update(hugepages_used=draw(NUMBER), hugepages_total=draw(NUMBER))
        if layout["hbm"]:
            chip.update(hbm_used_mb=draw(NUMBER), hbm_total_mb=draw(NUMBER))
        for heading, key in (("Chip", "chip_id"), ("Phy-ID", "phy_id"), ("Device", "logic_id")):
            if heading in layout["key2"]:
                chip[key] = draw(st.integers(0, 40))
        first = [shown(chip["power_w"]), shown(chip["temp_c"])]
        if layout["hugepages"]:
            first.append(pair(chip["hugepages_used"], chip["hugepages_total"]))
        second = [shown(chip["aicore_pct"]), pair(chip["mem_used_mb"], chip["mem_total_mb"])]
        if layout["hbm"]:
            second.append(pair(chip["hbm_used_mb"], chip["hbm_total_mb"]))
        if layout["key2"]:
            keys = [shown(chip[key]) for key in ("chip_id", "phy_id", "logic_id") if chip[key] is not None]
            lines += ["|%s| %s |%s|" % (cell([str(chip["npu_id"]), chip["name"]]), chip["health"], cell(first)),
                      "|%s| %s |%s|" % (cell(keys), shown(chip["bus_id"]), cell(second))]
        else:
            lines += ["| %s | %s | %s |%s|" % (chip["npu_id"], chip["name"], chip["health"], cell(first)),
                      "|  |  | %s |%s|" % (shown(chip["bus_id"]), cell(second))]
        lines.append("+===+===+")
        chips.append(chip)
    processes, idle = [], []
    if layout["processes"]:
        heading = (["NPU ID"] if not layout["key2"] else ["NPU     Chip"]) + ["Process id", "Process name", "Process memory(MB)"]
        lines.append("| %s |" % " | ".join(heading + (["Process id in container"] if layout["processes"] == 5 else [])))
        for chip in chips:
            for _turn in range(draw(st.integers(0, 2))):
                process = {
                    "npu_id": chip["npu_id"], "chip_id": chip["chip_id"], "pid": draw(st.integers(1, 4194304)),
                    "name": draw(st.sampled_from(["", "VLLMWorker_TP", "a b", "llama-box-rpc-s"])), "mem_mb": draw(st.integers(0, 65536))}
                key = str(chip["npu_id"]) if not layout["key2"] else "%s   %s" % (chip["npu_id"], chip["chip_id"])
                row = [key, str(process["pid"]), process["name"], str(process["mem_mb"])] + (["NA"] if layout["processes"] == 5 else [])
                lines.append("| %s |" % " | ".join(row))
                processes.append(process)
            if not processes or processes[-1]["npu_id"] != chip["npu_id"]:
                lines.append("| No running processes found in NPU %s   |" % chip["npu_id"])
                idle.append(chip["npu_id"])
            lines.append("+===+===+")
    expected = {"npu_smi_version": versions[0], "driver_version": versions[1], "chips": chips, "processes": processes,
                "process_table": bool(layout["processes"]), "idle_npus": idle}
    return name, "\n".join(lines) + "\n", expected


@given(tables())
@settings(deadline=None, max_examples=400)
def test_every_layout_reads_back(table):
    _name, text, expected = table
    result = npu_smi.parse_info(text)
    assert result == expected, text
