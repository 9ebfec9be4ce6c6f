# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rehearsal fleet consists of, and what bad input says."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal, rehearsal_models

REGISTRIES = [
    {"name": "registry.rehearsal", "kind": "fleet", "address": "172.31.240.2", "port": 5000},
    {"name": "quay.io", "kind": "upstream", "address": "172.31.240.3", "port": 443},
    {"name": "mirror.example", "kind": "mirror", "address": "172.31.240.4", "port": 443, "prefix": "quay.io"},
]


def fleet(*nodes, **more):
    return dict({"name": "rehearsal", "subnet": "172.31.240.0/24", "state_directory": "/state", "node_image": "node",
                 "registry_image": "registry", "registries": REGISTRIES, "nodes": list(nodes)}, **more)


def node(name="a2-1", address="172.31.240.11", platform="a2", **more):
    return dict({"name": name, "address": address, "platform": platform}, **more)


def contents(container):
    return {file["path"]: file.get("content") for file in container["files"]}


@pytest.mark.parametrize("platform, count, npus, dies", [("a2", 8, 8, 1), ("a3", 16, 8, 2), ("310p", 4, 2, 2)])
def test_every_platform_counts_its_chips_as_its_product_does(platform, count, npus, dies):
    chips = rehearsal.chips(platform)
    assert [chip["index"] for chip in chips] == list(range(count))
    assert len({chip["npu"] for chip in chips}) == npus
    assert {chip["chip"] for chip in chips} == set(range(dies))


def test_both_chips_of_a_duo_card_print_the_same_bus():
    chips = rehearsal.chips("310p")
    assert chips[0]["bus"] == chips[1]["bus"] != chips[2]["bus"]
    assert (chips[0]["npu"], chips[0]["total"], chips[1]["total"]) == (1, 44280, 43693)


@pytest.mark.parametrize("count", [0, 3, 18])
def test_a_number_of_chips_that_no_host_has_is_refused(count):
    with pytest.raises(rehearsal.RehearsalError, match="rehearsal_fleet_chips is %d; a host of platform a3 has 2 to 16 in steps of 2" % count):
        rehearsal.chips("a3", count)


@pytest.mark.parametrize("wrong, words", [
    ({"platform": "a5"}, "node a2-1: rehearsal_fleet_platform is 'a5'; it must be one of 310p, a2, a3, none"),
    ({"platform": None}, "rehearsal_fleet_platform is None"),
    ({"models": ["gemma-5"]}, "rehearsal_fleet_models names gemma-5; known are DeepSeek-R1-W8A8"),
])
def test_unknown_words_are_named(wrong, words):
    with pytest.raises(rehearsal.RehearsalError, match=words):
        rehearsal.describe_node(node(**wrong))


def test_a_driver_version_reaches_the_tool_and_the_version_file():
    container = rehearsal.containers(fleet(node(driver_version="26.0.rc1", firmware_version="7.9")))[1]
    files = contents(container)
    assert json.loads(files["/etc/rehearsal/node.json"])["driver_version"] == "26.0.rc1"
    assert files["/usr/local/Ascend/driver/version.info"].splitlines()[0] == "Version=26.0.rc1"
    assert files["/usr/local/Ascend/firmware/version.info"].startswith("Version=7.9\nfirmware_version=1.0\npackage_version=26.0.rc1\n")


def test_only_hosts_with_roce_ports_have_hccn_conf():
    assert "/etc/hccn.conf" in contents(rehearsal.containers(fleet(node()))[1])
    assert "/etc/hccn.conf" not in contents(rehearsal.containers(fleet(node(platform="310p")))[1])


def test_nodes_know_registries_and_trust_them_and_answer_to_their_name():
    container = rehearsal.containers(fleet(node("a2-01.example.net"), node("a3-1", "172.31.240.12", "a3")))[1]
    assert container["hosts"] == {"registry.rehearsal": "172.31.240.2", "quay.io": "172.31.240.3", "mirror.example": "172.31.240.4"}
    assert "/etc/docker/certs.d/quay.io/ca.crt" in contents(container)
    assert "/etc/docker/certs.d/registry.rehearsal:5000/ca.crt" in contents(container)
    assert (container["name"], container["aliases"]) == ("rehearsal-a2-01.example.net", ["a2-01.example.net"])
    assert "--network-alias" in rehearsal.run_arguments(container, "net", "rehearsal", "c0ffee")


