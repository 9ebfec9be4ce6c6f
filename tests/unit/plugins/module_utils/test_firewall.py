# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches the ports of the instances, and what stays when that cannot be had."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, firewall, firewall_host


def rules(ports, sources):
    text = firewall.unit(ports, sources)
    start, reload = (line.split('"')[1] for line in text.splitlines() if line.startswith(("ExecStart=", "ExecReload=")))
    assert start == reload
    return start


def test_the_sources_connect_and_nobody_else_does():
    text = rules([8001, 8000], ["192.0.2.9", "192.0.2.0/24", "2001:db8::7", "192.0.2.9"])
    opening = "tcp dport { 8000, 8001 } tcp flags & (syn | ack) == syn"
    assert "; iif lo accept; {0} ip saddr {{ 192.0.2.0/24 }} accept; {0} ip6 saddr {{ 2001:db8::7 }} accept; {0} reject".format(opening) in text
    assert text.startswith("table inet vllm_ascend_fleet; delete table inet vllm_ascend_fleet; table inet vllm_ascend_fleet {")


def test_without_a_source_only_the_host_itself_connects():
    assert "saddr" not in rules([8000], []) and "iif lo accept" in rules([8000], [])


def test_without_an_instance_there_is_nothing_to_guard():
    assert firewall.unit([], ["192.0.2.9"]) is None


def test_ports_are_those_of_the_plan_and_of_what_else_is_installed():
    plan = {"hosts": {"a": {"instances": [{"name": "one", "port": 8002}, {"name": "part", "port": 8009, "group": {"role": "member"}}]}}}
    surveys = {"a": {"instances": {"one": {"manifest": {"port": 8000}}, "two": {"manifest": {"port": 8001}}, "three": {"manifest": None}}}}
    assert firewall.ports(plan, surveys, "a") == [8001, 8002]


@pytest.mark.parametrize("access, scrapers, words", [
    ("gateway", [], "fleet_instance_access must be gateways or everyone, not 'gateway'"),
    ("gateways", ["prometheus.example.net"], "'prometheus.example.net' is no address and no network")])
def test_settings_that_nobody_could_carry_out_are_refused(access, scrapers, words):
    assert words in firewall.problems(access, scrapers)[0]
    assert firewall.problems("everyone", ["192.0.2.1/24", "2001:db8::1"]) == []


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose systemctl and nft do what the test says: {words: exit code}."""
    answers, calls = {}, []

    def run(argv, *_rest, **_more):
        calls.append(" ".join(argv))
        return {"rc": next((rc for words, rc in answers.items() if words in calls[-1]), 0), "stdout": "", "stderr": "it said no"}
    monkeypatch.setattr(container_cli, "run", run)
    monkeypatch.setattr(firewall_host, "UNITS", str(tmp_path))
    monkeypatch.setattr(firewall_host.shutil, "which", lambda *_names, **_more: "/usr/sbin/nft")
    return tmp_path / "vllm-ascend-fleet-firewall.service", answers, calls


def test_a_firewall_comes_stays_changes_and_goes(host):
    path, answers, calls = host
    assert firewall_host.answer({"text": "one", "check": True}) == {"changed": True, "before": None} and not path.exists()
    assert firewall_host.answer({"text": "one", "check": False})["changed"] and path.read_text() == "one"
    assert not firewall_host.answer({"text": "one", "check": False})["changed"]
    answers["nft list table"] = 1
    assert firewall_host.answer({"text": "one", "check": True}) == {"changed": True, "before": "one"}, "another tool has flushed it"
    del calls[:]
    assert firewall_host.remove() and not path.exists() and any("disable --now" in call for call in calls)
    assert not firewall_host.remove()


def test_what_does_not_start_leaves_the_one_before(host):
    path, answers, calls = host
    path.write_text("before")
    answers["reload-or-restart"] = 1
    with pytest.raises(ValueError, match="did not start .it said no."):
        firewall_host.answer({"text": "after", "check": False})
    assert path.read_text() == "before" and sum("reload-or-restart" in call for call in calls) == 2


def test_a_host_without_nft_is_told_what_to_do(host, monkeypatch):
    monkeypatch.setattr(firewall_host.shutil, "which", lambda *_names, **_more: None)
    with pytest.raises(ValueError, match="install nftables, or say fleet_instance_access: everyone"):
        firewall_host.answer({"text": "one", "check": True})
