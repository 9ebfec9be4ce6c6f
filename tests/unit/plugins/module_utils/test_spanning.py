# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances over several hosts: who is the head, what each host is told, and what changes as one."""

from __future__ import annotations

import pytest

# Plans are made on the controller; Pythons of hosts have no Jinja.
pytest.importorskip("jinja2")

from test_plan import BUILT, FLAGS, PATCH_SETS, model, platform, survey

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent, plan, recovery, rollout, spanning
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import release_files

NUMBER = {"kind": "value", "type": "int", "choices": []}
ADDRESSES = {"b2": "192.0.2.2", "a1": "192.0.2.1", "c3": "192.0.2.3"}
TARGET = "r:5000/ascend/vllm-ascend:v1-plain-amd64"


@pytest.fixture
def catalogue():
    flags = dict(FLAGS, **{"headless": {"kind": "switch", "type": "", "choices": []}, "data-parallel-address": dict(NUMBER, type="str")})
    flags.update(("data-parallel-" + name, NUMBER) for name in ("size", "size-local", "start-rank", "rpc-port"))
    models = [model("Two", 2, patch_set=None, **{"tensor-parallel-size": 2}), dict(model("Large", 8, patch_set=None, **{"tensor-parallel-size": 4}), group=2)]
    return {"models": dict((m["name"], m) for m in models), "platforms": {"a2": platform("a2", "910b", "")}, "patch_sets": {}, "registries": {},
            "compatibility": {}, "flags": {"0.18.0": flags},
            "images": {"base": {"repository": "quay.io/ascend/vllm-ascend", "tag": "v1", "vllm": "0.18.0", "cann": "8.5.1"}}}


def looked(address, **more):
    return survey(network={"interfaces": {"eth0": address, "docker0": "172.17.0.1"}, "default": "eth0"}, **more)


def build(catalogue, wanted, hosts=("b2", "a1"), surveys=True, digest=BUILT, **variables):
    """(plan, problems); ``wanted``: fleet_instances of all hosts, or {host: its own}. The inventory has the hosts in this order."""
    settings = {}
    for host in hosts:
        own = dict({"fleet_registry": {"address": "r:5000"}, "fleet_instances": wanted[host] if isinstance(wanted, dict) else wanted}, **variables)
        settings[host], problems = intent.read(host, own)
        assert problems == []
    found = dict((host, looked(ADDRESSES[host])) for host in hosts) if surveys is True else surveys
    return plan.build("f", settings, catalogue, PATCH_SETS, {"targets": {TARGET: {"digest": digest}}}, found, None, release_files.render)


def parts(made, hosts=("b2", "a1")):
    return [made["hosts"][host]["instances"][-1] for host in hosts]


def flag(instance, name):
    return instance["arguments"][instance["arguments"].index("--" + name) + 1]


