# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rehearsed upgrade: what it passes on, in which order it runs what, and what it says; the playbooks are played here."""

from __future__ import annotations

import json
import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import rehearsal_upgrade
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal_upgrade as domain
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal

GOOD = {"requests": 40, "failed": 0, "cut_streams": 0, "texts": {}}


@pytest.mark.parametrize("name, words", [
    ("ansible_host", "would lead the rehearsal to the true fleet"), ("fleet_registry", "would lead the rehearsal to the true fleet"),
    ("fleet_api_key", "is a secret")])
def test_what_leads_to_the_true_fleet_is_not_passed_on(name, words):
    given, problems = domain.passed_on({"patch_set": "p", "upgrade": True, "rehearsal_faults": {}, name: "s3cret"})
    assert given == {"patch_set": "p", name: "s3cret"} and len(problems) == 1
    assert words in problems[0] and name in problems[0] and "s3cret" not in problems[0]


def test_levers_name_hosts_and_parameters():
    assert domain.lever_problems({"a2-1": {"engine_crash_loop": "1"}}, ["a2-1"]) == []
    assert "no host of this inventory" in domain.lever_problems({"a2-9": {}}, ["a2-1"])[0]
    assert "{host: {lever: parameter}}" in domain.lever_problems({"a2-1": "engine_crash_loop"}, ["a2-1"])[0]


def test_addresses_are_those_that_the_gateways_print():
    printed = "ok: [a2-1]\nmodel-a: http://192.0.2.5:9000/v1\nmodel-b: https://192.0.2.5:9001, https://192.0.2.6:9001/v1\nPLAY RECAP: http\n"
    assert domain.addresses(printed) == {"model-a": "http://192.0.2.5:9000", "model-b": "https://192.0.2.5:9001"}
    assert domain.addresses("PLAY RECAP ***") == {}


@pytest.mark.parametrize("outcome, clients, levers, failed", [
    ("done", {"m": GOOD}, {}, False), ("done", {"m": dict(GOOD, failed=1)}, {}, True), ("done", {"m": dict(GOOD, requests=0)}, {}, True),
    ("held", {"m": GOOD}, {}, True), ("held", {"m": GOOD}, {"a2-1": {"x": ""}}, False), ("degraded", {"m": GOOD}, {"a2-1": {"x": ""}}, True),
    (None, {"m": GOOD}, {"a2-1": {"x": ""}}, True), ("done", {}, {}, False)])
def test_a_rehearsal_fails_when_clients_or_hosts_would(outcome, clients, levers, failed):
    state = {"outcome": outcome, "hosts": {"a2-1": {"outcome": "done"}}} if outcome else None
    events = [{"event": "step.end", "host": "a2-1", "step": "change", "elapsed_s": 12.5}] if outcome else []
    bad, lines = domain.judge(state, events, clients, levers, "the plan was refused")
    text = "\n".join(lines)
    assert bad is failed and ("change 12.5 s" in text) is bool(outcome) and ("upgrade.yml said: the plan was refused" in text) is (outcome != "done")
    assert ("no clients were played" in text) is (not clients)


class Playing:
    """ansible-playbook and the clients, played here."""

    def __init__(self, folder, monkeypatch, extra):
        self.folder, self.played, self.codes, self.outcome = folder, [], {}, "done"
        monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
        monkeypatch.setattr(rehearsal_upgrade, "load_extra_vars", lambda loader: extra)
        monkeypatch.setattr(rehearsal_upgrade.subprocess, "run", self.play)
        monkeypatch.setattr(rehearsal_upgrade, "Load", self.load)

    def play(self, words, **_options):
        name = words[4].rsplit("/", 1)[1]
        with open(words[6][1:], encoding="utf-8") as stream:
            variables = json.load(stream)
        self.played.append((name, variables, [word for word in words[7:] if word != "-i"]))
        if name == "upgrade.yml" and self.outcome:
            journal = Journal(self.folder / "reports" / "20261130-1")
            journal.write("rollout.begin", evidence={})
            journal.write("rollout.end", evidence={"outcome": self.outcome})
        output = "m: http://192.0.2.5:9000/v1\n" if name == "gateway.yml" else "fatal: [a2-1]: FAILED! no room\n"
        return types.SimpleNamespace(returncode=self.codes.get(name, 0), stdout=output)

    def load(self, url, model, rate, key, expected):
        class Clients:
            def __enter__(self):
                return self

            def __exit__(self, *_error):
                return None

            def report(self):
                return GOOD
        return Clients()

    def run(self, check_mode=False, **args):
        made = object.__new__(rehearsal_upgrade.ActionModule)
        made._task, made._loader = types.SimpleNamespace(check_mode=check_mode), None
        self.shown = []
        made._display = types.SimpleNamespace(display=lambda text, color=None: self.shown.append(text))
        given = dict({"state_directory": str(self.folder), "faults": {}, "rate": 5.0}, **args)
        made.validate_argument_spec = lambda spec: (None, given)
        return made.run(task_vars={"ansible_inventory_sources": ["/etc/prod"], "hostvars": {"a2-1": {}}})


