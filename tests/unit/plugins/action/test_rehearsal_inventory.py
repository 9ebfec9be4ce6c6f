# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any operator's inventory, held against the real inventory of ansible-core: read alone, then with the one that was written after it."""

from __future__ import annotations

import types

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.vllm_ascend.fleet.plugins.action import rehearsal_inventory
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.levels import Levels

# Nobody has its key here, so whoever opens it fails.
VAULT = """!vault |
  $ANSIBLE_VAULT;1.1;AES256
  61626364616263646162636461626364616263646162636461626364616263646162636461626364
  0a61626364616263646162636461626364616263646162636461626364616263640a6162636461626364
  6162"""
FILES = {
    "hosts.yml": """
all:
  children:
    npu_nodes:
      children:
        atlas_800_a2:
          hosts:
            a2-01.example.net: {ansible_host: 192.0.2.11, ansible_port: 2222, fleet_instance_defaults: {arguments: {max-num-seqs: 8}}}
            a2-02.example.net: {ansible_ssh_host: 192.0.2.12}
        atlas_300i_duo:
          hosts: {duo-01.example.net: }
    gateways:
      hosts: {gw-01.example.net: {ansible_host: 192.0.2.80}}
    databases:
      hosts: {db-01.example.net: {ansible_host: 192.0.2.90, ansible_ssh_user: postgres, ansible_connection: local}}
""",
    "group_vars/all.yml": """
ansible_user: deploy
ansible_ssh_common_args: -o ProxyJump=jump.example.net
ansible_become_password: %s
fleet_name: prod
fleet_api_key: %s
""" % (VAULT, VAULT),
    "group_vars/npu_nodes/fleet.yml": """
fleet_registry: {address: registry.example.net:5000, username: robot}
fleet_registry_password: %s
fleet_registries: {quay.io: {mirrors: [{kind: host, host: harbor.example.net}]}}
fleet_images: {vllm-ascend-v0.18.0rc1: {tag: v0.18.0, digests: {a2: "sha256:0"}}}
fleet_patch_directory: /nonexistent/patches
fleet_container_engine: podman
fleet_drain_hook: [balancer, drain]
fleet_weights_directory: "{{ '/data' ~ '/models' }}"
fleet_instances:
  - model: gemma-4-E2B-it
    environment:
      HF_TOKEN: %s
  - {model: gemma-3-270m-it, weights: /elsewhere/small}
fleet_instance_defaults: {ready_timeout_s: 900, environment: {A: "1"}}
""" % (VAULT, VAULT.replace("\n  ", "\n        ")),
    "host_vars/a2-02.example.net.yml": "ansible_host: 192.0.2.112\nansible_user: somebody\nfleet_platform: a3\n",
}


@pytest.fixture
def prod(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "prod" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "prod"


def variables(*sources):
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(source) for source in sources])
    manager = VariableManager(loader=loader, inventory=inventory)
    return HostVars(inventory, manager, loader), inventory, loader


@pytest.fixture
def act(tmp_path, monkeypatch):
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})

    def run(*sources, check_mode=False, **args):
        hostvars, inventory, loader = variables(*sources)
        made = object.__new__(rehearsal_inventory.ActionModule)
        made._task = types.SimpleNamespace(check_mode=check_mode)
        made._templar = Templar(loader=loader)
        given = dict({"state_directory": str(tmp_path / "state"), "plain_groups": ["gateways", "registries"], "patch_directory": "/stand-ins",
                      "wheelhouse": "/wheels", "registries": [{"name": "registry.rehearsal", "kind": "fleet", "port": 5000}]}, **args)
        made.validate_argument_spec = lambda spec: (None, {key: given.get(key, rule.get("default")) for key, rule in spec.items()})
        groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
        return made.run(task_vars={"hostvars": hostvars, "groups": groups, "ansible_inventory_sources": [str(source) for source in sources]})

    return run


def test_an_inventory_is_mirrored_without_opening_its_secrets(act, prod):
    result = act(prod / "hosts.yml")
    nodes = {node["name"]: node for node in result["nodes"]}
    assert [(name, node["address"], node["platform"]) for name, node in nodes.items()] == [
        ("a2-01.example.net", "172.31.240.11", "a2"), ("a2-02.example.net", "172.31.240.12", "a3"),
        ("duo-01.example.net", "172.31.240.13", "310p"), ("gw-01.example.net", "172.31.240.14", "none")]
    assert [one["path"] for one in nodes["a2-01.example.net"]["weights"]] == ["/data/models/gemma-4-E2B-it", "/elsewhere/small"]
    assert nodes["a2-01.example.net"]["models_directory"] == "/data/models"
    assert result["registries"][0]["address"] == "172.31.240.2"


