# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
import surveys

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate, gate_table

GOOD = surveys.context("a2")
OLD_DRIVER = surveys.changed(GOOD, ("survey.driver.version", "24.1.rc3"), ("survey.npu_smi.info.driver_version", "24.1.rc3"))


def fleet():
    """A hundred hosts: 31 with an old driver, one with a taken port, one that does not answer."""
    hosts = dict(("a2-%d" % n, OLD_DRIVER if n <= 31 else GOOD) for n in range(1, 101))
    taken = {"free": False, "error": None, "listener": {"pid": 4242, "command": "nginx", "instance": None}}
    hosts["a2-40"] = surveys.changed(GOOD, ("survey.ports.8000", taken))
    hosts["a2-50"] = dict(GOOD, survey={"unreachable": True, "error": "Connection timed out"})
    return hosts


def test_a_hundred_hosts_fit_one_screen():
    text = gate.render_table(gate.judge(fleet()))
    assert len(text.split("\n")) <= 40
    assert "a2-[1-31]" in text
    assert "31 hosts: driver 24.1.rc3 with CANN 8.5.1" in text
    assert "a2-50" in text and "Connection timed out" in text
    assert text.endswith("100 hosts: 67 pass, 33 fail, 0 unknown; 0 findings waived")


def test_few_hosts_have_a_row_each():
    lines = gate.render_table(gate.judge({"a2-10": GOOD, "a2-9": GOOD})).split("\n")
    assert lines[0].split() == ["host", "verdict", "platform", "chips", "driver", "firmware", "engine", "instances"]
    assert [line.split()[0] for line in lines[1:3]] == ["a2-9", "a2-10"]
    assert lines[1].split()[1:6] == ["pass", "a2", "8", "x", "910B3"]


def test_many_different_values_of_one_rule_are_cut_short():
    hosts = dict(("h%d" % n, surveys.changed(GOOD, ("survey.host.epoch_s", surveys.NOW + 100 * n))) for n in range(1, 9))
    text = gate.render_table(gate.judge(hosts))
    assert "host.clock  h[1-8]" in text
    assert "and 5 more of this kind in the report" in text


def test_a_waiver_turns_the_verdict_and_stays_visible():
    waivers = [{"rule": "npu.driver_version", "reason": "lab host, HDK 24.1 under test", "hosts": ["a2-1"]}]
    result = gate.judge({"a2-1": OLD_DRIVER, "a2-2": OLD_DRIVER}, waivers=waivers)
    assert result["hosts"] == {"a2-1": "pass", "a2-2": "fail"}
    assert result["waived"] == 1
    finding = [f for f in result["findings"] if f["status"] == "waived"][0]
    assert (finding["host"], finding["reason"]) == ("a2-1", "lab host, HDK 24.1 under test")
    assert "waived:" in gate.render_table(result) and "lab host, HDK 24.1 under test" in gate.render_table(result)
    assert "lab host" in gate.explain("npu.driver_version", result, {"a2-1": OLD_DRIVER})


def test_a_waiver_may_name_hosts_by_pattern():
    assert gate.judge({"a2-1": OLD_DRIVER},
                      waivers=[{"rule": "npu.driver_version", "reason": "r", "hosts": "a2-*"}])["hosts"] == {"a2-1": "pass"}
    assert gate.judge({"a2-1": OLD_DRIVER},
                      waivers=[{"rule": "npu.driver_version", "reason": "r", "hosts": ["a3-*"]}])["hosts"] == {"a2-1": "fail"}


def test_a_waived_rule_does_not_excuse_those_behind_it():
    blind = surveys.changed(GOOD, ("survey.npu_smi.timed_out", True), ("survey.chips", []))
    result = gate.judge({"h": blind}, waivers=[{"rule": "npu.smi", "reason": "slow host"}])
    assert result["hosts"]["h"] == "fail"
    assert "npu.chips_present" in [f["rule"] for f in result["findings"] if f["status"] == "fail"]


@pytest.mark.parametrize("waiver,words", [
    ({"rule": "npu.driver_versoin", "reason": "r"}, "did you mean 'npu.driver_version'"),
    ({"rule": "npu.driver_version"}, "gives no reason"),
    ({"rule": "npu.driver_version", "reason": "  "}, "gives no reason"),
    ({"rule": "npu.driver_version", "reason": "r", "host": "x"}, "keys rule, reason, hosts"),
    ("npu.driver_version", "keys rule, reason, hosts"),
])
def test_a_wrong_waiver_is_an_error(waiver, words):
    with pytest.raises(gate.GateError, match=words):
        gate.judge({"h": GOOD}, waivers=[waiver])


