# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import recovery


def instance(name, **extra):
    return dict({"name": name, "model": name, "served_model_name": name, "devices": ["/dev/davinci0"], "port": 8000, "patch_set": None,
                 "release": {"id": "new"}}, **extra)


DIFFERENCES = {"old": {"action": "replace", "before": "was"}, "fresh": {"action": "install", "before": None},
               "same": {"action": "keep", "before": "new"}, "good": {"action": "replace", "before": "was"}}
INSTANCES = [instance(name) for name in DIFFERENCES]
PROVEN = {"good": {"ready": True, "elapsed_s": 3.1}, "old": {"ready": False, "findings": [
    {"status": "fail", "rule": "endpoint.model", "found": "another", "expected": "old", "remedy": "look"}]}}


def test_every_instance_of_the_plan_has_an_outcome():
    plan = {"hosts": {"h": {"instances": INSTANCES + [instance("lost")]}, "gone": {"instances": [instance("x")]}}}
    rows = recovery.summarize(plan, {"h": {
        "differences": DIFFERENCES, "proven": dict(PROVEN, same={"ready": True}), "failure": "old is not proven", "reverted": ["old"],
        "removed": ["fresh"], "address": "192.0.2.1"}})
    assert {row["instance"]: row["outcome"] for row in rows} == {
        "old": "reverted", "fresh": "removed", "same": "unchanged", "good": "deployed", "lost": "failed", "x": "not reached"}
    good = next(row for row in rows if row["instance"] == "good")
    assert good["curl"].startswith("curl -sS http://192.0.2.1:8000/v1/chat/completions ")
    assert good["ready_s"] == 3.1
    assert "endpoint.model: another" in next(row for row in rows if row["instance"] == "old")["reason"]
    rows = recovery.summarize(plan, {"h": {"differences": DIFFERENCES, "proven": {"same": {"ready": True}, "old": {"ready": True}}}}, True)
    assert [row["outcome"] for row in rows] == ["would replace", "would install", "unchanged", "would replace", "not reached", "not reached"]
    rows = recovery.summarize(plan, {"h": {"differences": DIFFERENCES, "proven": PROVEN, "failure": "f", "down": "d", "reverted": ["old"]}})
    assert rows[0]["outcome"] == "down"


def test_the_key_is_named_not_shown():
    assert "$VLLM_API_KEY" in recovery.curl("::1", instance("m", secret=True))
    assert "[::1]:8000" in recovery.curl("::1", instance("m"))


SURVEY = {
    "instances": {
        "b": {"release": "r2", "previous": "r1", "unit": {"active_state": "active"},
              "manifest": {"name": "b", "model": "B", "image_reference": "r:5000/x@sha256:1"}},
        "a": {"release": "r1", "previous": None, "manifest": None, "unit": None}},
    "images": [
        {"digests": ["r:5000/x@sha256:1"], "tags": [], "labels": {}},
        {"digests": ["r:5000/y@sha256:2"], "tags": ["y:1"], "labels": {"vllm-ascend-fleet.patch-set": "f"}},
        {"digests": ["quay.io/z@sha256:3"], "tags": ["z:1"], "labels": {}}]}


def test_what_is_installed_is_told_by_its_manifest():
    assert [m["name"] for m in recovery.installed(SURVEY)] == ["a", "b"]
    assert [m["name"] for m in recovery.installed(SURVEY, "B")] == ["b"]
    assert [m["name"] for m in recovery.installed(SURVEY, "", True)] == ["b"]
    assert recovery.installed(SURVEY, "b")[0]["release"] == {"id": "r2"}
    assert recovery.installed({"unreachable": True}) == []


def test_images_of_others_are_not_ours():
    assert recovery.our_images(SURVEY) == ["r:5000/x@sha256:1", "r:5000/y@sha256:2", "y:1"]
    ours = {"image": "y:1", "labels": {"vllm-ascend-fleet.instance": "b"}}
    assert "y:1" in recovery.our_images(dict(SURVEY, containers=[ours]))
    for used in ("y:1", "r:5000/y@sha256:2", "abcdef012345"):
        theirs = dict(SURVEY, containers=[{"image": used, "labels": {}}])
        theirs["images"][1]["id"] = "sha256:abcdef0123456789"
        assert recovery.our_images(theirs) == ["r:5000/x@sha256:1"], "somebody else uses it"


def test_the_base_of_an_image_of_ours_goes_with_it_unless_somebody_tagged_it():
    built = {"digests": ["r:5000/y@sha256:2"], "tags": [], "labels": {"vllm-ascend-fleet.patch-set": "f", "vllm-ascend-fleet.base-digest": "sha256:9"}}
    base = {"digests": ["m.daocloud.io/quay.io/y@sha256:9"], "tags": [], "labels": {}}
    assert recovery.our_images({"images": [built, base]}) == ["m.daocloud.io/quay.io/y@sha256:9", "r:5000/y@sha256:2"]
    assert recovery.our_images({"images": [built, dict(base, tags=["y:v1"])]}) == ["r:5000/y@sha256:2"]
    assert recovery.our_images({"images": [base]}) == []


def test_only_instances_with_a_secret_get_the_key():
    instances = [{"name": "a", "secret": True}, {"name": "b", "secret": False}]
    assert recovery.secrets(instances, "k") == {"a": {"VLLM_API_KEY": "k"}}
    assert recovery.api_keys(instances, None) == {}


