# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text


FILES = {"u.service": "unit", "environment": "e", "manifest.json": "{}"}


def instance(name, release="b" * 12):
    return {
        "name": name,
        "devices": ["/dev/davinci2", "/dev/davinci3"],
        "port": 8002,
        "patch_set": {"name": "gemma4", "id": "0" * 12},
        "image": "registry:5000/ascend/vllm-ascend:v1",
        "image_name": "vllm",
        "release": {"id": release, "files": FILES} if release else None,
        "unit": "u.service",
        "container": "c-" + name,
        "secret": False,
    }


def whole(name, **changes):
    """The survey's entry of an instance that is to the last byte as its release says, and its container."""
    hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in FILES.items()}
    found = {"release": "b" * 12, "sha256": hashes, "secret": None, "unit": {
        "active_state": "active", "unit_sha256": hashes["u.service"], "needs_reload": False, "unit_file_state": "enabled"}}
    return dict(found, **changes)


def container(name, release="b" * 12):
    return {"name": "c-" + name, "state": "running", "labels": {"vllm-ascend-fleet.release": release}}


def test_what_will_be_done_follows_from_what_runs():
    plan = {"hosts": {"h": {"notes": [], "instances": [
        instance("same"), instance("down"), instance("other"), instance("new"), instance("unbuilt", None)]}}}
    survey = {"instances": {
        "same": whole("same"),
        "down": {"release": "b" * 12, "unit": {"active_state": "failed"}},
        "other": {"release": "a" * 12, "unit": {"active_state": "active"}},
    }, "containers": [container("same")]}
    found = plan_text.differences(plan, {"h": survey})["h"]
    assert {name: entry["action"] for name, entry in found.items()} == {
        "same": "keep", "down": "start", "other": "replace", "new": "install", "unbuilt": "build"}


def test_the_table_shows_devices_and_notes():
    plan = {"hosts": {"h": {"notes": ["a note"], "instances": [instance("one")]}, "i": {"notes": [], "instances": []}}}
    text = plan_text.render(plan, {})
    assert "2,3" in text
    assert "h: a note" in text
    assert text.splitlines()[2].split()[:2] == ["i", "-"]


def test_hosts_of_which_the_same_is_said_stand_together():
    plan = {"hosts": dict((host, {"notes": ["nothing to deploy"], "instances": []}) for host in ("h", "i"))}
    assert plan_text.notes(plan) == ["h, i: nothing to deploy"]


def test_long_lists_are_cut():
    assert plan_text.shorten(["h%d" % n for n in range(10)], 3) == "h0, h1, h2 and 7 more"


def full(name, **changes):
    return dict(instance(name), **dict({
        "image_reference": None, "unit": "vllm-ascend-%s.service" % name, "device_count": 2, "served_model_name": name,
        "weights": {"path": "/models/" + name}, "shm_size": "1g", "ready_timeout_s": 900, "shutdown_timeout_s": 120,
        "stability_window_s": 10, "sanity": "full", "expected_answer": None, "environment": {"LC_ALL": "C", "HF_TOKEN": "planted"},
        "options": {"max-model-len": 4096, "dtype": None},
        "provenance": {"arguments.max-model-len": "group_vars of a2: fleet_models['M']", "port": "built in: fleet_first_port"}}, **changes))


