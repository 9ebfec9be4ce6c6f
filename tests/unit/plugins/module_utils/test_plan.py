# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent, plan

DIGEST = "sha256:" + "a" * 64
BUILT = "sha256:" + "b" * 64
FLAGS = {
    "tensor-parallel-size": {"kind": "value", "type": "int", "choices": []},
    "max-model-len": {"kind": "value", "type": "int", "choices": []},
    "dtype": {"kind": "value", "type": "str", "choices": []},
    "enforce-eager": {"kind": "bool", "type": "", "choices": []},
}


def model(name, devices, platforms=("a2",), patch_set="gemma4", **arguments):
    return {"name": name, "_file": "catalogue/models/%s.yml" % name, "suites": ["s"], "platforms": list(platforms), "image": "base",
            "patch_set": patch_set, "devices": devices, "weights": {"directory": name, "size_gb": devices},
            "default_max_model_len": 4096, "environment": {"HCCL_OP_EXPANSION_MODE": "AIV"}, "arguments": dict(arguments)}


def platform(name, family, suffix, **arguments):
    return {"name": name, "_file": "catalogue/platforms/%s.yml" % name, "families": [family], "image_suffix": suffix, "shm_size": "1g",
            "common_devices": ["/dev/davinci_manager"], "mounts": ["{driver}/driver/lib64"], "environment": {}, "arguments": arguments}


@pytest.fixture
def catalogue():
    models = [model("One", 1), model("Two", 2, **{"tensor-parallel-size": 2}), model("Four", 4, **{"tensor-parallel-size": 4}),
              model("Old", 1, platforms=["310p"], patch_set=None)]
    return {
        "models": dict((m["name"], m) for m in models),
        "platforms": {"a2": platform("a2", "910b", ""), "310p": platform("310p", "310p", "-310p", dtype="float16")},
        "patch_sets": {"gemma4": {"name": "gemma4"}}, "registries": {}, "compatibility": {}, "flags": {"0.18.0": FLAGS},
        "images": {"base": {"repository": "quay.io/ascend/vllm-ascend", "tag": "v1", "vllm": "0.18.0", "cann": "8.5.1"}},
    }


PATCH_SETS = {"gemma4": {"name": "gemma4", "id": "f" * 12}}


def survey(family="910b", chips=8, **extra):
    return dict({
        "family": family, "host": {"architecture": "x86_64"}, "engine": {"name": "docker", "path": "/usr/bin/docker"},
        "install_info": {"Driver_Install_Path_Param": "/opt/Ascend"}, "containers": [], "instances": {}, "weights": {},
        "chips": [{"index": n, "npu_id": n, "chip_id": 0, "phy_id": None, "name": "910B3", "health": "OK", "hbm_used_mib": 3400,
                   "hbm_total_mib": 65536, "device": "/dev/davinci%d" % n, "device_present": True, "processes": [], "holders": []}
                  for n in range(chips)]}, **extra)


def only(items):
    items = list(items)
    assert len(items) == 1
    return items[0]


def build(catalogue, variables, surveys=None, selection=None, lock=None, patch_sets=None, render=None):
    settings, problems = intent.read("h", dict({"fleet_registry": {"address": "r:5000"}}, **variables))
    assert problems == []
    return plan.build("f", {"h": settings}, catalogue, patch_sets or PATCH_SETS, lock or {}, surveys, selection, render)


def test_a_suite_fills_a_host_without_a_list_smallest_first(catalogue):
    made, problems = build(catalogue, {}, {"h": survey()}, set(["One", "Two", "Four", "Old"]))
    assert problems == []
    instances = made["hosts"]["h"]["instances"]
    assert [i["model"] for i in instances] == ["One", "Two", "Four"]
    assert [i["port"] for i in instances] == [8000, 8001, 8002]
    used = sum((i["chips"] for i in instances), [])
    assert len(used) == len(set(used)) == 7
    assert instances[1]["arguments"] == ["/models/Two", "--served-model-name", "Two", "--port", "8001", "--shutdown-timeout", "120",
                                         "--tensor-parallel-size", "2"]


def test_two_groups_on_a_host_get_hccl_ports_of_their_own(catalogue):
    made, _problems = build(catalogue, {}, {"h": survey()}, set(["One", "Two", "Four"]))
    environments = [i["environment"] for i in made["hosts"]["h"]["instances"]]
    assert "HCCL_IF_BASE_PORT" not in environments[0]
    assert [e["HCCL_IF_BASE_PORT"] for e in environments[1:]] == ["60000", "60032"]
    assert environments[2]["ASCEND_RT_VISIBLE_DEVICES"] == "0,1,2,3"
    assert environments[0]["LD_PRELOAD"] == "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"


