# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent


def problems(**variables):
    return intent.read("a2-1", variables)[1]


def test_an_empty_inventory_takes_the_defaults():
    settings, found = intent.read("a2-1", {"ansible_host": "192.0.2.1"})
    assert found == []
    assert settings["fleet_instances"] is None
    assert settings["fleet_first_port"] == 8000


def test_a_name_alone_is_an_instance():
    settings, found = intent.read("a2-1", {"fleet_instances": ["gemma-4-E2B-it", {"model": "Qwen3-32B", "name": "Chat"}]})
    assert found == []
    assert settings["fleet_instances"] == [
        {"model": "gemma-4-E2B-it", "name": "gemma-4-e2b-it"}, {"model": "Qwen3-32B", "name": "chat"}]


def test_extra_variables_arrive_as_text():
    assert intent.read("a2-1", {"fleet_max_unready_hosts": "2"})[0]["fleet_max_unready_hosts"] == 2


@pytest.mark.parametrize("variables, words", [
    ({"fleet_instancs": []}, ["unknown variable 'fleet_instancs'", "did you mean 'fleet_instances'"]),
    ({"fleet_instances": "gemma"}, ["fleet_instances must be a list or null"]),
    ({"fleet_instances": [{"model": "m", "prot": 1}]}, ["fleet_instances[0]: unknown key 'prot'", "did you mean 'port'"]),
    ({"fleet_instances": [{"port": 8000}]}, ["fleet_instances[0] lacks 'model'"]),
    ({"fleet_instances": ["m", "m"]}, ["have the same name m"]),
    ({"fleet_instances": [{"model": "a", "port": 8000}, {"model": "b", "port": 8000}]}, ["have the same port 8000"]),
    ({"fleet_instances": [{"model": "a", "port": 99999}]}, ["port 99999 is outside 1..65535"]),
    ({"fleet_instances": [{"model": "a", "devices": [0, 1]}, {"model": "b", "devices": [1]}]}, ["/dev/davinci1", "'a' and 'b'"]),
    ({"fleet_instances": [{"model": "a", "devices": [0, 0]}]}, ["distinct davinci numbers"]),
    ({"fleet_instances": [{"model": "a", "devices": 0}]}, ["devices must be at least 1"]),
    ({"fleet_instances": [{"model": "a", "arguments": []}]}, ["arguments must be a dictionary"]),
    ({"fleet_instance_defaults": {"port": 1}}, ["'port' belongs to one instance"]),
    ({"fleet_models": {"m": {"argumnets": {}}}}, ["fleet_models['m']: unknown key 'argumnets'"]),
    ({"fleet_container_engine": "lxc"}, ["auto, docker or podman"]),
    ({"fleet_registry": {"adress": "r:5000"}}, ["unknown key 'adress'"]),
    ({"fleet_waivers": [{"rule": "npu.smi"}]}, ["must name a 'rule' and a 'reason'"]),
])
def test_a_mistake_is_named_with_its_place(variables, words):
    text = "\n".join(problems(**variables))
    for word in words:
        assert word in text
    assert text.startswith("a2-1: ")


def test_a_secret_of_the_wrong_type_is_not_shown():
    text = "\n".join(problems(fleet_api_key=["sk-very-secret"]))
    assert "fleet_api_key must be text" in text
    assert "sk-very-secret" not in text


LEVELS = [
    ("group_vars of all", {"fleet_models": {"M": {"arguments": {"seed": 1, "dtype": "half"}}}, "fleet_first_port": 9000}),
    ("group_vars of a2", {"fleet_models": {"M": {"arguments": {"seed": 2}}}, "fleet_instance_defaults": {"shm_size": "2g"}}),
]


def test_overrides_of_every_level_count_weakest_first():
    strongest = {"fleet_models": LEVELS[1][1]["fleet_models"], "fleet_instance_defaults": {"shm_size": "2g"}, "fleet_first_port": 9000}
    settings, problems = intent.read("h", strongest, LEVELS)
    assert problems == []
    assert [(where, about) for where, about, _keys in settings["overrides"]] == [
        ("group_vars of a2: fleet_instance_defaults", None), ("group_vars of all: fleet_models['M']", "M"),
        ("group_vars of a2: fleet_models['M']", "M")]
    assert settings["origins"]["fleet_first_port"] == "group_vars of all"


def test_a_value_from_a_play_is_stronger_than_every_level():
    settings, _problems = intent.read("h", {"fleet_models": {"M": {"shm_size": "9g"}}}, LEVELS)
    assert settings["overrides"][-1] == ("inventory: fleet_models['M']", "M", {"shm_size": "9g"})


def test_a_mistake_names_its_level():
    levels = [("group_vars of all", {"fleet_models": {"M": {"argments": {}}}}), ("host_vars of h", {"fleet_models": {}})]
    _settings, problems = intent.read("h", {"fleet_models": {}}, levels)
    assert len(problems) == 1 and "fleet_models['M'] in group_vars of all" in problems[0] and "arguments" in problems[0]


def test_a_weaker_level_of_the_wrong_type_is_a_mistake_too():
    _settings, problems = intent.read("h", {"fleet_models": {}}, [("group_vars of all", {"fleet_models": []}), ("x", {"fleet_models": {}})])
    assert problems == ["h: fleet_models in group_vars of all must be a dictionary, not []"]