def test_each_value_stands_with_its_layer_and_hosts_that_get_the_same_stand_together():
    hosts = dict((host, {"notes": [], "instances": [full("one")]}) for host in ("h1", "h2"))
    hosts["h3"] = {"notes": [], "instances": [full("one", port=9000)]}
    lines = plan_text.sources({"hosts": hosts})
    assert [line for line in lines if " on " in line and not line.startswith(" ")] == ["one on h1, h2", "one on h3"]
    cells = [line.split(None, 1) for line in lines if line.startswith("  ")]
    shown = dict((cell[0], " ".join(cell[1].split())) for cell in cells[:len(cells) // 2])
    assert shown["--max-model-len"] == "group_vars of a2: fleet_models['M'] 4096"
    assert shown["port"] == "built in: fleet_first_port 8002"
    assert shown["LC_ALL"] == "built in C"
    assert shown["--dtype"] == "built in left out"
    assert shown["devices"] == "built in /dev/davinci2, /dev/davinci3"
    assert "planted" not in "\n".join(lines)


UNIT = "# Made by vllm_ascend.fleet: instance one, release %s. A deploy replaces it.\nExecStart=docker run \\\n  vllm serve /m --port 1%s\n"


def changed(before, after, action_release="b" * 12):
    wanted = full("one", release={"id": action_release, "files": {
        "vllm-ascend-one.service": UNIT % (action_release, after), "environment": "A=1\n"}} if action_release else None)
    survey = {"instances": {"one": {"release": "a" * 12, "unit": {"active_state": "active"}, "files": {
        "unit": UNIT % ("a" * 12, before), "environment": "A=1\n"}}}}
    files = {"vllm-ascend-one.service": UNIT % ("-" * 12, after), "environment": "A=1\n"}
    made = {"hosts": {"h": {"notes": [], "instances": [wanted]}}}
    return plan_text.changes(made, {"h": survey}, lambda entry, one: files)


def test_a_change_is_a_diff_by_argument_without_the_release_id():
    lines = changed(" --seed 1 --dtype half", " --seed 2 --dtype half")
    assert [line.strip() for line in lines if line.strip()[:1] in "+-" and line.strip()[1:2] == " "] == ["-    --seed 1", "+    --seed 2"]
    assert "release %s -> %s" % ("a" * 12, "b" * 12) in lines[1]


def test_an_image_that_is_not_built_yet_is_compared_too():
    lines = changed("", " --seed 2", None)
    assert "not built yet" in lines[1] and "  +    --seed 2" in lines


def test_texts_that_are_the_same_say_so():
    assert changed("", "")[-1].strip() == "the texts are the same but for the release's id"


def test_what_is_new_or_as_wanted_has_no_diff():
    made = {"hosts": {"h": {"notes": [], "instances": [full("one", unit="u.service")]}}}
    kept = {"h": {"instances": {"one": whole("one")}, "containers": [container("one")]}}
    assert plan_text.changes(made, {}, None) == [] and plan_text.changes(made, kept, None) == []


def test_what_left_the_inventory_is_told_only_of_hosts_that_list_their_instances():
    surveys = dict((host, {"instances": {"one": {}, "old": {}}}) for host in ("h", "i"))
    assert plan_text.left_over({"h": ["one"]}, surveys) == {"h": ["old"]}
    assert plan_text.left_over({"h": [], "gone": []}, surveys) == {"h": ["old", "one"]}
    assert plan_text.left_over({}, surveys) == {}
    assert plan_text.left_over_lines({"h": ["old", "one"]}) == ["h: left the inventory: old, one; deploy.yml -e prune=true removes what left"]
    assert plan_text.left_over_lines({"h": ["old"]}, True) == ["h: left the inventory: old; removed by this run"]


@pytest.mark.parametrize("found, running", [
    ({"sha256": {}}, "b" * 12),
    ({"secret": {"hmac": "x", "mode": "0600"}}, "b" * 12),
    ({"unit": dict(whole("one")["unit"], unit_sha256="edited")}, "b" * 12),
    ({"unit": dict(whole("one")["unit"], needs_reload=True)}, "b" * 12),
    ({"unit": dict(whole("one")["unit"], unit_file_state="disabled")}, "b" * 12),
    ({}, "a" * 12),
    ({}, None),
])
def test_what_was_altered_is_repaired(found, running):
    made = {"hosts": {"h": {"notes": [], "instances": [instance("one")]}}}
    survey = {"instances": {"one": whole("one", **found)}, "containers": [container("one", running)] if running else []}
    assert plan_text.differences(made, {"h": survey}, {"h": None})["h"]["one"]["action"] == "repair"


def test_a_secret_is_compared_by_its_keyed_hash():
    made = {"hosts": {"h": {"notes": [], "instances": [dict(instance("one"), secret=True)]}}}
    survey = {"instances": {"one": whole("one", secret={"hmac": "x", "mode": "0600"})}, "containers": [container("one")]}
    assert [plan_text.differences(made, {"h": survey}, {"h": wanted})["h"]["one"]["action"] for wanted in ("x", "y", None)] == ["keep", "repair", "repair"]
    survey["instances"]["one"]["secret"]["mode"] = "0644"
    assert plan_text.differences(made, {"h": survey}, {"h": "x"})["h"]["one"]["action"] == "repair"