def test_it_deploys_then_upgrades_with_what_was_asked_and_lets_the_levers_go(tmp_path, monkeypatch):
    playing = Playing(tmp_path, monkeypatch, {"patch_set": "p", "upgrade": True})
    done = playing.run(faults={"a2-1": {"engine_crash_loop": "1"}})
    assert "failed" not in done and [name for name, *_rest in playing.played] == [
        "deploy.yml", "gateway.yml", "rehearse_fault.yml", "upgrade.yml", "rehearse_fault.yml"]
    overlay = str(tmp_path / "inventory.yml")
    assert [sources for _name, _variables, sources in playing.played] == [["/etc/prod", overlay], ["/etc/prod", overlay], ["/etc/prod"], ["/etc/prod", overlay],
                                                                          ["/etc/prod"]]
    assert "patch_set" not in playing.played[0][1] and playing.played[3][1]["patch_set"] == "p" and playing.played[4][1]["clear"] is True
    assert all(variables["fleet_report_directory"] == str(tmp_path / "reports") for name, variables, _sources in playing.played if "fault" not in name)
    assert "clients of m: 40 requests, 0 failed" in "\n".join(playing.shown)


def test_a_lever_that_cannot_be_let_go_keeps_neither_the_others_nor_the_report(tmp_path, monkeypatch):
    playing = Playing(tmp_path, monkeypatch, {})
    there = playing.play

    def stuck(words, **options):
        done = there(words, **options)
        name, variables, _sources = playing.played[-1]
        done.returncode = int(name == "rehearse_fault.yml" and bool(variables.get("clear")) and variables["fault"] == "x")
        return done
    monkeypatch.setattr(rehearsal_upgrade.subprocess, "run", stuck)
    done = playing.run(faults={"a2-1": {"x": "1", "y": "1"}})
    assert [variables["fault"] for _name, variables, _sources in playing.played if variables.get("clear")] == ["x", "y"]
    assert done["failed"] and "REHEARSED UPGRADE: done" in "\n".join(playing.shown) and "still pulled: x on a2-1" in "\n".join(playing.shown)


def test_what_fails_before_is_one_line_and_nothing_is_upgraded(tmp_path, monkeypatch):
    playing = Playing(tmp_path, monkeypatch, {})
    playing.codes["deploy.yml"] = 2
    done = playing.run()
    assert "the upgrade was not rehearsed: deploy.yml failed on the rehearsal fleet" in done["msg"] and "no room" in done["msg"] and len(playing.played) == 1


@pytest.mark.parametrize("extra, args, words", [({"ansible_user": "x"}, {}, "true fleet"), ({}, {"faults": {"a2-7": {}}}, "no host of this inventory")])
def test_what_is_refused_runs_nothing(tmp_path, monkeypatch, extra, args, words):
    playing = Playing(tmp_path, monkeypatch, extra)
    done = playing.run(**args)
    assert done["failed"] and words in done["msg"] and "nothing was rehearsed" in done["msg"] and not playing.played


def test_check_mode_rehearses_nothing(tmp_path, monkeypatch):
    playing = Playing(tmp_path, monkeypatch, {})
    assert playing.run(check_mode=True) == {"changed": False} and not playing.played


def test_an_upgrade_that_ends_otherwise_fails(tmp_path, monkeypatch):
    playing = Playing(tmp_path, monkeypatch, {})
    playing.outcome = None
    done = playing.run()
    assert done["failed"] and "no rollout began" in "\n".join(playing.shown)
