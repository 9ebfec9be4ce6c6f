# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewalls come to one host first, and one that keeps a gateway out is taken back."""

from __future__ import annotations

import hashlib
import types

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import firewall
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, firewalls

HOSTS = ("h1", "h2", "h3")
PLAN = {"hosts": {host: {"instances": [{"name": "one", "port": 8000}]} for host in HOSTS}}
ADDRESSES = {host: "192.0.2.%s" % host[1] for host in HOSTS}
SOURCES = {"gw": {address: "192.0.2.99" for address in ADDRESSES.values()}}
TEXT = firewall.unit([8000], ["192.0.2.99"])


def surveys(**firewalls_found):
    return {host: {"instances": {}, "firewall": firewalls_found.get(host)} for host in HOSTS}


def traffic(**more):
    return dict({"access": "gateways", "scrapers": []}, **more)


def test_only_what_differs_is_changed():
    there = {"sha256": hashlib.sha256(TEXT.encode()).hexdigest(), "active": True}
    found = surveys(h1=there, h2=dict(there, active=False), h3=dict(there, sha256="other"))
    assert firewalls.wanted(HOSTS, PLAN, found, ADDRESSES, traffic(), SOURCES) == {"h2": TEXT, "h3": TEXT}
    assert firewalls.wanted(HOSTS, PLAN, surveys(h2=there), ADDRESSES, traffic(access="everyone"), SOURCES) == {"h2": None}
    silent = dict(surveys(), h1={"unreachable": True})
    assert firewalls.wanted(HOSTS, PLAN, silent, ADDRESSES, traffic(scrapers=["198.51.100.0/24"]), SOURCES).keys() == {"h2", "h3"}


class Fleet:
    """Hosts behind one gateway; `deaf` are those whose rules keep it out."""

    def __init__(self, monkeypatch, deaf=(), broken=()):
        self.deaf, self.broken, self.texts, self.turns, self.check = deaf, broken, {}, [], False
        monkeypatch.setattr(fan_out, "ask", self.ask)

    def ask(self, _action, requests, entry, _hostvars, _deadline):
        if entry == "gateway_host:answer":
            shut = {ADDRESSES[host] for host in self.deaf if self.texts.get(host)}
            return {gateway: {"open": [server for server in request["servers"] if server[0] not in shut]} for gateway, request in requests.items()}
        self.turns.append(sorted(requests))
        answers = {}
        for host, request in requests.items():
            if host in self.broken:
                answers[host] = {"failed": True, "msg": "nft is missing"}
                continue
            answers[host] = {"changed": True, "before": self.texts.get(host)}
            if not request["check"]:
                self.texts[host] = request["text"]
        return answers

    def bring(self):
        action = types.SimpleNamespace(_task=types.SimpleNamespace(check_mode=self.check))
        return firewalls.bring(action, {"hostvars": {}}, dict.fromkeys(HOSTS, TEXT), PLAN, surveys(), ADDRESSES, ["gw"])


def test_one_host_is_first(monkeypatch):
    fleet = Fleet(monkeypatch)
    assert set(fleet.bring()) == set(HOSTS) and fleet.turns == [["h1"], ["h2", "h3"]] and fleet.texts == dict.fromkeys(HOSTS, TEXT)


def test_what_keeps_the_gateway_out_is_taken_back_and_nobody_else_gets_it(monkeypatch):
    fleet = Fleet(monkeypatch, deaf=("h1",))
    with pytest.raises(firewalls.FirewallError, match="h1: its firewall keeps the gateway gw from port 8000, so it was taken back; .*fleet_metrics_scrapers"):
        fleet.bring()
    assert fleet.turns == [["h1"], ["h1"]] and fleet.texts == {"h1": None}


def test_a_later_host_fails_alone(monkeypatch):
    fleet = Fleet(monkeypatch, deaf=("h2",), broken=("h3",))
    with pytest.raises(firewalls.FirewallError, match="h2: its firewall keeps.*; h3: nft is missing"):
        fleet.bring()
    assert fleet.texts == {"h1": TEXT, "h2": None}


def test_check_mode_changes_nothing(monkeypatch):
    fleet = Fleet(monkeypatch, deaf=HOSTS)
    fleet.check = True
    assert {host: found["changed"] for host, found in fleet.bring().items()} == dict.fromkeys(HOSTS, True) and fleet.texts == {}