def test_what_is_written_wins_where_it_must_and_leaves_the_rest(act, prod, tmp_path):
    act(prod / "hosts.yml", variables={"fleet_first_port": 9000})
    hostvars, _inventory, _loader = variables(prod / "hosts.yml", tmp_path / "state" / "inventory.yml")
    for host, address in (("a2-01.example.net", "172.31.240.11"), ("a2-02.example.net", "172.31.240.12"), ("gw-01.example.net", "172.31.240.14")):
        found = hostvars.raw_get(host)
        assert (found["ansible_host"], found["ansible_user"], found["ansible_port"], found["ansible_become"]) == (address, "root", 22, False)
        assert "ProxyJump" not in found["ansible_ssh_common_args"] and "StrictHostKeyChecking=yes" in found["ansible_ssh_common_args"]
        assert found["ansible_become_password"] is None and found.get("ansible_ssh_host") is None
    found = hostvars.raw_get("a2-01.example.net")
    assert (found["fleet_name"], found["fleet_first_port"], found["fleet_container_engine"]) == ("rehearsal", 9000, "auto")
    assert found["fleet_registry"] == {"address": "registry.rehearsal:5000", "username": "fleet"}
    assert found["fleet_drain_hook"] is None, "a rehearsal drains no true balancer"
    assert found["fleet_registries"] == {} and found["fleet_images"] == {"vllm-ascend-v0.18.0rc1": {"tag": "v0.18.0"}}
    assert (found["fleet_patch_directory"], found["fleet_wheelhouse"]) == ("/stand-ins", "/wheels")
    assert [one["model"] for one in found["fleet_instances"]] == ["gemma-4-E2B-it", "gemma-3-270m-it"]
    for name in ("fleet_registry_password", "fleet_api_key"):
        assert found[name] == "{{ lookup('ansible.builtin.file', '%s/state/%s') }}" % (tmp_path, name)
    # The operator's own words hold beside ours, and before them.
    levels = [values["fleet_instance_defaults"] for _level, values in Levels(hostvars).of("a2-01.example.net") if "fleet_instance_defaults" in values]
    assert [sorted(one) for one in levels] == [["ready_timeout_s", "shutdown_timeout_s", "stability_window_s"],
                                               ["environment", "ready_timeout_s"], ["arguments"]]


def test_a_host_that_is_not_simulated_is_out_of_reach(act, prod, tmp_path):
    act(prod / "hosts.yml")
    found = variables(prod / "hosts.yml", tmp_path / "state" / "inventory.yml")[0].raw_get("db-01.example.net")
    assert (found["ansible_host"], found["ansible_connection"]) == ("not-in-the-rehearsal.invalid", "ssh")
    assert found["ansible_ssh_user"] is None and found["ansible_ssh_common_args"] is None


def test_a_delivery_that_lies_here_is_used(act, prod, tmp_path):
    (tmp_path / "delivery").mkdir()
    for made_here in ("patch_directory", "wheelhouse"):
        (prod / "group_vars" / "atlas_800_a2.yml").write_text("fleet_patch_directory: %s\n" % (tmp_path / "delivery"))
        act(prod / "hosts.yml", **{made_here: "/made-here"})
    found = variables(prod / "hosts.yml", tmp_path / "state" / "inventory.yml")[0].raw_get("a2-01.example.net")
    assert (found["fleet_patch_directory"], found["fleet_wheelhouse"]) == (str(tmp_path / "delivery"), "/made-here")


def test_check_real_check_real(act, prod, tmp_path):
    first = act(prod / "hosts.yml", check_mode=True)
    assert first["changed"] and not (tmp_path / "state").exists()
    second = act(prod / "hosts.yml")
    assert second["changed"] and second["diff"] == first["diff"]
    assert not act(prod / "hosts.yml", check_mode=True)["changed"] and not act(prod / "hosts.yml")["changed"]
    (prod / "host_vars" / "a2-02.example.net.yml").unlink()
    text = (prod / "hosts.yml").read_text().replace("            a2-02.example.net: {ansible_ssh_host: 192.0.2.12}\n", "")
    (prod / "hosts.yml").write_text(text)
    assert act(prod / "hosts.yml")["changed"]
    assert not (tmp_path / "state" / "host_vars" / "a2-02.example.net.yml").exists()


@pytest.mark.parametrize("change, words", [
    ({"group_vars/npu_nodes/x.yml": "fleet_instances: [{}]"}, "a2-01.example.net: fleet_instances[0] lacks 'model'"),
    ({"group_vars/npu_nodes/x.yml": "fleet_weights_directory: '{{ nowhere }}'"}, "nowhere"),
    ({"group_vars/npu_nodes/x.yml": "fleet_catalogue_directories: [/nonexistent]"}, "catalogue directory /nonexistent does not exist"),
    ({"group_vars/atlas_800_a2.yml": "rehearsal_fleet_platform: a5"}, None),
    ({"more.yml": "gateways: {hosts: {localhost: }}"}, "localhost is this machine and cannot be simulated"),
    ({"more.yml": "npu_nodes: {hosts: {unknown: }}"}, "node unknown: its platform is not told by the name of a group"),
])
def test_what_cannot_be_mirrored_is_one_sentence(act, prod, change, words):
    for name, text in change.items():
        (prod / name).write_text(text + "\n")
    result = act(prod / "hosts.yml", *[prod / name for name in change if name == "more.yml"])
    if words is None:  # an unknown platform is for the module to refuse
        assert result["nodes"][0]["platform"] == "a5"
    else:
        assert result["failed"] and words in result["msg"] and "\n" not in result["msg"]


def test_what_it_wrote_is_not_read_again(act, prod, tmp_path):
    act(prod / "hosts.yml")
    overlay = tmp_path / "state" / "inventory.yml"
    assert act(prod / "hosts.yml", overlay)["msg"] == "leave out -i %s: rehearse.yml writes it, from the inventory before it" % overlay
