# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated npu-smi prints what real ones print, and the project's own parser reads it back."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi as parser
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "roles/rehearsal_fleet/files/node/rootfs/usr/local/lib/rehearsal/npu-smi"
FIXTURES = ROOT / "tests/fixtures/npu-smi"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool as a module, on a host whose chips are all there and idle; ``tool.describe`` says which host."""
    loader = importlib.machinery.SourceFileLoader("rehearsal_npu_smi", str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    (tmp_path / "faults").mkdir()
    monkeypatch.setattr(module, "FAULTS", str(tmp_path / "faults"))
    monkeypatch.setattr(module, "NODE", str(tmp_path / "node.json"))
    monkeypatch.setattr(module, "ON_NODE", str(tmp_path / "node.json"))
    monkeypatch.setattr(module.os.path, "exists", lambda path: str(path).startswith("/dev/davinci") or Path(path).is_file())
    module.held = {}
    monkeypatch.setattr(module, "holders", lambda chips, on_node: module.held)

    def describe(platform, **more):
        described = rehearsal.describe_node(dict({"name": "n", "platform": platform, "models": []}, **more))
        (tmp_path / "node.json").write_text(json.dumps(described))
        return described

    def pull(name, content=""):
        (tmp_path / "faults" / name).write_text(content + "\n")

    module.describe, module.pull = describe, pull
    return module


def layout(text):
    """A table with its values blanked out: rules, headings, column borders and the places of words remain."""
    lines = []
    for line in text.splitlines():
        lines.append(line if set(line) <= set("+-=") or "Usage" in line or "Health" in line or "Process name" in line
                     else re.sub(r"[^|]", "x", line))
    return lines


@pytest.mark.parametrize("platform, version, fixture", [
    ("a2", "25.5.0", "01-910B2-8chip-healthy.txt"),
    ("a3", "25.5.0", "02-910C-A3-16chip-idle.txt"),
])
def test_idle_tables_have_the_layout_of_real_ones(tool, capsys, platform, version, fixture):
    tool.describe(platform, driver_version=version)
    assert tool.main(["info"]) == 0
    assert layout(capsys.readouterr().out.strip()) == layout((FIXTURES / fixture).read_text().strip())


@pytest.mark.parametrize("platform, version, fixture, heading", [
    ("310p", "25.5.0", "03-310P3-Duo-2card-processes.txt", 5),
    ("a2", "26.0.rc1", "22-910B4-116wide-container-pids.txt", 5),
    ("a3", "26.1.0", "23-910C-116wide-phy-id.txt", 5),
])
def test_headings_are_those_of_real_tables(tool, capsys, platform, version, fixture, heading):
    tool.describe(platform, driver_version=version)
    tool.main(["info"])
    printed, real = capsys.readouterr().out.splitlines(), (FIXTURES / fixture).read_text().splitlines()
    assert layout("\n".join(printed))[:heading + 1] == layout("\n".join(real))[:heading + 1]
    processes = [line.rstrip() for line in real if "Process name" in line]
    assert [line for line in printed if "Process name" in line] == processes


@pytest.mark.parametrize("version", ["25.5.0", "26.0.rc1"])
@pytest.mark.parametrize("platform, chips", [("a2", 8), ("a3", 16), ("310p", 4)])
def test_the_parser_reads_every_platform(tool, capsys, platform, chips, version):
    described = tool.describe(platform, driver_version=version)
    tool.main(["info"])
    read = parser.parse_info(capsys.readouterr().out)
    assert read["driver_version"] == version
    assert [(chip["npu_id"], chip["chip_id"], chip["name"], chip["health"]) for chip in read["chips"]] == [
        (chip["npu"], chip["chip"], described["chip_name"], "OK") for chip in described["chips"]]
    assert len(read["chips"]) == chips and read["processes"] == []
    totals = [chip["hbm_total_mb"] or chip["mem_total_mb"] for chip in read["chips"]]
    assert totals == [chip["total"] for chip in described["chips"]]


def test_a_held_chip_shows_its_engine_and_its_memory(tool, capsys):
    tool.describe("a2")
    tool.held = {5: [(4711, "VLLMEngineCor")]}
    tool.main(["info"])
    read = parser.parse_info(capsys.readouterr().out)
    assert [(row["npu_id"], row["pid"], row["name"], row["mem_mb"]) for row in read["processes"]] == [(5, 4711, "VLLMEngineCor", 58982)]
    assert [chip["hbm_used_mb"] > 60000 for chip in read["chips"]] == [index == 5 for index in range(8)]


def test_alarms_touch_the_chips_that_the_lever_names(tool, capsys):
    tool.describe("a3")
    tool.pull("chip_alarm", "3, 5:Critical")
    tool.main(["info"])
    read = parser.parse_info(capsys.readouterr().out)
    assert {index: chip["health"] for index, chip in enumerate(read["chips"]) if chip["health"] != "OK"} == {3: "Alarm", 5: "Critical"}
    tool.main(["info", "-t", "health", "-i", "1", "-c", "1"])
    assert "80E3A203" in capsys.readouterr().out


def test_memory_held_by_a_stranger_is_seen(tool, capsys):
    tool.describe("a2")
    tool.pull("hbm_held", "2:20000")
    tool.main(["info"])
    read = parser.parse_info(capsys.readouterr().out)
    assert [(row["npu_id"], row["name"], row["mem_mb"]) for row in read["processes"]] == [(2, "python3", 20000)]


@pytest.mark.parametrize("kind", ["", "half", "-8020"])
def test_garbage_is_never_read_as_healthy(tool, capsys, kind):
    tool.describe("a2")
    tool.pull("npu_smi_garbage", kind)
    code = tool.main(["info"])
    assert parser.parse_info(capsys.readouterr().out).get("error")
    assert code == (172 if kind == "-8020" else 0)


def test_a_hang_says_what_hami_says_and_waits(tool, capsys, monkeypatch):
    tool.describe("a2")
    tool.pull("npu_smi_hang", "7")
    waited = []
    monkeypatch.setattr(tool.time, "sleep", waited.append)
    tool.main(["info"])
    assert waited == [7.0] and "Initialize SchedulerClient..." in capsys.readouterr().out


def test_without_the_driver_folder_a_library_is_missing(tool, capsys):
    assert tool.main(["info"]) == 127
    assert "libdrvdsmi_host.so" in capsys.readouterr().err


def test_the_mapping_counts_logic_ids_and_one_mcu_for_each_npu(tool, capsys):
    tool.describe("a3")
    tool.main(["info", "-m"])
    text = capsys.readouterr().out
    assert text.count("Mcu") == 8
    assert [(chip["npu_id"], chip["chip_id"], chip["logic_id"], chip["phy_id"]) for chip in parser.parse_mapping(text)["chips"]] == [
        (index // 2, index % 2, index, index) for index in range(16)]


@pytest.mark.parametrize("query", ["board", "health", "common", "usages", "ecc", "proc-mem"])
def test_single_questions_are_readable(tool, capsys, query):
    tool.describe("310p")
    assert tool.main(["info", "-t", query, "-i", "2"]) == 0
    read = parser.parse_key_values(capsys.readouterr().out, query)
    assert not read.get("error") and (read["npu"] or read["chips"])


def test_wrong_questions_are_refused(tool, capsys):
    tool.describe("a2")
    assert tool.main(["info", "-t", "weather", "-i", "0"]) == 1
    assert tool.main(["info", "-t", "health", "-i", "9"]) == 1
    assert tool.main(["info", "--json"]) == 1
    assert capsys.readouterr().out.splitlines() == ["Error parameter of -t", "Error parameter of -i", "Command or option is not found."]


def test_every_lever_that_something_reads_may_be_pulled():
    levers = set(yaml.safe_load((ROOT / "roles/rehearsal_fleet/vars/main.yml").read_text())["__rehearsal_fleet_levers"])
    read = set()
    files = list((ROOT / "roles/rehearsal_fleet/files/engine/vllm_sim").glob("*.py"))
    files += [path for path in (ROOT / "roles/rehearsal_fleet/files").glob("*/rootfs/usr/local/*/**/*") if path.is_file() and path.suffix != ".pyc"]
    for path in files:
        read.update(re.findall(r'\b(?:fault|chips|value|lever|seconds)\("([a-z_]+)"', path.read_text()))
    assert levers == read
