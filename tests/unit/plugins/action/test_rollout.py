# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of a rollout, with anchors and hosts that say what the test wants."""

from __future__ import annotations

import json
import os
import signal
import types

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import change, gateway, rollout, traffic
from ansible_collections.vllm_ascend.fleet.plugins.lookup.rollout import LookupModule
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gateway as gateway_domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import lease_host
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rollout as domain
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, grouping, lean, performance, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal

HOSTS = ["h1", "h2", "h3"]
INSTANCE = {
    "name": "one",
    "served_model_name": "M",
    "model": "M",
    "port": 8000,
    "unit": "u.service",
    "container": "c",
    "image": "i",
    "arguments": [],
    "environment": {},
    "devices": [],
    "patch_set": None,
    "release": {"id": "b" * 12, "files": {}},
    "ready_timeout_s": 5,
    "stop_timeout_s": 5,
    "secret": False,
}


class HostVars(dict):
    raw_get = dict.__getitem__


class Fleet:
    """Everything that is asked over SSH, answered here."""

    def __init__(self, folder):
        self.folder, self.hosts, self.asked, self.changes = folder, HostVars({host: {} for host in HOSTS}), [], {}
        self.down, self.unproven, self.drain = set(), set(), {"drained": True, "running": 0, "waiting": 0, "arrived": 0, "still_arriving": False, "error": None}
        self.playing = HOSTS
        self.load = {"running": 1, "waiting": 0, "kv_usage": 0.1, "max_num_seqs": 100}

    def ask(self, action, requests, entry, hostvars, deadline_s):
        self.asked.append((entry, sorted(requests)))
        found = {}
        for host, given in requests.items():
            if host in self.down:
                found[host] = {"unreachable": True, "msg": "Connection refused"}
            elif entry == "lease_host:answer":
                found[host] = lease_host.answer(dict(given, directory=str(self.folder / host)))
            elif entry == "look:answer":
                found[host] = {"survey": SURVEY, "proof": {"one": {"ready": host not in self.unproven, "findings": []}}, "load": {"one": self.load}}
            elif entry == "drain_host:answer":
                found[host] = {"instances": {"one": self.drain}, "elapsed_s": 1.0}
            elif entry == "host_change:give_up":
                self.changes[host] = given
                found[host] = {"changed": False}
        return found

    def run(self, module, check_mode=False, host="h1", batch=None, **args):
        made = object.__new__(module.ActionModule)
        made._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        self.shown = []
        made._display = types.SimpleNamespace(display=lambda text, color=None: self.shown.append(text), warning=self.shown.append, vv=self.shown.append)
        made._play_context = made._templar = made._connection = None
        made.validate_argument_spec = lambda spec: (None, {key: args.get(key, rule.get("default")) for key, rule in spec.items()})
        return made.run(
            task_vars={
                "hostvars": self.hosts,
                "ansible_play_hosts_all": HOSTS,
                "ansible_play_hosts": self.playing,
                "ansible_play_batch": batch or [host],
                "inventory_hostname": host,
            }
        )

    def events(self):
        return Journal(self.folder / "reports" / "run").events()


SURVEY = {"instances": {"one": {"release": "a" * 12, "previous": None, "manifest": INSTANCE, "unit": {"active_state": "active"}}}, "state": {}, "engine": {}}


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    made = Fleet(tmp_path)
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "tmp"))
    monkeypatch.setattr(fan_out, "ask", made.ask)
    (tmp_path / "tmp").mkdir()
    plan = {"hash": "p", "hosts": {host: {"instances": [INSTANCE], "engine": "docker", "engine_path": "/d", "state_directory": "/s"} for host in HOSTS}}
    for name, content in {
        "plan": plan,
        "differences": {host: {"one": {"action": "replace"}} for host in HOSTS},
        "surveys": {host: SURVEY for host in HOSTS},
        "proof": {host: {"one": {"ready": True, "findings": []}} for host in HOSTS},
        "run": {"directory": str(tmp_path / "reports" / "run")},
        "rollout_settings": {
            "policy": domain.policy({})[0],
            "racks": dict.fromkeys(HOSTS),
            "anchors": HOSTS,
            "beyond": [],
            "state_directories": dict.fromkeys(HOSTS, "/s"),
            "report_directory": str(tmp_path / "reports"),
            "ledger_key": None,
            "history": str(tmp_path / "history.sqlite"),
            "traffic": {"gateways": [], "gateway": {}, "hooks": {}},
        },
    }.items():
        workspace.save(name, content)
    return made


def settings(**policy):
    kept = workspace.load("rollout_settings")
    kept["policy"].update(policy)
    workspace.save("rollout_settings", kept)


def begin(fleet, **more):
    return fleet.run(rollout, stage="begin", work=HOSTS, parameters={"model": ""}, **more)


def test_a_plan_is_shown_with_its_hash_and_an_agreed_hash_is_held_to(fleet):
    shown = fleet.run(rollout, stage="plan", work=HOSTS)
    assert shown["batches"] == [["h1"], ["h2"], ["h3"]] and "plan hash: " + shown["hash"] in "\n".join(fleet.shown)
    refused = begin(fleet, plan_hash="other")
    assert refused["failed"] and "plan_hash is other; something changed since" in refused["msg"] and not list(fleet.folder.glob("reports/*/journal.jsonl"))
    assert "failed" not in begin(fleet, plan_hash=shown["hash"])
    assert fleet.events()[0]["evidence"]["hash"] == shown["hash"]


