# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which model has which port, and who stands behind it."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gateway


def chosen(**more):
    made, problems = gateway.settings(more)
    assert problems == []
    return made


def test_ports_count_up_around_those_that_are_named():
    assert gateway.ports(["b", "a", "c"], chosen(first_port=9000, models={"b": {"port": 9000}}), {}) == {"a": 9001, "b": 9000, "c": 9002}


def test_a_port_stays_when_models_come_and_go():
    kept = gateway.read_ports("frontend model-b\n    bind :9000\n\nfrontend model-c\n    bind :9001 ssl crt /x\n\nbackend model-c\n    balance leastconn\n")
    assert kept == {"model-b": 9000, "model-c": 9001}
    assert gateway.ports(["a", "c"], chosen(), kept) == {"a": 9000, "c": 9001}
    assert gateway.ports(["a", "b", "c"], chosen(models={"a": {"port": 9001}}), kept) == {"a": 9001, "b": 9000, "c": 9002}


@pytest.mark.parametrize("given, words", [
    ({"first_prt": 1}, "did you mean 'first_port'?"), ({"first_port": "x"}, "first_port must be int"), ({"models": {"m": 1}}, "models: m must be {port"),
    ({"address": "192.0.2.1"}, "needs interface"),
])
def test_wrong_settings_are_told(given, words):
    assert words in " ".join(gateway.settings(given)[1])


def test_who_is_proven_or_was_there_already_stands_behind_its_model():
    plan = {"hosts": {"h1": {"instances": [{"name": "one", "served_model_name": "M", "port": 8000}]},
                      "h2": {"instances": [{"name": "one", "served_model_name": "M", "port": 8000}]},
                      "h3": {"instances": [{"name": "one", "served_model_name": "M", "port": 8000}]}}}
    surveys = {"h4": {"instances": {"two": {"manifest": {"served_model_name": "N", "port": 8001}}, "odd": {"manifest": None}}}, "h5": None}
    proof = {"h1": {"one": {"ready": True}}, "h2": {"one": {"ready": False}}, "h4": {"two": {"ready": True}}}
    found = gateway.servers(plan, surveys, proof, dict.fromkeys(("h1", "h2", "h3", "h4"), "192.0.2.1"), {"h3.one"})
    assert {model: [server["name"] for server in entries] for model, entries in found.items()} == {"M": ["h1.one", "h3.one"], "N": ["h4.two"]}


def test_a_group_stands_there_with_its_head():
    plan = {"hosts": {host: {"instances": [{"name": "one", "served_model_name": "M", "port": 8000, "group": {"role": role}}]} for host, role in (
        ("h1", "head"), ("h2", "member"))}}
    proof = {host: {"one": {"ready": True}} for host in ("h1", "h2")}
    assert [each["name"] for each in gateway.servers(plan, {}, proof, {"h1": "a", "h2": "b"}, set())["M"]] == ["h1.one"]


def test_clients_are_kept_by_the_hash_of_their_keys():
    text = gateway.client_map({"bob": "sk-0123456789abcdef"})
    assert text.endswith(" bob\n") and "sk-" not in text and len(text.split()[0]) == 64
    assert gateway.client_problems({"bob": "sk-0123456789abcdef"}) == []
    problems = " ".join(gateway.client_problems({"a b": "short", "c": "k" * 16, "d": "k" * 16}))
    assert "the name 'a b'" in problems and "the key of 'a b'" in problems and "the same key" in problems and "kkkk" not in problems and "short" not in problems


STATES = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 model-M 1 h1.one 192.0.2.1 2 0 1
3 model-M 2 h2.one 192.0.2.2 2 8 1
3 model-M 3 h3.one 192.0.2.3 0 1 1

"""
STAT = ("# pxname,svname,qcur,qmax,scur,status,stot,econ,eresp,rate,check_status,check_code,type,req_tot\n"
        "model-M,h1.one,1,2,3,UP,44,1,2,5,L7OK,200,2,40\nmodel-M,BACKEND,0,0,0,UP,1,0,0,0,,,1,\n")


def test_what_haproxy_says_is_read_in_our_words():
    assert {name: (each["state"], each["operational"]) for (_backend, name), each in gateway.read_states(STATES).items()} == {
        "h1.one": ("ready", True), "h2.one": ("drain", True), "h3.one": ("maint", False)}
    assert gateway.read_stats(STAT) == {("model-M", "h1.one"): {
        "check": "L7OK 200", "status": "UP", "sessions": 3, "queue": 1, "requests_total": 40, "errors_total": 3, "rate": 5}}
    assert gateway.read_states("") == {} and gateway.read_stats("what?") == {}