def test_status_has_a_row_for_every_host():
    proven = {"b": {"ready": False, "findings": [{"status": "pass", "found": "x"}, {"status": "fail", "found": "port closed"}]}}
    a, b = recovery.status_rows("h", SURVEY, proven)
    assert (a["instance"], a["answers"]) == ("a", "not asked")
    assert (b["unit"], b["release"], b["previous"], b["answers"]) == ("active", "r2", "r1", "no: port closed")
    assert recovery.status_rows("h", {"instances": {}}, {})[0]["unit"] == "serves nothing"
    assert "no route" in recovery.status_rows("h", {"unreachable": True, "error": "no route"}, {})[0]["unit"]


def test_a_survey_without_what_will_be_gone():
    def container(name, instance):
        return {"name": name, "labels": {"vllm-ascend-fleet.instance": instance} if instance else {}}

    survey = {
        "instances": {"old": {}, "one": {}}, "containers": [container("c-old", "old"), container("c-one", "one"), container("alien", None)],
        "ports": {"8000": {"free": False, "listener": {"instance": "old"}}, "8001": {"free": False, "listener": {"instance": None}}},
        "chips": [
            {"index": 0, "holders": ["c-old"], "processes": [{"pid": 1, "container": "c-old"}, {"pid": 2, "container": None}], "hbm_used_mib": 60000},
            {"index": 1, "holders": ["alien"], "processes": [{"pid": 3, "container": "alien"}], "hbm_used_mib": 60000},
            {"index": 2, "holders": ["c-old", "alien"], "processes": [{"pid": 4, "container": "alien"}], "hbm_used_mib": 9}]}
    before = copy.deepcopy(survey)
    seen = recovery.without(survey, ["old"])
    assert survey == before
    assert sorted(seen["instances"]) == ["one"] and [c["name"] for c in seen["containers"]] == ["c-one", "alien"]
    assert seen["ports"]["8000"] == {"free": True, "listener": None} and seen["ports"]["8001"] == before["ports"]["8001"]
    assert seen["chips"][0] == {"index": 0, "holders": [], "processes": [], "hbm_used_mib": None}
    assert seen["chips"][1] == before["chips"][1]
    assert seen["chips"][2]["holders"] == ["alien"] and seen["chips"][2]["processes"] == before["chips"][2]["processes"]
    assert recovery.without(survey, []) is survey and recovery.without(None, ["old"]) is None
    assert recovery.without({"unreachable": True}, ["old"]) == {"unreachable": True}


def test_the_way_back_is_a_plan_of_what_ran_before():
    made, differences = recovery.way_back({"h": dict(SURVEY, instances=dict(SURVEY["instances"], b=dict(
        SURVEY["instances"]["b"], manifest={"name": "b", "model": "B", "port": 8000, "served_model_name": "B"}))), "gone": {"unreachable": True}})
    assert differences == {"h": {"b": {"action": "replace", "before": "r2", "after": "r1"}}}
    assert list(made["hosts"]) == ["h"] and [each["name"] for each in made["hosts"]["h"]["instances"]] == ["b"]
    assert recovery.way_back({"h": SURVEY}, hosts=["other"])[1] == {}


@pytest.mark.parametrize("change, action, words", [
    ({}, "keep", None),
    ({}, "replace", "inventory (ours)"),
    ({"whole": False}, "keep", "files (the host's)"),
    ({"unit_sha256": "edited"}, "replace", "files (both)"),
    ({"running": "other"}, "keep", "container (the host's)"),
    ({"driver": "25.5.1"}, None, "driver 25.5.0 -> 25.5.1 (the host's)"),
    ({"attested": "fail"}, "keep", "patched files (the host's)"),
])
def test_drift_is_told_layer_by_layer_and_whose_doing_it_is(change, action, words):
    found = {"release": "r1", "whole": change.get("whole", True), "sha256": {"u.service": "s"}, "unit": {"unit_sha256": change.get("unit_sha256", "s")}}
    labels = {"vllm-ascend-fleet.instance": "one", "vllm-ascend-fleet.release": change.get("running", "r1")}
    survey = {"containers": [{"labels": labels, "state": "running"}], "driver": {"version": change.get("driver", "25.5.0")}}
    proof = {"findings": [{"rule": "endpoint.attested", "status": change.get("attested", "pass")}]}
    assert recovery.drift({"name": "one", "unit": "u.service"}, found, survey, {"driver": "25.5.0"}, proof, action) == words


def test_a_host_has_work_when_something_differs_does_not_answer_or_was_cut_off():
    entry, keep, ready = {"instances": [{"name": "one"}]}, {"one": {"action": "keep"}}, {"one": {"ready": True}}
    assert not recovery.has_work(entry, keep, ready, {"state": {"state": "serving"}})
    assert recovery.has_work(entry, {"one": {"action": "repair"}}, ready)
    assert recovery.has_work(entry, keep, {"one": {"ready": False}}) and recovery.has_work(entry, keep, None)
    assert recovery.has_work(entry, keep, ready, {"state": {"state": "proving"}})
    assert not recovery.has_work({"instances": []}, {}, None, {"state": {"state": "proving"}})


def test_a_host_without_instances_needs_no_state_unless_it_holds_a_lease():
    assert recovery.is_left_over({"instances": {}}) and recovery.is_left_over({"lease": {"owner": {"name": "x"}, "released": True}})
    assert not any(map(recovery.is_left_over, [None, SURVEY, {"unreachable": True}, {"instances": {}, "lease": {"owner": {"name": "x"}}}]))