def test_layers_lie_over_each_other_and_are_remembered(catalogue):
    made, problems = build(catalogue, {
        "fleet_instance_defaults": {"stability_window_s": 3, "environment": {"A": "1", "HCCL_OP_EXPANSION_MODE": None}},
        "fleet_models": {"Two": {"arguments": {"max_model_len": 1000}}},
        "fleet_instances": [{"model": "Two", "arguments": {"max-model-len": 2000}, "environment": {"A": "2"}}]}, {"h": survey()})
    assert problems == []
    instance = only(made["hosts"]["h"]["instances"])
    assert instance["stability_window_s"] == 3
    assert instance["arguments"].count("--max-model-len") == 1
    assert instance["max_model_len"] == 2000
    assert instance["environment"]["A"] == "2"
    assert "HCCL_OP_EXPANSION_MODE" not in instance["environment"]
    assert instance["provenance"]["arguments.max-model-len"] == "inventory: fleet_instances"
    assert instance["provenance"]["arguments.tensor-parallel-size"] == "catalogue/models/Two.yml"
    assert instance["provenance"]["stability_window_s"] == "inventory: fleet_instance_defaults"


def test_the_platform_gives_what_its_chips_need(catalogue):
    made, problems = build(catalogue, {"fleet_instances": ["Old"]}, {"h": survey("310p", 2)})
    assert problems == []
    instance = only(made["hosts"]["h"]["instances"])
    assert instance["arguments"][-2:] == ["--dtype", "float16"]
    image = only(made["images"].values())
    assert image["origin"] == "quay.io/ascend/vllm-ascend:v1-310p"
    assert image["patch_set"] is None
    assert {"source": "/opt/Ascend/driver/lib64", "target": "/opt/Ascend/driver/lib64", "read_only": True} in instance["mounts"]


def test_instances_of_one_image_share_it_and_the_lock_gives_its_digest(catalogue):
    open_plan, _none = build(catalogue, {}, {"h": survey()}, set(["One", "Two"]))
    target = only(open_plan["images"])
    assert target == "r:5000/ascend/vllm-ascend:v1-ffffffffffff-amd64"
    assert open_plan["images"][target]["target_digest"] is None
    assert open_plan["hosts"]["h"]["instances"][0]["image_reference"] is None
    lock = {"images": {"quay.io/ascend/vllm-ascend:v1": DIGEST}, "targets": {target: {"digest": BUILT, "base_digest": DIGEST}}}
    made, _none = build(catalogue, {}, {"h": survey()}, set(["One", "Two"]), lock, render=lambda *args: {"id": args[1]})
    assert made["images"][target]["target_digest"] == BUILT
    assert made["images"][target]["plain_digest"] is None, "the base was not copied"
    assert made["images"][target]["builder"] == "h"
    first = made["hosts"]["h"]["instances"][0]
    assert first["image_reference"] == "r:5000/ascend/vllm-ascend@" + BUILT
    assert first["release"] == {"id": "docker"}
    lock["images"]["quay.io/ascend/vllm-ascend:v1"] = "sha256:" + "c" * 64
    moved, _none = build(catalogue, {}, {"h": survey()}, set(["One"]), lock)
    assert moved["images"][target]["target_digest"] is None, "a target built on another base is not reused"


def test_the_copy_of_a_base_is_known_while_it_is_of_the_wanted_one(catalogue):
    plain, origin = "r:5000/ascend/vllm-ascend:v1-plain-amd64", "quay.io/ascend/vllm-ascend:v1"
    lock = {"images": {origin: DIGEST}, "targets": {plain: {"digest": BUILT, "base_digest": DIGEST}}}
    for known, digest in ((DIGEST, BUILT), ("sha256:" + "c" * 64, None)):
        lock["images"][origin] = known
        image = only(build(catalogue, {}, {"h": survey()}, set(["One"]), lock)[0]["images"].values())
        assert (image["plain"], image["plain_digest"], image["target_digest"]) == (plain, digest, None)


def test_a_run_about_one_model_keeps_the_places_of_the_others(catalogue):
    everything, _none = build(catalogue, {"fleet_instances": ["One", "Two"]}, {"h": survey()})
    one, _none = build(catalogue, {"fleet_instances": ["One", "Two"]}, {"h": survey()}, set(["Two"]))
    instance = only(one["hosts"]["h"]["instances"])
    assert instance["port"] == 8001
    assert build(catalogue, {"fleet_instances": ["Old"], "fleet_platform": "310p"}, {"h": survey()}, set(["Two"]))[0]["images"] == {}
    assert instance["chips"] == everything["hosts"]["h"]["instances"][1]["chips"]