def test_a_second_controller_is_refused_by_name_and_changes_nothing(fleet):
    begin(fleet)
    owner = fleet.events()[0]["evidence"]["owner"]
    for host in HOSTS:
        path = fleet.folder / host / "rollout.json"
        path.write_text(json.dumps(dict(json.loads(path.read_text()), owner=dict(owner, host="elsewhere", name="bob"))))
    workspace.save("rollout", {})
    workspace.save("run", {"directory": str(fleet.folder / "reports" / "second")})
    plan = workspace.load("plan")
    plan["hosts"]["h1"]["instances"][0]["port"] = 9
    workspace.save("plan", plan)
    refused = begin(fleet)
    assert refused["failed"] and "bob@elsewhere" in refused["msg"] and "take_over=true" in refused["msg"]
    told = json.loads((fleet.folder / "reports" / "second" / "report.json").read_text())["verdict"]
    assert told["status"] == "bad" and "bob@elsewhere" in told["what"] and not (fleet.folder / "reports" / "second" / "journal.jsonl").exists()
    assert "failed" not in begin(fleet, take_over=True)


def test_one_anchor_less_is_enough_and_two_less_are_not(fleet):
    fleet.down = {"h3"}
    assert "failed" not in begin(fleet)
    fleet.down = {"h2", "h3"}
    workspace.save("rollout", {})
    assert "2 must" in begin(fleet)["msg"]


def test_a_batch_goes_when_budget_load_and_lease_allow(fleet):
    begin(fleet)
    assert fleet.run(rollout, stage="batch")["go"] == ["h1"]
    event = fleet.events()[-1]
    assert event["event"] == "batch.begin" and event["evidence"]["capacity"][0]["ok"] and "1 to change + 0 not proven = 1" in event["message"]


@pytest.mark.parametrize("break_it, words", [
    (lambda fleet: fleet.down.add("h3"), "h3: it does not answer"),
    (lambda fleet: fleet.load.update(running=99), "at most 160 requests"),
    (lambda fleet: fleet.load.update(error="HTTP 404 from /metrics"), "(HTTP 404 from /metrics); allow that with -e ignore_load=true"),
    (lambda fleet: fleet.run(rollout, stage="request", request="pause"), "pause was asked for"),
    (lambda fleet: fleet.run(rollout, stage="request", request="abort"), "abort was asked for"),
    (lambda fleet: [lease_host.answer({"directory": str(fleet.folder / host), "act": "take", "epoch": 9, "owner": {"name": "bob"}, "seconds": 9, "rollout": "x",
                                       "plan": "y", "take_over": "z"}) for host in HOSTS], "the lease is lost, so nothing further is done"),
])
def test_a_batch_is_held_with_its_reason(fleet, monkeypatch, break_it, words):
    monkeypatch.setattr("ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.reaching.reach", lambda hosts, *_more: {})
    begin(fleet)
    break_it(fleet)
    monkeypatch.setattr("ansible_collections.vllm_ascend.fleet.plugins.module_utils.reachability.explain", lambda *_args: {
        "unreachable": True, "kind": "port", "error": "it does not answer", "remedy": "look"})
    held = fleet.run(rollout, stage="batch")
    assert held["go"] == [] and words in held["why"] and fleet.events()[-1]["event"] == "hold"
    ended = fleet.run(rollout, stage="end")
    assert ended["failed"] and ended["outcome"] == "held" and words in ended["msg"]
    assert [event["event"] for event in fleet.events()] == ["rollout.begin", "hold", "rollout.end"]
    told = json.loads((fleet.folder / "reports" / "run" / "report.json").read_text())["verdict"]
    assert told["status"] == "unsure" and words in told["what"] and "resume.yml" in told["remedy"]


@pytest.mark.parametrize("policy, serving, words", [
    ("serve", 3, "goes on serving, as sick_host says"), ("drain", 3, "gets no requests any more"), ("drain", 1, "too few replicas would be left")])
def test_a_host_that_falls_ill_on_the_way_leaves_the_plan(fleet, monkeypatch, policy, serving, words):
    """It counts in the budget, and nobody but it is kept from changing."""
    settings(sick_host=policy, max_unavailable=2)
    plan = workspace.load("plan")
    plan["hosts"]["h2"]["instances"] = [dict(INSTANCE, devices=["/dev/davinci0"])]
    workspace.save("plan", plan)
    fleet.unproven = set(HOSTS[:3 - serving] if serving > 1 else [])
    begin(fleet)
    healthy = dict(SURVEY, chips=[{"device": "/dev/davinci0", "health": "OK"}])
    sick = dict(SURVEY, chips=[{"device": "/dev/davinci0", "health": "Alarm"}])
    ask, seen = fan_out.ask, {}

    def answer(action, requests, entry, hostvars, deadline_s):
        found = ask(action, requests, entry, hostvars, deadline_s)
        for host in found if entry == "look:answer" else ():
            found[host]["survey"] = sick if host == "h2" else healthy
        return found

    monkeypatch.setattr(fan_out, "ask", answer)
    if serving == 1:
        settings(min_ready=3)
        monkeypatch.setattr(domain, "capacity", lambda *unused: [])
    assert fleet.run(rollout, stage="batch", batch=["h1"])["go"] == ["h1"] and not seen
    assert any("h2: /dev/davinci0 health Alarm; it leaves the plan" in line and words in line for line in fleet.shown)
    assert "1 not proven (h2: /dev/davinci0 health Alarm)" in fleet.shown[-1]
    fleet.run(rollout, stage="batch_end")
    held = fleet.run(rollout, stage="batch", batch=["h2"])
    assert held["go"] == [] and held["why"] is None


