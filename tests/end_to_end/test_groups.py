# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One model over two hosts: it is deployed, stopped, changed and brought back as one, and the death of one host's share is told."""

from __future__ import annotations

import functools
import json
import re
import time
import urllib.request

import fleet_operator
from fleet_operator import ROOT, described

INVENTORY = ROOT / "tests" / "inventories" / "group"
UNIT = "vllm-ascend-gemma-3-270m-it.service"
HOSTS = ("a2-1", "a2-2")
# The engine of the head gives up while it loads; its member, of the same release, waits for it.
HALF = json.dumps({"fleet_models": {"gemma-3-270m-it": {"environment": {
    "VLLM_ENGINE_READY_TIMEOUT_S": "{{ (inventory_hostname == 'a2-1') | ternary(1, 600) }}"}}}})
SHORTER = json.dumps({"fleet_models": {"gemma-3-270m-it": {"arguments": {"max-model-len": 4096}}}})

play = functools.partial(fleet_operator.play, inventory=INVENTORY)
on = functools.partial(fleet_operator.on, inventory=INVENTORY)


def ask():
    """What the group answers at its head."""
    body = {"model": "gemma-3-270m-it", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}
    request = urllib.request.Request(f"http://{described(INVENTORY)[0]['a2-1']}:8000/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def releases():
    """The release that each host has in force."""
    return [on(host, "readlink /var/lib/vllm-ascend-fleet/instances/gemma-3-270m-it/current").strip() for host in HOSTS]


def status():
    """{host: its row} of playbooks/status.yml."""
    return dict(re.findall(r"^(a2-\d)\s+(gemma.*)$", play("playbooks/status.yml").succeeded().output, re.M))


def test_a_host_alone_is_refused_before_anything_is_touched():
    play("playbooks/deploy.yml", "--limit", "a2-2").refused("a2-2: instance 'gemma-3-270m-it' spans 2 hosts, and 1 of this run asks for it")


def test_one_line_deploys_a_head_with_the_api_and_a_member_without():
    play("playbooks/deploy.yml").succeeded()
    assert "Paris" in ask()
    assert [f":{port} " in on(host, "ss -ltn") for host in HOSTS for port in (8000,)] == [True, False]
    lines = [on(host, "systemctl cat", UNIT) for host in HOSTS]
    assert "--headless" not in lines[0] and "--headless --data-parallel-start-rank 1" in lines[1]
    for host in HOSTS:
        held = on(host, "cat /var/lib/vllm-ascend-fleet/instances/gemma-3-270m-it/current/environment")
        assert f"HCCL_IF_IP={described(INVENTORY)[0][host]}\n" in held and "GLOO_SOCKET_IFNAME=" in held


def test_a_second_run_changes_nothing_and_both_hosts_are_well():
    assert set(play("playbooks/deploy.yml").succeeded().changed.values()) == {0}
    rows = status()
    assert all(row.rstrip().endswith("yes") for row in rows.values()) and "at a2-1" in rows["a2-2"]


def test_it_stops_and_starts_as_one():
    play("playbooks/stop.yml", "--limit", "a2-1").refused("is one group with a2-2", "nothing was changed", "run for a2-1,a2-2")
    done = play("playbooks/stop.yml").succeeded()
    assert [done.changed[host] for host in HOSTS] == [1, 1]
    assert [on(host, "systemctl is-active", UNIT, check=False).strip() for host in HOSTS] == ["inactive", "inactive"]
    play("playbooks/start.yml").succeeded()
    assert "Paris" in ask()


def test_a_member_that_is_gone_is_told_of_both_and_a_deploy_mends_it():
    on("a2-2", "systemctl stop", UNIT)
    deadline = time.monotonic() + 60
    rows = status()
    while "no: " not in rows["a2-1"] and time.monotonic() < deadline:
        rows = status()
    assert "no: " in rows["a2-1"] and "inactive" in rows["a2-2"] and "not asked" in rows["a2-2"], rows
    play("playbooks/deploy.yml").succeeded()
    assert "Paris" in ask()


def test_what_fails_on_one_host_goes_back_on_both():
    before = releases()
    done = play("playbooks/deploy.yml", "-e", HALF)
    done.refused("loading takes longer than the engine waits")
    assert done.output.count("the release before is back and proven") >= 2
    assert releases() == before and "Paris" in ask()
    assert all("reverted" in row for row in status().values())


def test_a_rollout_takes_the_group_as_one_and_brings_it_back_as_one():
    before = releases()
    done = play("playbooks/upgrade.yml", "-e", SHORTER).succeeded()
    assert "batch 1   a2-1, a2-2" in done.output
    after = releases()
    assert all(new != old for new, old in zip(after, before)) and "Paris" in ask()
    play("playbooks/rollback.yml", "--limit", "a2-2").refused("is one group with a2-1")
    assert releases() == after
    play("playbooks/rollback.yml").succeeded()
    assert releases() == before and "Paris" in ask()