@pytest.mark.parametrize("settings,words", [
    ({"host.clok": {"max_offset_s": 9}}, "did you mean 'host.clock'"),
    ({"host.clock": {"max_ofset_s": 9}}, "no bound 'max_ofset_s'; did you mean 'max_offset_s'"),
    ({"npu.smi": {"x": 1}}, "it has none"),
    ({"host.clock": 9}, "a dictionary of bounds, not 9"),
])
def test_a_wrong_setting_is_an_error(settings, words):
    with pytest.raises(gate.GateError, match=words):
        gate.judge({"h": GOOD}, settings=settings)


def test_bounds_can_be_tuned():
    late = surveys.changed(GOOD, ("survey.host.epoch_s", surveys.NOW + 60))
    assert gate.judge({"h": late})["hosts"] == {"h": "fail"}
    assert gate.judge({"h": late}, settings={"host.clock": {"max_offset_s": 120}})["hosts"] == {"h": "pass"}


def test_a_rule_that_breaks_blocks_and_says_so():
    result = gate.judge({"h": surveys.changed(GOOD, ("survey.chips", [{"device": "/dev/davinci0"}]))})
    broken = [f for f in result["findings"] if "could not judge" in f["found"]]
    assert broken and all(f["status"] == "unknown" and f["rule"] in gate.RULES for f in broken)
    assert result["hosts"]["h"] != "pass"


def test_rules_behind_a_failed_one_are_named_as_not_judged():
    blind = surveys.changed(GOOD, ("survey.npu_smi.timed_out", True), ("survey.chips", []))
    result = gate.judge({"h": blind})
    assert {"host": "h", "instance": None, "rule": "npu.chip_healthy", "because": "npu.smi"} in result["skipped"]
    assert "h: not judged, because npu.smi did not pass" in gate.explain("npu.chip_healthy", result, {"h": blind})


def test_explain_shows_what_why_bounds_and_verdict():
    text = gate.explain("host.clock", gate.judge({"h": GOOD}), {"h": GOOD})
    for piece in ("host.clock: The clock agrees", "why:", "source:", "max_offset_s = 5", "h: pass: found in step"):
        assert piece in text
    with pytest.raises(gate.GateError, match="did you mean 'host.clock'"):
        gate.explain("host.clocks", {}, {})


def test_rules_are_complete():
    for rule in gate.RULES.values():
        assert rule.title and rule.why and rule.source
        assert all(before in gate.RULES for before in rule.after)


@pytest.mark.parametrize("names,short", [
    (["a2-1", "a2-2", "a2-3", "a2-5", "b"], "a2-[1-3,5], b"), (["a2-10", "a2-9"], "a2-[9-10]"), (["n01", "n02", "n10"], "n[01-02,10]"),
    (["n09", "n10"], "n[09-10]"), (["n9", "n010"], "n[9,010]"), (["x"], "x"),
    (["r1-n1.lab", "r1-n2.lab", "r2-n1.lab"], "r1-n[1-2].lab, r2-n1.lab"), ([], ""),
])
def test_host_lists(names, short):
    assert gate_table.hosts_in_short(names) == short


def test_a_finding_has_a_known_status():
    with pytest.raises(ValueError):
        gate.finding("x", "maybe", "", "", "", "")


def test_a_bound_of_one_host_is_not_that_of_another():
    strict, loose = surveys.context(), dict(surveys.context(), rule_settings={"engine.storage": {"free_gib": 1000}})
    result = gate.judge({"a": strict, "b": loose})
    assert result["hosts"] == {"a": "pass", "b": "fail"}
    assert "1000 GiB" in [f for f in result["findings"] if f["status"] == "fail"][0]["expected"]


@pytest.mark.parametrize("settings, message", [
    ({"engine.storage": {"free_gib": "80"}}, "free_gib of rule engine.storage must be a number, not '80'"),
    ({"engine.storage": {"free_gib": True}}, "must be a number"), ({"engine.storage": 80}, "must be a dictionary of bounds, not 80"),
])
def test_a_bound_must_be_of_its_kind(settings, message):
    with pytest.raises(gate.GateError, match=re.escape(message)):
        gate.check([], settings)