def test_a_canary_that_falls_ill_has_no_successor(fleet, monkeypatch):
    begin(fleet)
    monkeypatch.setattr(domain, "sick", lambda plan, surveys: {"h1": "/dev/davinci0 health Alarm"})
    assert "no canary is left: h1: /dev/davinci0 health Alarm" in fleet.run(rollout, stage="batch", batch=["h1"])["why"]


def test_load_that_is_not_known_may_be_ignored_and_that_is_told(fleet):
    begin(fleet)
    fleet.load["error"] = "silent"
    assert fleet.run(rollout, stage="batch", ignore_load=True)["go"] == ["h1"] and fleet.events()[-1]["evidence"]["ignored_load"]


def test_where_nothing_is_to_change_no_journal_is_opened(fleet):
    assert "failed" not in fleet.run(rollout, stage="begin", work=[], parameters={"model": ""}) and fleet.shown[-1] == "ROLLOUT: nothing is to change"
    assert fleet.run(rollout, stage="revert")["hosts"] == [] and fleet.run(rollout, stage="end")["outcome"] is None
    assert not (fleet.folder / "reports" / "run" / "journal.jsonl").exists()


def test_nothing_follows_a_host_that_went_back(fleet):
    begin(fleet)
    fleet.run(rollout, stage="batch")
    Journal(fleet.folder / "reports" / "run").write("step.end", "h1", 0, "change", False, evidence={"outcome": "reverted"})
    fleet.run(rollout, stage="batch_end")
    assert fleet.run(rollout, stage="batch", host="h2")["why"] == "h1 ended reverted; nothing further is touched"


def test_what_was_done_goes_back_when_the_policy_says_so(fleet):
    settings(on_failure="revert")
    begin(fleet)
    journal = Journal(fleet.folder / "reports" / "run")
    for host, outcome in (("h1", "done"), ("h2", "reverted")):
        journal.write("step.end", host, 0, "change", outcome == "done", evidence={"outcome": outcome})
    assert fleet.run(rollout, stage="revert")["hosts"] == ["h1"] and LookupModule().run(["revert"]) == ["h1"]
    settings(on_failure="hold")
    assert fleet.run(rollout, stage="revert")["hosts"] == [] and LookupModule().run(["revert"]) == ["!all"]


def test_the_play_learns_its_hosts_and_batches(fleet):
    assert LookupModule().run(["hosts"]) == ["!all"] and LookupModule().run(["serial"]) == [1]
    settings(batches=[1, 2])
    begin(fleet)
    assert LookupModule().run(["hosts"]) == ["h1", "h2", "h3"] and LookupModule().run(["serial"]) == [1, 1, 1] or LookupModule().run(["serial"]) == [1, 2]


def test_a_rollout_that_was_cut_off_goes_on_in_its_own_journal(fleet):
    begin(fleet)
    workspace.save("rollout", {})
    workspace.save("run", {"directory": str(fleet.folder / "reports" / "z-later")})
    again = fleet.run(rollout, stage="begin", work=["h2", "h3"], parameters={})
    assert again["directory"].endswith("reports/run") and fleet.events()[-1]["evidence"]["resumed"] is True
    assert fleet.run(rollout, stage="parameters", report_directory=str(fleet.folder / "reports"))["parameters"] == {"model": ""}


@pytest.mark.parametrize("outcomes, again", [({"h1": "reverted"}, "begins"), ({"h1": "done", "h2": "reverted"}, "goes on")])
def test_what_was_held_begins_anew_with_its_canary_unless_some_of_it_is_done(fleet, outcomes, again):
    begin(fleet)
    journal = Journal(fleet.folder / "reports" / "run")
    for number, (host, outcome) in enumerate(outcomes.items()):
        fleet.run(rollout, stage="batch", batch=[host])
        journal.write("step.end", host, number, "change", outcome == "done", evidence={"outcome": outcome})
        fleet.run(rollout, stage="batch_end", batch=[host])
    fleet.run(rollout, stage="end")
    workspace.save("rollout", {})
    workspace.save("run", {"directory": str(fleet.folder / "reports" / "run-2")})
    assert "failed" not in begin(fleet)
    latest = Journal(fleet.folder / "reports" / ("run-2" if again == "begins" else "run")).events()
    assert [event for event in latest if event["event"] == "rollout.begin"][-1]["message"].startswith(again)
    # What ended badly may be tried once more.
    assert fleet.run(rollout, stage="batch", batch=["h2"])["go"] == ["h2"]