def test_one_short_line_gives_a_head_with_the_api_and_a_headless_member(catalogue):
    made, problems = build(catalogue, ["Large"])
    head, member = parts(made)
    assert problems == []
    assert (head["group"]["role"], member["group"]["role"], head["group"]["members"]) == ("head", "member", ["b2", "a1"])
    for each in (head, member):
        assert [flag(each, "data-parallel-" + name) for name in ("size", "size-local", "address")] == ["4", "2", "192.0.2.2"]
    assert flag(head, "port") == "8000" and "--headless" not in head["arguments"]
    assert "--headless" in member["arguments"] and flag(member, "data-parallel-start-rank") == "2" and "--port" not in member["arguments"]
    assert flag(head, "data-parallel-rpc-port") == flag(member, "data-parallel-rpc-port")
    assert [each["environment"]["HCCL_IF_IP"] for each in (head, member)] == ["192.0.2.2", "192.0.2.1"]
    assert [member["environment"][name] for name in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")] == ["eth0"] * 3
    assert member["environment"]["HCCL_CONNECT_TIMEOUT"] == "900" and member["environment"]["HCCL_IF_BASE_PORT"] == "60000"
    assert "/etc/hccn.conf" in [mount["source"] for mount in member["mounts"]]
    assert member["provenance"]["arguments.headless"] == member["provenance"]["environment.HCCL_IF_IP"] == spanning.BUILT_IN
    assert "--headless" in member["release"]["files"][member["unit"]]


def test_hosts_by_name_are_the_group_in_that_order_whatever_else_asks(catalogue):
    made, problems = build(catalogue, {"b2": [{"model": "Large", "group": ["a1", "b2"]}], "a1": [{"model": "Large", "group": ["a1", "b2"]}],
                                       "c3": ["Two"]}, ("b2", "a1", "c3"))
    assert problems == [] and parts(made, ("a1", "b2"))[0]["group"]["role"] == "head"
    assert "group" not in made["hosts"]["c3"]["instances"][0]


def test_a_member_answers_at_the_port_of_its_head(catalogue):
    made, problems = build(catalogue, {"b2": ["Two", {"model": "Two", "name": "g", "group": 2}], "a1": [{"model": "Two", "name": "g", "group": 2}]})
    head, member = parts(made)
    assert problems == [] and (head["port"], member["port"]) == (8001, 8001)
    assert (flag(head, "data-parallel-size"), flag(head, "data-parallel-size-local")) == ("2", "1"), "a group of a model that is none by itself"


def test_what_the_inventory_says_stands(catalogue):
    made, _problems = build(catalogue, [{"model": "Large", "environment": {"GLOO_SOCKET_IFNAME": "bond0"}, "arguments": {"data-parallel-rpc-port": 13000}}])
    head, _member = parts(made)
    assert head["environment"]["GLOO_SOCKET_IFNAME"] == "bond0" and flag(head, "data-parallel-rpc-port") == "13000"


def test_anything_that_changes_on_one_host_changes_the_release_of_all_and_the_port_where_ranks_meet(catalogue):
    first = parts(build(catalogue, ["Large"])[0])
    assert [each["release"]["id"] for each in parts(build(catalogue, ["Large"])[0])] == [each["release"]["id"] for each in first]
    for other in (
        build(catalogue, {"b2": ["Large"], "a1": [{"model": "Large", "environment": {"X": "1"}}]}),
        build(catalogue, ["Large"], digest="sha256:" + "c" * 64),
    ):
        changed = parts(other[0])
        assert all(now["release"]["id"] != before["release"]["id"] for now, before in zip(changed, first))
        assert changed[0]["group"]["id"] == changed[1]["group"]["id"] != first[0]["group"]["id"]
        assert flag(changed[0], "data-parallel-rpc-port") != flag(first[0], "data-parallel-rpc-port")


@pytest.mark.parametrize(
    "hosts, wanted, words",
    [
        (
            ("b2",),
            ["Large"],
            "b2: instance 'large' spans 2 hosts, and 1 of this run asks for it (b2); name its hosts, such as {model: Large, group: [b2, <another>]}",
        ),
        (("b2", "a1", "c3"), ["Large"], "spans 2 hosts, and 3 of this run ask for it (b2, a1, c3)"),
        (
            ("b2",),
            [{"model": "Large", "group": ["a1", "b2"]}],
            "b2: instance 'large' is one group with a1, which is not in this run or does not ask for it; run for all of a1 and b2 (--limit a1,b2)",
        ),
        (("b2", "a1", "c3"), [{"model": "Large", "group": ["a1", "b2"]}], "c3: instance 'large' is a group of a1, b2; take it out of what c3 asks for"),
        (
            ("b2", "a1"),
            [{"model": "Large", "arguments": {"data-parallel-size": 3}}],
            "data-parallel-size 3 is not 2 hosts with data-parallel-size-local 2 each",
        ),
        (("b2", "a1"), [{"model": "Large", "devices": 2}], "one rank needs 4 NPUs and a host of the group gives 2"),
    ],
)
def test_a_group_that_cannot_be_is_told_before_a_host_is_asked(catalogue, hosts, wanted, words):
    problems = build(catalogue, wanted, hosts, surveys=None)[1]
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("group", [0, -1, ["a1"], ["a1", "a1"], [1, 2]])
def test_a_group_that_is_none_is_a_mistake_of_the_inventory(group):
    assert any("group must" in problem for problem in intent.read("h", {"fleet_instances": [{"model": "M", "group": group}]})[1])


@pytest.mark.parametrize("network, address, found", [
    ({"interfaces": {"eth0": "192.0.2.1", "ib0": "10.0.0.1"}, "default": "eth0"}, None, ("eth0", "192.0.2.1")),
    ({"interfaces": {"eth0": "192.0.2.1", "ib0": "10.0.0.1"}, "default": "eth0"}, "10.0.0.1", ("ib0", "10.0.0.1")),
    ({"interfaces": {"eth0": "192.0.2.1", "ib0": "10.0.0.1"}, "default": None}, None, (None, None)),
    ({"interfaces": {"ib0": "10.0.0.1"}, "default": None}, None, ("ib0", "10.0.0.1")),
    ({"interfaces": {"eth0": "192.0.2.1"}, "default": "eth0"}, "198.51.100.9", (None, None)), (None, None, (None, None)),
])
def test_the_interface_is_the_named_one_that_of_the_default_route_or_the_only_one(network, address, found):
    assert spanning.interface({"network": network}, address) == found


def test_without_an_address_the_gate_has_the_word_and_nothing_is_made_up(catalogue):
    made, problems = build(catalogue, ["Large"], surveys={"b2": looked("192.0.2.2"), "a1": survey()})
    head, member = parts(made)
    assert problems == [] and member["group"]["interface"] is None and "HCCL_IF_IP" not in member["environment"]
    assert head["group"]["interface"] == "eth0"


def test_hosts_of_a_group_are_looked_at_down_to_their_links(catalogue):
    settings = intent.read("h", {"fleet_instances": ["Large"]})[0]
    alone = intent.read("h", {"fleet_instances": ["Two"]})[0]
    anything = intent.read("h", {})[0]
    request = plan.survey_request(settings, catalogue, None)
    assert request["deep"] and "/etc/hccn.conf" in request["paths"]
    assert not plan.survey_request(alone, catalogue, None)["deep"]
    assert plan.survey_request(anything, catalogue, ["Large"])["deep"]


def test_each_chip_of_a_group_is_to_reach_all_chips_of_the_other_hosts(catalogue):
    found = dict((host, looked(ADDRESSES[host], deep={"network": dict((str(n), {"ip": {"status": "%s.%d" % (ADDRESSES[host], n)}}) for n in range(8))}))
                 for host in ("b2", "a1", "c3"))
    wanted = [{"model": "Large", "devices": 4, "arguments": {"tensor-parallel-size": 4}}]
    made, problems = build(catalogue, {"b2": wanted, "a1": wanted, "c3": ["Two"]}, ("b2", "a1", "c3"), surveys=found)
    assert problems == []
    assert spanning.pings(made, found) == {
        "b2": dict.fromkeys("0123", ["192.0.2.1.%d" % n for n in range(4)]), "a1": dict.fromkeys("0123", ["192.0.2.2.%d" % n for n in range(4)])}
    assert spanning.pings(made, dict(found, a1={"unreachable": True})) == {"a1": dict.fromkeys("0123", ["192.0.2.2.%d" % n for n in range(4)])}


def test_a_set_of_hosts_is_brought_in_line_with_the_groups(catalogue):
    made = build(catalogue, {"b2": ["Large"], "a1": ["Large"], "c3": ["Two"]}, ("b2", "a1", "c3"))[0]
    assert spanning.closed(made, ["b2"], add=True) == ["a1", "b2"]
    assert spanning.closed(made, ["b2", "c3"], add=False) == ["c3"]
    assert spanning.closed(made, ["a1", "b2", "c3"], add=False) == ["a1", "b2", "c3"]
    head, member = parts(made)
    assert spanning.torn([head], ["b2", "a1"]) is None
    assert "instance 'large' is one group with a1" in spanning.torn([head], ["b2", "c3"])
    assert rollout.units(made, ["c3", "a1", "b2"]) == [{"name": "c3", "hosts": ["c3"]}, {"name": "a1+b2", "hosts": ["a1", "b2"]}]
    assert spanning.served([head, member]) == [head]


def test_the_manifest_tells_of_the_group_and_the_way_back_keeps_it(catalogue):
    head, member = parts(build(catalogue, ["Large"])[0])
    for each in (head, member):
        assert '"role": "%s"' % each["group"]["role"] in each["release"]["files"]["manifest.json"]
    survey_of = {"instances": {"large": {"release": "1", "previous": "0", "manifest": dict(member, release=None), "unit": {}}}}
    made, differences = recovery.way_back({"a1": survey_of})
    assert made["hosts"]["a1"]["instances"][0]["group"]["members"] == ["b2", "a1"] and "large" in differences["a1"]
    assert recovery.status_rows("a1", dict(survey_of, containers=[]), {})[0]["port"] == "at b2"