def test_running_instances_keep_their_chips(catalogue):
    seen = survey()
    seen["containers"] = [{"name": "vllm-ascend-one", "state": "running", "labels": {plan.INSTANCE_LABEL: "one"}, "devices": ["/dev/davinci5"]}]
    seen["chips"][5]["holders"] = ["vllm-ascend-one"]
    made, problems = build(catalogue, {}, {"h": seen}, set(["One", "Two"]))
    assert problems == []
    assert made["hosts"]["h"]["instances"][0]["chips"] == [5]


def test_the_hash_is_of_the_content(catalogue):
    first, _none = build(catalogue, {}, {"h": survey()}, set(["One"]))
    again, _none = build(copy.deepcopy(catalogue), {}, {"h": survey()}, set(["One"]))
    other, _none = build(catalogue, {"fleet_first_port": 9000}, {"h": survey()}, set(["One"]))
    assert first["hash"] == again["hash"] != other["hash"]


@pytest.mark.parametrize("variables, selection, words", [
    ({"fleet_instances": ["Onne"]}, None, ["unknown model 'Onne'", "did you mean 'One'"]),
    ({"fleet_instances": ["Old"]}, None, ["Old is not supported on a2, only on 310p"]),
    ({"fleet_instances": [{"model": "Two", "devices": 1}]}, None, ["need 2 NPUs but devices gives 1"]),
    ({"fleet_instances": [{"model": "One", "arguments": {"max-modle-len": 1}}]}, None, ["did you mean 'max-model-len'"]),
    ({"fleet_instances": [{"model": "One", "image": "bse"}]}, None, ["unknown image 'bse'"]),
    ({"fleet_instances": [{"model": "One", "patch_set": "gema4"}]}, None, ["unknown patch set 'gema4'"]),
    ({"fleet_platform": "a4"}, None, ["unknown fleet_platform 'a4'"]),
    ({"fleet_registry": None, "fleet_instances": ["One"]}, None, ["fleet_registry is not set"]),
])
def test_what_cannot_be_is_named(catalogue, variables, selection, words):
    _made, problems = build(catalogue, variables, {"h": survey()}, selection)
    text = "\n".join(problems)
    for word in words:
        assert word in text


def test_a_patch_set_that_cannot_be_had_is_said_before_any_host_is_asked(catalogue):
    _made, problems = build(catalogue, {"fleet_instances": ["One"]}, None, patch_sets={"gemma4": "patch file x is missing"})
    assert problems == ["patch file x is missing"]
    _made, problems = build(catalogue, {}, None, set(["One"]), patch_sets={"gemma4": "patch file x is missing"})
    assert problems == ["patch file x is missing"], "the platform need not be known for that"
    _made, problems = build(catalogue, {"fleet_instances": ["Old"], "fleet_platform": "310p"}, None, patch_sets={"gemma4": "missing"})
    assert problems == [], "a patch set that nobody asks for does not matter"


def test_a_host_that_cannot_run_the_suite_is_left_alone(catalogue):
    made, problems = build(catalogue, {}, {"h": survey("310p", 4)}, set(["One"]))
    assert problems == []
    assert made["hosts"]["h"]["instances"] == []
    assert "none of One runs on" in made["hosts"]["h"]["notes"][0]


def test_the_survey_is_asked_for_what_the_plan_will_need(catalogue):
    settings, _none = intent.read("h", {"fleet_instances": ["One", {"model": "Two", "port": 9000, "weights": "/data/two"}]})
    request = plan.survey_request(settings, catalogue, None)
    assert request["ports"] == [8000, 9000]
    assert request["weights"] == ["/data/two", "/models/One"]
    assert "/usr/local/Ascend/driver/lib64" in request["paths"]


def test_selecting_an_unknown_model_names_the_nearest(catalogue):
    assert "did you mean 'Four'" in plan.select(catalogue, model="Fuor")[1][0]
    assert plan.select(catalogue, suite="s") == (set(["One", "Two", "Four", "Old"]), [])


def test_overrides_of_several_levels_add_up_and_name_their_level(catalogue):
    levels = [
        ("group_vars of all", {"fleet_models": {"One": {"arguments": {"max-model-len": 8, "dtype": "half"}}}}),
        ("group_vars of a2", {"fleet_models": {"One": {"arguments": {"max_model_len": 16}}}}),
        ("host_vars of h", {"fleet_models": {"One": {"ready_timeout_s": 7}}, "fleet_instances": ["One"], "fleet_first_port": 9000}),
    ]
    variables = dict(levels[2][1], fleet_registry={"address": "r:5000"})
    settings, problems = intent.read("h", variables, levels)
    assert problems == []
    made, problems = plan.build("f", {"h": settings}, catalogue, PATCH_SETS, {}, {"h": survey()})
    assert problems == []
    instance = only(made["hosts"]["h"]["instances"])
    assert instance["options"] == {"max-model-len": 16, "dtype": "half"} and instance["ready_timeout_s"] == 7
    assert instance["provenance"]["arguments.dtype"] == "group_vars of all: fleet_models['One']"
    assert instance["provenance"]["arguments.max-model-len"] == "group_vars of a2: fleet_models['One']"
    assert instance["provenance"]["ready_timeout_s"] == "host_vars of h: fleet_models['One']"
    assert instance["provenance"]["port"] == "host_vars of h: fleet_first_port"
    assert instance["provenance"]["model"] == "host_vars of h: fleet_instances"