def test_a_rollout_that_is_done_is_in_the_ledger_and_gives_its_lease_back(fleet):
    begin(fleet)
    journal = Journal(fleet.folder / "reports" / "run")
    for host in HOSTS:
        journal.write("step.end", host, 0, "change", True, evidence={"outcome": "done"})
    ended = fleet.run(rollout, stage="end")
    assert ended["outcome"] == "done" and "failed" not in ended
    assert json.loads((fleet.folder / "h1" / "rollout.json").read_text())["released"] is True
    assert "failed" not in fleet.run(rollout, stage="verify", report_directory=str(fleet.folder / "reports"))
    assert "there is nothing to go on with" in fleet.run(rollout, stage="parameters", report_directory=str(fleet.folder / "reports"))["msg"]


def test_without_what_came_before_each_stage_is_one_line(fleet):
    (fleet.folder / "tmp" / "vllm_ascend_fleet" / "rollout_settings.json").unlink()
    for stage in ("plan", "begin", "batch", "end"):
        assert "run the whole playbook" in fleet.run(rollout, stage=stage)["msg"]
    assert "no rollout is on record" in fleet.run(rollout, stage="parameters", report_directory=str(fleet.folder))["msg"]
    assert "cannot be read" in fleet.run(rollout, stage="verify", report_directory=str(fleet.folder))["msg"]


# --- traffic


def test_out_and_in_are_journalled(fleet):
    begin(fleet)
    assert fleet.run(traffic, state="out")["cut"] == 0 and fleet.run(traffic, state="in")["moved"] == []
    assert [(event["event"], event["step"], event["ok"]) for event in fleet.events()[1:]] == [
        ("step.begin", "drain", None), ("step.end", "drain", True), ("step.begin", "admit", None), ("step.end", "admit", True)]


@pytest.mark.parametrize("found, policy, words", [
    ({"drained": False, "error": "silent"}, {}, "whether one is idle is not known: silent"),
    ({"drained": False, "running": 2}, {"drain_at_deadline": "fail"}, "2 request(s) still run after 600 s"),
])
def test_a_drain_that_is_not_proven_stops_the_host_before_its_change(fleet, found, policy, words):
    settings(**policy)
    begin(fleet)
    fleet.drain.update(found)
    failed = fleet.run(traffic, state="out")
    assert failed["failed"] and words in failed["msg"] and fleet.events()[-1]["ok"] is False


def test_streams_that_are_cut_are_counted(fleet):
    begin(fleet)
    fleet.drain.update(drained=False, running=2, waiting=1)
    assert fleet.run(traffic, state="out")["cut"] == 3 and any("3 stream(s) still ran" in text for text in fleet.shown)


@pytest.mark.parametrize("script, fails", [("test $FLEET_HOST/$FLEET_INSTANCE/$FLEET_STATE = h1/one/drain", False), ("echo no such pool >&2; exit 3", True)])
def test_a_balancer_of_the_operator_is_told_by_a_hook(fleet, script, fails):
    kept = workspace.load("rollout_settings")
    kept["traffic"]["hooks"] = {"drain": ["/bin/sh", "-c", script]}
    workspace.save("rollout_settings", kept)
    begin(fleet)
    done = fleet.run(traffic, state="out")
    assert done.get("failed", False) is fails
    if fails:
        assert "the hook /bin/sh for one on h1 ended with 3: no such pool" in done["msg"]


# --- change


def changing(monkeypatch, result, begun=None):
    calls = []

    def execute(action, entry, arguments, task_vars):
        calls.append((entry, arguments))
        if entry == "host_change:begin":
            return dict({"changed": True, "diff": [], "actions": ["stop u.service"], "instances": {}, "job": {"state": "running"}}, **(begun or {}))
        if isinstance(result, Exception):
            raise result
        return {"job": {"state": "succeeded", "result": result}}
    monkeypatch.setattr(lean, "execute", execute)
    return calls


RESULT = {"outcome": "done", "changed": True, "message": None, "proof": {}, "instances": {}, "reverted": [], "removed": [], "quarantined": False, "steps": [
    {"step": "switch", "time": 1.0, "elapsed_s": 2.0, "ok": True, "message": None}]}


def test_a_change_is_followed_to_its_end(fleet, monkeypatch):
    calls = changing(monkeypatch, RESULT)
    done = fleet.run(change)
    assert done["changed"] and done["outcome"] == "done" and workspace.load("change.h1")["actions"] == ["stop u.service"]
    assert (
        calls[0][1]["request"]["instances"][0]["name"] == "one" and calls[0][1]["request"]["prove"]["rounds"] == 3 and calls[0][1]["request"]["fence"] is None
    )


@pytest.mark.parametrize("more, words", [
    ({"outcome": "reverted", "message": "one: x"}, "h1: one: x -- the release before is back and proven"),
    ({"outcome": "reverted", "message": "one: x", "removed": ["one"]}, "h1: one: x -- nothing was there before, so it was taken away again"),
    ({"outcome": "down", "message": "one: x -- AND the release before is down: y"}, "h1: one: x -- AND the release before is down: y"),
    ({"outcome": "failed", "message": "one: x", "changed": False}, "h1: one: x -- nothing was changed"),
    ({"outcome": "failed", "message": "one: x", "paused": True}, "h1: one: x -- nothing is done against that; go on with playbooks/resume.yml when it runs "
                                                                 "again"),
    ({"outcome": "failed", "message": "one: x", "quarantined": True}, "h1: one: x -- its NPUs are to blame, not the release"),
])
def test_a_change_that_ends_otherwise_fails_in_one_line(fleet, monkeypatch, more, words):
    changing(monkeypatch, dict(RESULT, **more))
    ended = fleet.run(change)
    assert ended["msg"] == words
    assert ended["outcome"] == ("quarantined" if more.get("paused") or more.get("quarantined") else more["outcome"]), "what is not proven is not let in"


