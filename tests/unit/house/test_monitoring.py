# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alert rules and dashboards: whole, and made of series that exist."""

from __future__ import annotations

import json
import re

import pytest
from house import ROOT, load_yaml

from ansible_collections.vllm_ascend.fleet.plugins.action import file_set
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import monitoring

ROLE = ROOT / "roles" / "monitoring"
KNOWN = {name for names in load_yaml(ROOT / "catalogue" / "metrics.yml").values() for name in names}
DASHBOARDS = sorted(ROLE.glob("files/dashboards/*.json"))


def rules():
    """The alert rules with the role's own bounds."""
    import yaml
    defaults = load_yaml(ROLE / "defaults" / "main.yml")
    text = (ROLE / "files" / "rules.yml").read_text(encoding="utf-8")
    names = set(re.findall(r"@([a-z][a-z0-9_]*)@", text))
    filled = file_set.filled(text, {name: defaults["monitoring_" + name] for name in names})
    return [rule for group in yaml.safe_load(filled)["groups"] for rule in group["rules"]]


def test_the_role_fills_every_place_of_the_rules():
    (task,) = [task for task in load_yaml(ROLE / "tasks" / "main.yml") if "vllm_ascend.fleet.file_set" in task]
    given = task["vllm_ascend.fleet.file_set"]["sources"]["rules/fleet.yml"]["replace"]
    assert set(given) == set(re.findall(r"@([a-z][a-z0-9_]*)@", (ROLE / "files" / "rules.yml").read_text(encoding="utf-8")))
    assert all(value == "{{ monitoring_%s }}" % name for name, value in given.items())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_names_series_that_exist_and_a_remedy(rule):
    names = monitoring.metric_names(rule["expr"])
    assert names and set(names) <= KNOWN, set(names) - KNOWN
    assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"] and rule["annotations"]["remedy"]


def test_each_rule_is_tested():
    tested = {case["alertname"] for test in load_yaml(ROOT / "tests" / "fixtures" / "monitoring" / "rules_test.yml")["tests"] for case in test["alert_rule_test"]}
    assert tested == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole_and_its_series_exist(path):
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"].startswith("vllm-ascend-fleet-") and board["title"] and board["schemaVersion"] >= 36
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    variables = {variable["name"] for variable in board["templating"]["list"]}
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not own & cells, f"{panel['title']} covers another panel"
        cells |= own
        assert panel["type"] in ("timeseries", "stat") and panel["title"] and panel["fieldConfig"]["defaults"]["unit"] and panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert set(re.findall(r"\$(?:\{)?(\w+)", target["expr"])) <= variables and target["datasource"]["uid"] == "${datasource}"
            names = monitoring.metric_names(target["expr"])
            assert names and set(names) <= KNOWN, f"{panel['title']}: {set(names) - KNOWN}"


def test_there_are_dashboards():
    assert [path.stem for path in DASHBOARDS] == ["instances", "npus"]


def test_a_planted_series_is_found():
    assert set(monitoring.metric_names("rate(vllm:no_such_thing_total[5m])")) - KNOWN == {"vllm:no_such_thing_total"}
