# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make bench` says of its figures."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

import pytest
from house import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import page  # noqa: E402  (after the path)

PLANNING = {"hosts": 500, "instances": 2000, "plan_s": 2.0, "judge_s": 1.0, "survey_cpu_s": 0.3, "npu_smi_cpu_s": 0.1, "proof_cpu_s": 0.4}


def case(way, walls, hosts=16, kind="deploy", far=0, error=None, **more):
    runs = [dict({"wall_s": wall, "cpu_s": 3.2, "node_cpu_s": 1.6, "memory_mib": 100.0, "other_cpu_share": 0.1, "connections": hosts,
                  "commands": hosts}, **more) for wall in walls]
    return {"hosts": hosts, "round_trip_ms": far, "kind": kind, "way": way, "runs": runs, "error": error}


def measured(*cases):
    return {"made": "2026-11-30", "cores": 2, "machine": "x86_64", "python": "3.11", "planning": PLANNING, "cases": list(cases)}


def met(*cases):
    return {what: ok for what, _found, _wanted, ok in page.goals(measured(*cases))}


def test_a_ratio_is_that_of_runs_side_by_side():
    cases = [case("openssh", [1.0, 4.0, 1.0]), case("deploy", [2.0, 8.0, 2.5]), case("openssh", [5.0], hosts=64, kind="preflight")]
    assert page.ratio(cases[1], cases) == 2.0 and page.ratio(cases[2], cases) == 1.0
    assert page.ratio(case("naive", [30.0]), cases) == 30.0, "of medians where runs are not as many"
    assert page.ratio(case("deploy", [1.0], hosts=8), cases) is None and page.ratio(case("pyinfra", []), cases) is None


@pytest.mark.parametrize("deploy, naive, commands, expected", [
    ([2.5, 2.5], [30.0], 16, (True, True, True)), ([2.6, 2.6], [30.0], 64, (False, False, False)), ([2.0], [], 48, (True, None, True))])
def test_goals_are_met_or_not_and_say_so(deploy, naive, commands, expected):
    found = met(case("openssh", [1.0] * len(deploy)), case("deploy", deploy, commands=commands), case("naive", naive))
    assert tuple(found.values())[:3] == expected


def test_the_survey_is_judged_at_its_largest_number_of_hosts():
    found = met(case("openssh", [10.0], 64, "preflight"), case("preflight", [11.0], 64, "preflight"),
                case("openssh", [30.0], 256, "preflight"), case("preflight", [60.0], 256, "preflight", memory_mib=400.0))
    assert found["survey and preflight of 256 hosts, times parallel OpenSSH"] is False and found["the same, memory of the controller"] is False


def test_the_page_keeps_what_is_not_its_own():
    document = "before\n%s\nold\n%s\nafter\n" % (page.BEGIN, page.END)
    text = page.text(measured(case("openssh", [1.0, 2.0]), case("deploy", [2.0, 3.0]), case("mitogen", [], error="core 2.99 is too new")))
    made = page.put(document, text)
    assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made and page.put(made, text) == made
    assert "does not work here: core 2.99 is too new" in made and "1.50 (1.00 … 2.00)" in made and "0.200" in made
    with pytest.raises(ValueError, match="has no place"):
        page.put("nothing", text)


def test_the_chart_is_one_picture_with_every_way_that_ran():
    chart = page.chart([case("openssh", [1.0, 2.0]), case("deploy", [2.0]), case("naive", [60.0]), case("mitogen", [], error="no")])
    words = [element.text for element in ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert "60.0 s" in words and "1.5 s" in words and not [word for word in words if word and "mitogen" in word]
    assert page.chart([]) == ""