def test_in_a_rollout_a_change_is_fenced_named_and_journalled(fleet, monkeypatch):
    begin(fleet)
    fleet.run(rollout, stage="batch")
    calls = changing(monkeypatch, RESULT)
    fleet.run(change, rollout=True)
    given = calls[0][1]
    assert given["id"] == "run-h1" and given["request"]["fence"]["epoch"] == 1 and given["request"]["instances"][0]["stability_window_s"] == 30, "a canary"
    assert [(event["event"], event["step"]) for event in fleet.events()[-3:]] == [("step.begin", "change"), ("step.end", "switch"), ("step.end", "change")]
    assert fleet.events()[-1]["evidence"]["outcome"] == "done"


def test_a_host_that_is_lost_meanwhile_is_told_and_not_dropped(fleet, monkeypatch):
    begin(fleet)
    changing(monkeypatch, AnsibleConnectionFailure("gone"))
    failed = fleet.run(change, rollout=True, patience_s=0)
    assert failed["failed"] and "it finishes by itself, or its timer brings back what ran before" in failed["msg"] and "unreachable" not in failed
    assert fleet.events()[-1]["evidence"]["outcome"] == "unreachable"


@pytest.mark.parametrize("began, words", [
    (True, "h1: started anew, at: prove -- the release before is back and proven"), (False, "the change change-")])
def test_a_host_that_went_down_in_its_change_goes_back_at_once(fleet, monkeypatch, began, words):
    calls = changing(monkeypatch, {})
    job = {"job": {"state": "lost", "reason": "the host was started anew while it ran", "progress": "prove", "folder": "/s/jobs/x", "result": None}}
    back = dict(RESULT, outcome="reverted", message="started anew, at: prove")
    answers = {"job_host:answer": [job], "host_change:bring_back": [{"began": began}], "host_change:brought_back": [{"result": None}, {"result": back}]}
    begun = lean.execute

    def execute(action, entry, given, task_vars):
        return answers[entry].pop(0) if entry in answers else begun(action, entry, given, task_vars)

    monkeypatch.setattr(lean, "execute", execute)
    failed = fleet.run(change)
    assert words in failed["msg"] and calls[0][0] == "host_change:begin"
    assert workspace.load("change.h1")["outcome"] == ("reverted" if began else "down")


@pytest.mark.parametrize("outcome, again", [("reverted", "-2"), ("failed", "-2"), ("unreachable", "")])
def test_what_ended_badly_is_tried_under_a_name_of_its_own(fleet, monkeypatch, outcome, again):
    begin(fleet)
    fleet.run(rollout, stage="batch", batch=["h1"])
    calls = changing(monkeypatch, RESULT)
    Journal(fleet.folder / "reports" / "run").write("step.end", "h1", 0, "change", False, evidence={"outcome": outcome})
    fleet.run(change, rollout=True)
    assert calls[0][1]["id"] == "run-h1" + again


def test_a_refusal_of_the_host_is_told_with_what_it_means(fleet, monkeypatch):
    calls = changing(monkeypatch, RESULT, {"failed": True, "msg": "unit u.service is masked"})
    assert fleet.run(change)["msg"] == "h1: unit u.service is masked; nothing was changed" and len(calls) == 1


def test_check_mode_follows_no_job(fleet, monkeypatch):
    calls = changing(monkeypatch, RESULT)
    assert fleet.run(change, check_mode=True)["changed"] and len(calls) == 1 and calls[0][1]["check"] is True
    assert fleet.shown == ["h1: would stop u.service"]


# --- gateway


# --- hosts that change as one


@pytest.fixture
def group(fleet, monkeypatch):
    """h1 and h2 serve one instance together, and h2 is about to change as well."""
    plan = workspace.load("plan")
    for role, host in (("head", "h1"), ("member", "h2")):
        plan["hosts"][host]["instances"] = [dict(INSTANCE, group={"members": ["h1", "h2"], "role": role})]
    workspace.save("plan", plan)
    workspace.save("begins.present.h2", {"folder": "/s/jobs/its-change"})
    monkeypatch.setattr(grouping, "GATHER_S", 0.3)
    monkeypatch.setattr(grouping.change, "dead_man_s", lambda instances: 0.3)
    return fleet


def other(outcome, message=None):
    workspace.save("ended.present.h2", {"outcome": outcome, "message": message})


def test_the_hosts_of_a_group_end_well_together(group, monkeypatch):
    changing(monkeypatch, RESULT)
    other("done")
    assert group.run(change)["outcome"] == "done" and group.changes == {}
    assert workspace.load("ended.present.h1")["outcome"] == "done" and workspace.load("begins.present.h1")["folder"].startswith("/s/jobs/change-")


def test_a_host_without_the_rest_of_its_group_is_not_touched(group, monkeypatch):
    calls = changing(monkeypatch, RESULT)
    group.playing = ["h1", "h3"]
    assert "h1: instance 'one' is one group with h2, which takes no part" in group.run(change)["msg"]
    group.playing = HOSTS
    (workspace.folder() / "begins.present.h2.json").unlink()
    assert "h2, of the same group, did not begin to change" in group.run(change)["msg"]
    assert calls == [] and group.run(change, check_mode=True)["changed"], "in check mode nobody is waited for"