def images(**hosts):
    """Images without a digest, by the hosts that need them."""
    return dict((target, {"hosts": names, "target_digest": None}) for target, names in hosts.items())


@pytest.mark.parametrize("needed, active, expected", [
    ({"x": ["a", "b"], "y": ["a", "b"]}, ["a", "b"], {"x": "a", "y": "b"}),
    ({"x": ["a", "b", "c"], "y": ["a"], "z": ["a", "b"]}, ["a", "b", "c"], {"y": "a", "z": "b", "x": "c"}),
    ({"x": ["a"], "y": ["a"]}, ["a", "b"], {"x": "a", "y": "a"}),
    ({"x": ["a", "b"]}, ["b"], {"x": "b"}),
    ({"x": ["a"]}, ["b"], {"x": None}),
])
def test_builders_share_the_work(needed, active, expected):
    assert plan.builders(images(**needed), active) == expected


def test_an_image_that_is_there_is_no_work():
    found = images(x=["a", "b"], y=["a", "b"])
    found["x"]["target_digest"] = BUILT
    assert plan.builders(found, ["a", "b"]) == {"x": "a", "y": "a"}


def test_every_image_has_one_builder_whoever_left():
    made = {"images": images(x=["a", "b", "c"], y=["a", "b"], z=["c"], w=["a", "b", "c"])}
    for target, host in plan.builders(made["images"], ["a", "b", "c"]).items():
        made["images"][target]["builder"] = host
    made["images"]["w"]["target_digest"] = BUILT
    for active in (["a", "b", "c"], ["b", "c"], ["a", "c"], ["c"]):
        built = [target for host in active for target in plan.to_build(made, host, active)]
        assert sorted(built) == sorted(target for target in "xyz" if set(made["images"][target]["hosts"]) & set(active))
    assert plan.to_build(made, "a", ["b", "c"]) == []


def test_a_version_without_a_flag_table_is_said_and_still_rendered(catalogue):
    catalogue["images"]["base"]["vllm"] = "0.99.0"
    made, problems = build(catalogue, {"fleet_instances": [{"model": "One", "arguments": {"enforce-eager": True, "nonsense": 1}}]}, {"h": survey()})
    assert problems == []
    note = only(made["hosts"]["h"]["notes"])
    assert "one: its arguments are not checked" in note and "vLLM 0.99.0" in note and "catalogue/engine_flags/README.md" in note
    assert only(made["hosts"]["h"]["instances"])["arguments"][-3:] == ["--enforce-eager", "--nonsense", "1"]
    catalogue["images"]["base"]["vllm"] = "0.18.0"
    made, _problems = build(catalogue, {"fleet_instances": ["One"]}, {"h": survey()})
    assert made["hosts"]["h"]["notes"] == []


def test_a_bundle_gives_the_digest_and_the_name_of_the_image(catalogue):
    """On a host that has it from the registry it keeps that name; what came from a bundle keeps its own without it."""
    settings, problems = intent.read("h", {"fleet_instances": ["One"], "fleet_registry": {"address": "r:5000"}})
    assert not problems
    name, other, ours = "ascend/vllm-ascend:v1-%s-amd64" % ("f" * 12), "127.0.0.1:5380/ascend/vllm-ascend@" + BUILT, "r:5000/ascend/vllm-ascend@" + BUILT
    bundled = {"images": {}, "targets": {}, "bundle": {name: {"digest": BUILT, "folder": "/b", "blobs": {}}}}
    locked = {"images": {}, "targets": {"r:5000/" + name: {"digest": BUILT}}}

    def reference(lock, *digests):
        made, found = plan.build("f", {"h": settings}, catalogue, PATCH_SETS, lock, {"h": survey(images=[{"digests": list(digests), "tags": []}])})
        assert not found
        return only(made["hosts"]["h"]["instances"])["image_reference"], only(made["images"].values()).get("bundle")

    assert reference(bundled) == (other, {"folder": "/b", "blobs": {}})
    assert reference(bundled, ours)[0] == ours
    assert reference(locked) == (ours, None) and reference(locked, other) == (other, None) and reference(locked, other, ours) == (ours, None)