def test_a_name_that_no_container_may_have_is_made_one():
    container = rehearsal.containers(fleet(node("rack_1/a2:7")))[1]
    assert container["name"] == "rehearsal-rack-1-a2-7" and container["aliases"] == ["rack-1-a2-7", "rack_1/a2:7"]
    with pytest.raises(rehearsal.RehearsalError, match="hosts a_1 and a-1 would both be called a-1; rename one"):
        rehearsal.resolved([], [node("a_1"), node("a-1")], "172.31.240.0/24")


def test_a_plain_host_has_neither_chips_nor_an_engine():
    container = rehearsal.containers(fleet(node("gw-1", platform="none")))[1]
    files = contents(container)
    assert json.loads(files["/etc/rehearsal/node.json"]) == {"name": "gw-1", "platform": "none"}
    assert "/etc/rehearsal/no-engine" in files and "/usr/local/Ascend/driver/version.info" not in files
    assert container["volumes"] == {}


@pytest.mark.parametrize("told, platform", [
    ({"platform": "a3", "fleet_platform": "a2", "groups": ["atlas_310"]}, "a3"),
    ({"fleet_platform": "a2", "groups": ["atlas_800_a3"]}, "a2"),
    ({"groups": ["npu_nodes", "atlas_800_a2", "data2"]}, "a2"),
    ({"groups": ["Atlas800A3"]}, "a3"),
    ({"groups": ["racks", "910c"]}, "a3"),
    ({"groups": ["atlas_300i_duo"]}, "310p"),
    ({"groups": ["ascend310p3", "duo-cards"]}, "310p"),
    ({"plain": True, "groups": ["gateways_a2"]}, "none"),
    ({"plain": True, "platform": "a2"}, "a2"),
])
def test_a_platform_is_told_by_variables_and_then_by_groups(told, platform):
    assert rehearsal.platform_of(dict({"name": "h"}, **told)) == platform


@pytest.mark.parametrize("groups, words", [
    (["npu_nodes", "data2", "a25"], "node h: its platform is not told by the name of a group .* set rehearsal_fleet_platform"),
    (["atlas_800_a2", "rack_a3"], "node h: its platform is both a2 by its group atlas_800_a2 and a3 by its group rack_a3; set"),
])
def test_a_platform_that_is_not_told_or_told_twice_names_the_variable(groups, words):
    with pytest.raises(rehearsal.RehearsalError, match=words):
        rehearsal.platform_of({"name": "h", "groups": groups})


def test_addresses_inside_the_subnet_stay_and_the_others_are_given_out_in_order():
    registries = [dict(REGISTRIES[0], address=None), dict(REGISTRIES[1], address="10.0.0.3"), dict(REGISTRIES[2], address="172.31.9.2")]
    nodes = [node("a", "192.0.2.1"), node("b", "172.31.9.11"), node("c", None), node("d", "a name"), node("e", "192.0.2.1")]
    registries, nodes = rehearsal.addressed(registries, nodes, "172.31.9.0/24")
    assert [entry["address"] for entry in registries] == ["172.31.9.3", "172.31.9.4", "172.31.9.2"]
    assert [entry["address"] for entry in nodes] == ["172.31.9.%d" % last for last in (12, 11, 13, 14, 15)]


def test_a_subnet_that_is_too_small_or_none_is_named():
    nodes = [node(str(number), None) for number in range(6)]
    with pytest.raises(rehearsal.RehearsalError, match="rehearsal_fleet_subnet 172.31.9.0/29 has no address left for 5; take a larger one"):
        rehearsal.addressed([], nodes, "172.31.9.0/29")
    assert len(set(entry["address"] for entry in rehearsal.addressed([], nodes[:5], "172.31.9.0/29")[1])) == 5
    with pytest.raises(rehearsal.RehearsalError, match="rehearsal_fleet_subnet 172.31.9.7/24: .*host bits set"):
        rehearsal.addressed([], [], "172.31.9.7/24")