@pytest.mark.parametrize("outcome", ["reverted", "down", "failed"])
def test_a_host_that_did_not_get_there_tells_the_others_at_once(group, monkeypatch, outcome):
    changing(monkeypatch, dict(RESULT, outcome=outcome, message="one: x"))
    assert "h1: one: x" in group.run(change)["msg"]
    assert group.changes == {"h2": {"folder": "/s/jobs/its-change", "why": "h1 ended %s; a group changes as one" % outcome}}


def test_a_host_that_begins_to_go_back_tells_the_others_before_it_has_ended(group, monkeypatch):
    told = []
    changing(monkeypatch, dict(RESULT, outcome="reverted", message="one: x"))
    monkeypatch.setattr(
        change,
        "follow",
        lambda execute, show, *_args: (show("prove"), told.append(dict(group.changes)), show("prove again"), told.append(dict(group.changes)), execute({}))[-1],
    )
    group.run(change)
    assert told[0] == {} and "goes back" in told[1]["h2"]["why"]


@pytest.mark.parametrize("before, state", [("a" * 12, "previous"), (None, "absent")])
def test_a_host_that_is_proven_goes_back_with_one_that_is_not(group, monkeypatch, before, state):
    workspace.save("differences", {"h1": {"one": {"action": "replace", "before": before}}})
    calls = changing(monkeypatch, dict(RESULT, instances={"one": {}}))
    other("reverted", "one: endpoint.chips: x")
    found = group.run(change)
    assert found["msg"] == "h1: h2, of the same group, ended reverted: one: endpoint.chips: x -- it went back as well"
    asked = [arguments["request"] for entry, arguments in calls if entry == "host_change:begin"]
    assert [each["state"] for each in asked] == ["present", state] and workspace.load("change.h1")["outcome"] == "reverted"


def test_a_host_that_had_nothing_to_do_fails_with_its_group(group, monkeypatch):
    changing(monkeypatch, dict(RESULT, outcome="unchanged", changed=False))
    assert "ended without a word" in group.run(change)["msg"] and workspace.load("change.h1")["outcome"] == "failed"


@pytest.mark.parametrize("state, gone, refused", [("absent", False, False), ("stopped", False, True), ("stopped", True, False), ("started", True, True)])
def test_what_is_removed_or_stops_is_not_held_up_by_a_host_that_is_gone(group, monkeypatch, state, gone, refused):
    workspace.save("surveys", {"h1": dict(SURVEY, instances={"one": dict(SURVEY["instances"]["one"], manifest=dict(
        INSTANCE, group={"members": ["h1", "h2"], "role": "head"}))}), "h2": {"unreachable": gone}})
    calls = changing(monkeypatch, RESULT)
    group.playing = ["h1", "h3"]
    found = group.run(change, state=state)
    assert bool(found.get("failed")) is refused and bool(calls) is not refused


def test_a_fleet_without_gateways_asks_nobody(fleet):
    assert fleet.run(gateway) == {"changed": False, "addresses": {}, "guarded": []} and fleet.asked == []


def test_a_fleet_whose_gateways_are_gone_lets_everyone_in_again(fleet, monkeypatch):
    workspace.save("surveys", {"h1": dict(SURVEY, firewall={"sha256": "of what was", "active": True}), "h2": dict(SURVEY, firewall=None)})
    there = fleet.ask

    def ask(action, requests, entry, hostvars, deadline_s):
        if entry == "firewall_host:answer":
            return {host: {"changed": True, "before": "was", "asked": request["text"]} for host, request in requests.items()}
        return there(action, requests, entry, hostvars, deadline_s)
    monkeypatch.setattr(fan_out, "ask", ask)
    found = fleet.run(gateway)
    assert found["changed"] and found["guarded"] == ["h1"] and [one["after"] for one in found["diff"]] == [""]


def test_a_gateway_that_is_not_set_up_yet_is_left_alone_and_told(fleet, monkeypatch):
    settings()
    kept = workspace.load("rollout_settings")
    workspace.save("rollout_settings", dict(kept, traffic={"gateways": ["gw"], "gateway": {}, "hooks": {}}))
    monkeypatch.setattr(fan_out, "ask", lambda action, requests, *_rest: {"gw": {"servers": [], "running": False, "set_up": False}})
    assert fleet.run(gateway)["addresses"] == {} and fleet.shown == ["gw: no gateway yet; set it up with playbooks/gateway.yml"]


@pytest.mark.parametrize("down", [(), ("h3",)])
def test_a_limited_run_keeps_the_servers_of_the_other_hosts_at_the_gateways(fleet, monkeypatch, down):
    kept, plan = workspace.load("rollout_settings"), workspace.load("plan")
    workspace.save("plan", dict(plan, hosts={"h1": plan["hosts"]["h1"]}))
    workspace.save("surveys", {"h1": SURVEY})
    chosen = gateway_domain.settings({})[0]
    workspace.save("rollout_settings", dict(kept, beyond=["h2", "h3"], traffic={"gateways": ["gw"], "gateway": chosen, "hooks": {}}))
    fleet.hosts["gw"], fleet.hosts["h1"]["fleet_api_key"], applied, clients, there = {}, "key of the instances", [], [], fleet.ask

    def ask(action, requests, entry, hostvars, deadline_s):
        if entry != "gateway_host:answer":
            return {host: {"survey": {"unreachable": True, "error": "off", "remedy": "on"}, "proof": {}, "load": {}} if host in down else answer
                    for host, answer in there(action, requests, entry, hostvars, deadline_s).items()}
        if requests["gw"]["act"] == "look":
            return {"gw": {"servers": [{"name": "%s.one" % host} for host in HOSTS], "running": True, "set_up": True, "ports": {"model-M": 9007}}}
        applied.append(requests["gw"]["files"]["haproxy.cfg"])
        clients.append(requests["gw"]["files"].get("clients.map"))
        return {"gw": {"changed": False, "actions": [], "different": [], "before": "", "sources": {}}}
    monkeypatch.setattr(fan_out, "ask", ask)
    assert "failed" not in fleet.run(gateway)
    if down:
        assert not applied and "the gateways stay as they are, since h3 cannot be asked" in fleet.shown[0]
    else:
        assert all("server %s.one" % host in applied[0] for host in HOSTS) and "bind :9007\n" in applied[0]
        # The gateway lends the key of the instances to nobody.
        assert clients[0].endswith(" fleet\n") and clients[0].count("\n") == 1


class Measuring:
    """The jobs that measure, on a fleet of Gemma hosts."""

    def __init__(self, fleet, monkeypatch, speed):
        self.fleet, self.speed, self.jobs, self.talk = fleet, speed, {}, fleet.ask
        self.broken = {}
        instance = dict(INSTANCE, model="gemma-4-E2B-it", served_model_name="gemma-4-E2B-it", engine="docker", arguments=["/models/gemma-4-E2B-it"])
        self.survey = dict(SURVEY, family="910b", instances={"one": dict(SURVEY["instances"]["one"], manifest=instance)})
        plan = workspace.load("plan")
        for host in HOSTS:
            plan["hosts"][host].update(instances=[instance], platform="a2")
        workspace.save("plan", plan)
        workspace.save("surveys", {host: self.survey for host in HOSTS})
        settings(performance={"suite": "gemma4", "workloads": ["1k/1k"]})
        monkeypatch.setattr(fan_out, "ask", self.ask)
        monkeypatch.setattr(performance, "PACE_S", 0.0)

    def ask(self, action, requests, entry, hostvars, deadline_s):
        if entry == "look:answer":
            found = self.talk(action, requests, entry, hostvars, deadline_s)
            return {host: dict(answer, survey=self.survey) if "survey" in answer else answer for host, answer in found.items()}
        if entry == "bench_runner:begin":
            self.jobs.update(requests)
            return {host: {"changed": True, "job": {"state": "running"}} for host in requests}
        if entry == "job_host:answer" and next(iter(requests.values()))["state"] != "absent":
            return {host: self.ended(host) for host in requests}
        return self.talk(action, requests, entry, hostvars, deadline_s)

    def ended(self, host):
        if host in self.broken:
            return {"job": {"state": "failed", "reason": self.broken[host]}}
        left = []
        for number, step in enumerate(self.jobs[host]["plan"]["steps"]):
            factor = self.speed(host) * (1 + 0.001 * (number % 3))
            text = json.dumps({"num_prompts": 1, "duration": 12.75 / factor, "completed": 1, "failed": 0, "total_input_tokens": 1024,
                               "total_output_tokens": 1024, "output_throughput": 80.31 * factor, "total_token_throughput": 160.62 * factor,
                               "mean_ttft_ms": 121.3 / factor, "mean_tpot_ms": 12.35 / factor})
            left.append({"key": step["key"], "chain": step["chain"], "kept": False, "rc": 0, "output": "", "text": text, "problems": [],
                         "started_epoch_s": 1000.0 + number, "ended_epoch_s": 1013.0 + number, "tokenizer_sha256": None,
                         "server": {"other_requests": 0, "busy_before": 0, "cache_hit_ratio": 0.99}})
        return {"job": {"state": "succeeded", "result": {"complete": True, "results": left}}}

    def canary(self):
        """One rollout up to the end of its first batch; what it was held for, or None."""
        assert "failed" not in begin(self.fleet)
        self.fleet.run(rollout, stage="batch", batch=["h1"])
        Journal(self.fleet.folder / "reports" / "run").write("step.end", "h1", 0, "change", True, 1.0, evidence={"outcome": "done"})
        self.fleet.run(rollout, stage="batch_end", batch=["h1"])
        return workspace.load("rollout").get("held")


@pytest.mark.parametrize("speed, words", [
    (lambda host: 1.0, None), (lambda host: 1.2 if host == "h1" else 1.0, None),
    (lambda host: 0.7 if host == "h1" else 1.0, "worse than before: gemma-4-E2B-it 1k/1k output_throughput 0.700 times")])