def test_weights_are_those_of_the_platform_and_those_that_are_asked_for():
    asked = [{"path": "/data/own-7b", "size_gb": 9, "context": 8192, "quantized": True}, {"path": "/models/gemma-3-270m-it", "size_gb": 0.54}]
    found = {one["path"]: one for one in rehearsal.describe_node(node(weights=asked))["weights"]}
    assert "/models/gemma-4-31B-it" in found and len(found) == len(rehearsal_models.PLATFORM_MODELS["a2"]) + 1
    own = found["/data/own-7b"]
    assert (own["size_bytes"], own["shards"], own["quantized"], own["config"]["max_position_embeddings"]) == (9000000000, 3, True, 8192)
    assert found["/models/gemma-3-270m-it"]["config"]["model_type"] == "gemma3_text"
    assert [one["path"] for one in rehearsal.describe_node(node(models=["qwen3-0.6B"], models_directory="/w"))["weights"]] == ["/w/qwen3-0.6B"]


def test_hosts_of_one_image_have_different_machine_ids():
    made = rehearsal.containers(fleet(node(), node("a2-2", "172.31.240.12")))
    ids = [contents(container)["/etc/machine-id"] for container in made]
    assert len(set(ids)) == 3 and all(len(text) == 33 for text in ids)


@pytest.mark.parametrize("nodes, words", [
    ([node(address=None)], "node a2-1: its address None is outside rehearsal_fleet_subnet 172.31.240.0/24"),
    ([node(address="10.0.0.1")], "node a2-1: its address 10.0.0.1 is outside rehearsal_fleet_subnet 172.31.240.0/24"),
    ([node(address="172.31.240.1")], "the network's gateway and node a2-1 share the address 172.31.240.1"),
    ([node(address="172.31.240.3")], "registry quay.io and node a2-1 share the address 172.31.240.3"),
    ([node(), node("b")], "node a2-1 and node b share the address 172.31.240.11"),
])
def test_addresses_are_checked_before_anything_is_made(nodes, words):
    with pytest.raises(rehearsal.RehearsalError, match=words):
        rehearsal.containers(fleet(*nodes))


def test_a_fleet_without_an_upstream_registry_is_refused():
    with pytest.raises(rehearsal.RehearsalError, match="0 entries of kind upstream; exactly one is wanted"):
        rehearsal.containers(fleet(registries=REGISTRIES[:1]))


def test_no_container_is_privileged_and_passwords_stay_in_files():
    for container in rehearsal.containers(fleet(node())):
        words = rehearsal.run_arguments(container, "net", "rehearsal", "c0ffee")
        assert "--privileged" not in words and "--cap-drop=SYS_RESOURCE" in words
        assert words[-2:] == [container["image"], "/sbin/init"]


def test_the_publishing_door_is_on_the_loopback_only():
    assert rehearsal.containers(fleet())[0]["publish"] == ["127.0.0.1::5001"]


@pytest.mark.parametrize("change", [{"address": "172.31.240.99"}, {"image": "other"}, {"files": {"/etc/x": "0"}}])
def test_a_changed_description_is_another_container(change):
    container = rehearsal.containers(fleet(node()))[1]
    before = rehearsal.content_hash(container, "image", {"/etc/x": "1"})
    assert before == rehearsal.content_hash(dict(container), "image", {"/etc/x": "1"})
    after = rehearsal.content_hash(dict(container, **{key: change[key] for key in change if key == "address"}),
                                   change.get("image", "image"), change.get("files", {"/etc/x": "1"}))
    assert after != before


def test_a_build_is_known_by_content_mode_and_arguments():
    files = {"Dockerfile": (0o644, b"FROM x"), "run": (0o755, b"1")}
    known = rehearsal.directory_hash(files, {"BASE": "a"})
    assert known == rehearsal.directory_hash(dict(files), {"BASE": "a"})
    assert known != rehearsal.directory_hash(files, {"BASE": "b"})
    assert known != rehearsal.directory_hash(dict(files, run=(0o644, b"1")), {"BASE": "a"})
    assert known != rehearsal.directory_hash(dict(files, run=(0o755, b"2")), {"BASE": "a"})