def test_a_canary_that_is_slower_than_its_neighbour_holds(fleet, monkeypatch, speed, words):
    made = Measuring(fleet, monkeypatch, speed)
    held = made.canary()
    assert (held is None) if words is None else (words in held and held.endswith("what was changed goes back"))
    assert fleet.run(rollout, stage="revert")["hosts"] == (["h1"] if words else [])
    assert sorted(made.jobs) == ["h1", "h2"]
    kept = json.loads((fleet.folder / "reports" / "run" / "performance.json").read_text())
    assert kept["verdicts"][0]["canary"] == "h1" and kept["verdicts"][0]["neighbour"] == "h2" and len(kept["records"]) == 12
    # Both are out while they are measured, and in again whatever came of it.
    moves = [(event["host"], event["step"]) for event in fleet.events() if event["event"] == "step.end" and event["step"] in ("drain", "admit")]
    assert moves == [("h1", "drain"), ("h2", "drain"), ("h1", "admit"), ("h2", "admit")]


@pytest.mark.parametrize("prepare, words", [
    (lambda made: made.broken.update(h2="no space left"), "h2 was not measured: the job failed: no space left"),
    (lambda made: made.fleet.load.update(running=51), "h1 and h2 cannot be taken out of the traffic to measure"),
    (lambda made: made.fleet.drain.update(error="silent"), "whether one is idle is not known: silent")])
def test_what_cannot_be_told_pauses(fleet, monkeypatch, prepare, words):
    made = Measuring(fleet, monkeypatch, lambda host: 1.0)
    prepare(made)
    held = made.canary()
    assert "cannot tell whether it is as good as before: " in held and words in held
    state = domain.replay(fleet.events())
    assert not any(entry.get("out") for entry in state["hosts"].values())


def test_a_suite_that_does_not_exist_is_refused_before_anything_is_touched(fleet, monkeypatch):
    Measuring(fleet, monkeypatch, lambda host: 1.0)
    settings(performance={"suite": "gemma5"})
    refused = begin(fleet)
    assert refused["failed"] and "the suite 'gemma5', which is not among deepseek_ab, gemma3, gemma4, qwen3, sweep; did you mean 'gemma4'?" in refused["msg"]


@pytest.mark.parametrize("model, hosts, words", [
    ("other", HOSTS, "no instance of h1 belongs to the suite gemma4"), ("gemma-4-E2B-it", ["h1"], "no untouched neighbour serves gemma-4-E2B-it on h1")])
def test_what_cannot_be_compared_is_said_in_the_plan_before_the_canary(fleet, monkeypatch, model, hosts, words):
    made = Measuring(fleet, monkeypatch, lambda host: 1.0)
    made.survey["instances"]["one"]["manifest"].update(model=model)
    plan = workspace.load("plan")
    workspace.save("plan", dict(plan, hosts={host: plan["hosts"][host] for host in hosts}))
    workspace.save("surveys", {host: made.survey for host in hosts})
    settings(min_ready=0)
    shown = fleet.run(rollout, stage="plan", work=["h1"])
    assert shown["refusals"] == ["fleet_rollout: performance: " + words]
    assert words in fleet.run(rollout, stage="begin", work=["h1"], parameters={"model": ""})["msg"] and not fleet.events()


def test_a_way_back_is_not_measured(fleet, monkeypatch):
    made = Measuring(fleet, monkeypatch, lambda host: 0.5)
    fleet.run(rollout, stage="begin", work=HOSTS)
    fleet.run(rollout, stage="batch", batch=["h1"])
    Journal(fleet.folder / "reports" / "run").write("step.end", "h1", 0, "change", True, 1.0, evidence={"outcome": "done"})
    fleet.run(rollout, stage="batch_end", batch=["h1"])
    assert not made.jobs and not workspace.load("rollout").get("held")


def test_hosts_beyond_the_limit_of_a_run_count_for_capacity_and_budget(fleet):
    kept = workspace.load("rollout_settings")
    plan = workspace.load("plan")
    workspace.save("plan", dict(plan, hosts={"h1": plan["hosts"]["h1"]}))
    workspace.save("surveys", {"h1": SURVEY})
    workspace.save("proof", {"h1": {"one": {"ready": True, "findings": []}}})
    assert "0 of 1 proven replicas" in fleet.run(rollout, stage="plan", work=["h1"])["refusals"][0]
    workspace.save("rollout_settings", dict(kept, beyond=["h2", "h3"]))
    assert fleet.run(rollout, stage="plan", work=["h1"])["refusals"] == []
    assert "failed" not in fleet.run(rollout, stage="begin", work=["h1"], parameters={"model": ""})
    fleet.unproven.add("h3")
    assert "1 to change + 1 not proven (h3: one" in fleet.run(rollout, stage="batch", batch=["h1"])["why"]


def test_ctrl_c_lets_the_hosts_at_work_finish_and_holds(fleet, monkeypatch, capsys):
    begin(fleet)
    # A shell that starts this in the background has it ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        LookupModule().run(["hosts"])
        os.kill(os.getpid(), signal.SIGINT)
        assert "the hosts at work are finished" in capsys.readouterr().err
        assert "a pause (Ctrl-C) was asked for" in fleet.run(rollout, stage="batch", batch=["h1"])["why"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_how_long_it_took_is_what_the_next_one_expects(fleet):
    begin(fleet)
    fleet.run(rollout, stage="batch", batch=["h1"])
    for seconds in (10.0, 30.0, 12.0):
        Journal(fleet.folder / "reports" / "run").write("step.end", "h1", 0, "change", True, seconds, evidence={"outcome": "done"})
    fleet.run(rollout, stage="end")
    fleet.run(rollout, stage="plan", work=HOSTS)
    assert "expected: about 36 s, by what it took before" in "\n".join(fleet.shown)
