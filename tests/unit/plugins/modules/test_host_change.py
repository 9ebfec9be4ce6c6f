# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a host as one transaction, on real files; only what the gate finds is scripted. A change that dies anywhere is brought back."""

from __future__ import annotations

import json
import os

import pytest
from fake_host import NEW, OLD, World, instance

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint_probes, host_change, job_host, release, release_host

THIRD = "c" * 12


def planned(name, release_id, device, port, **more):
    made = instance(name, release_id, **more)
    manifest = {"name": name, "release": release_id, "port": port, "devices": [device], "image_reference": "image-" + release_id, "unit": made["unit"],
                "served_model_name": name}
    made["release"]["files"]["manifest.json"] = json.dumps(manifest)
    return dict(made, devices=[device], port=port, served_model_name=name, ready_timeout_s=5, stability_window_s=1, stop_timeout_s=3)


class Host(World):
    """A host on which changes run, and whose gate says what the test wants."""

    def __init__(self, root, monkeypatch):
        super().__init__(root)
        self.bad, self.asked, self.chips = set(), [], "OK"
        os.mkdir(self.path("job"))
        monkeypatch.setattr(endpoint_probes, "run", self.prove)
        monkeypatch.setattr(endpoint_probes.Watcher, "chips", lambda _self: {"health": {"/dev/davinci%d" % n: self.chips for n in range(8)}, "error": None})

    def prove(self, params, dummy):
        """An instance is proven unless its current release is bad."""
        found, sentences = {}, []
        for each in params["instances"]:
            current = release_host.get_link(self.path("state", "instances", each["name"], "current"))
            self.asked.append((each["name"], current, each.get("stability_window_s")))
            rule = self.bad_rule(each["name"], current)
            found[each["name"]] = {
                "ready": rule is None,
                "elapsed_s": 1.0,
                "phase": "ready",
                "journal_tail": [],
                "cause": None,
                "findings": [] if rule is None else [{"rule": rule, "status": "fail", "found": "x", "expected": "y", "remedy": "z"}],
            }
            if rule:
                sentences.append("%s: %s: x" % (each["name"], rule))
        return {"instances": found}, sentences

    def bad_rule(self, name, current):
        for entry in self.bad:
            if entry[:2] == (name, current):
                return entry[2] if len(entry) > 2 else "endpoint.sane"
        return None

    def request(self, instances, state="present", **more):
        params = {"keep": 3, "engine": "docker", "engine_path": self.path("docker"), "systemctl": self.path("systemctl"), "state_directory": self.path("state"),
                  "unit_directory": self.path("units"), "secret_directory": self.path("secrets")}
        return dict({"state": state, "instances": instances, "params": params, "prove": {}, "leaving": []}, **more)

    def apply(self, instances=None, state="present", secrets=None, **more):
        """Run the job of a change in this process. :returns: its result."""
        request = self.request(instances or [], state, **more)
        outline = host_change.Outline(request, secrets or {})
        host_change.put_secrets(outline)
        os.makedirs(self.path("state"), exist_ok=True)
        return host_change.Change(request, self.path("job")).run()

    def remembered(self):
        return domain.read_state(job_host.read_text(self.path("state", "host.json")))

    def runs(self):
        """{instance: release} of what runs, by the labels of the containers."""
        return {name[len("vllm-ascend-"):]: each["release"] for name, each in self.state["containers"].items() if each["running"]}

    def timer(self):
        return sorted(name for name in os.listdir(self.path("units")) if name.startswith(domain.DEAD_MAN))

    def secret_files(self):
        folder = self.path("secrets")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def one(release_id, device="/dev/davinci0", port=8000, **more):
    return planned("one", release_id, device, port, **more)


def two(release_id, device="/dev/davinci1", port=8001, **more):
    return planned("two", release_id, device, port, **more)


def test_what_is_proven_stays(host):
    first = host.apply([one(OLD), two(OLD)])
    assert (first["outcome"], host.runs(), host.timer()) == ("done", {"one": OLD, "two": OLD}, [])
    again = host.apply([one(OLD), two(NEW)])
    assert (again["outcome"], host.runs()) == ("done", {"one": OLD, "two": NEW})
    assert [step["step"] for step in again["steps"]] == ["prepare", "arm", "switch", "prove"] and all(step["ok"] for step in again["steps"])
    assert host.asked[-2:] == [("one", OLD, 0), ("two", NEW, 1)], "what was not touched must only answer"
    assert host.remembered()["state"] == "serving" and host.remembered()["before"] == {}


def test_nothing_to_change_is_proven_all_the_same(host):
    host.apply([one(OLD)])
    host.calls()
    assert host.apply([one(OLD)])["outcome"] == "unchanged" and host.calls() == []


def test_what_is_not_proven_goes_back_and_is_proven_again(host):
    host.apply([one(OLD), two(OLD)])
    host.bad = {("two", NEW)}
    result = host.apply([one(NEW), two(NEW)])
    assert (result["outcome"], result["reverted"], host.runs()) == ("reverted", ["two"], {"one": NEW, "two": OLD})
    assert "two: endpoint.sane" in result["message"] and result["revert_proof"]["two"]["ready"] and host.timer() == []
    assert (host.remembered()["state"], host.remembered()["before"]) == ("reverted", {})


def test_what_had_no_release_before_is_removed(host):
    host.bad = {("one", NEW)}
    result = host.apply([one(NEW), two(NEW)])
    assert (result["outcome"], result["removed"], host.runs()) == ("reverted", ["one"], {"two": NEW})
    assert not os.path.exists(host.path("state", "instances", "one"))


def test_a_second_change_goes_back_to_the_first_and_not_to_what_was_before_it(host):
    """The host remembers of a change only until it has ended, whatever a drain notes meanwhile."""
    host.apply([one(OLD)])
    host_change.remember(host_change.host_params(host.request([])), state="draining")
    host.bad = {("one", NEW)}
    assert (host.apply([one(NEW)])["reverted"], host.runs()) == (["one"], {"one": OLD})


def test_when_the_release_before_is_not_proven_either_the_host_is_down_after_one_attempt(host):
    host.apply([one(OLD)])
    host.bad = {("one", NEW), ("one", OLD)}
    result = host.apply([one(NEW)])
    assert result["outcome"] == "down" and "AND the release before is down" in result["message"]
    assert [asked[1] for asked in host.asked] == [OLD, NEW, OLD] and host.remembered()["state"] == "down"


def test_what_stands_in_the_way_of_what_goes_back_goes_back_too(host):
    host.apply([one(OLD), two(OLD)])
    host.bad = {("one", NEW)}
    # They exchange their NPUs: one cannot return without the other.
    result = host.apply([one(NEW, device="/dev/davinci1"), two(NEW, device="/dev/davinci0")])
    assert (result["reverted"], host.runs()) == (["one", "two"], {"one": OLD, "two": OLD})


def test_what_left_the_inventory_goes_only_when_its_successor_is_proven(host):
    host.apply([two(OLD)])
    host.bad = {("one", NEW)}
    result = host.apply([one(NEW, device="/dev/davinci1", port=8001)], leaving=["two"])
    assert (result["outcome"], host.runs()) == ("reverted", {"two": OLD})
    host.bad = set()
    assert host.apply([one(NEW, device="/dev/davinci1", port=8001)], leaving=["two"])["outcome"] == "done"
    assert host.runs() == {"one": NEW} and not os.path.exists(host.path("state", "instances", "two"))


def test_chips_that_fall_ill_are_not_the_release_s_fault(host):
    host.apply([one(OLD)])
    host.bad, host.chips = {("one", NEW, "endpoint.chips")}, "Alarm"
    result = host.apply([one(NEW)])
    assert result["quarantined"] and result["outcome"] == "failed" and host.remembered()["state"] == "quarantined" and host.runs() == {"one": NEW}
    host.apply([one(OLD)])
    host.chips = "OK"
    result = host.apply([one(NEW)])
    assert result["quarantined"] and (result["outcome"], host.runs()) == ("reverted", {"one": OLD})


def test_what_somebody_paused_is_not_stopped(host, monkeypatch):
    host.apply([one(OLD)])
    before = host.remembered()
    monkeypatch.setattr(release_host, "paused", lambda _host, entries: "container c is paused, by X" if entries else None)
    result = host.apply([one(NEW)])
    assert result["outcome"] == "failed" and result["message"] == "container c is paused, by X; nothing was stopped"
    assert host.runs() == {"one": OLD} and host.remembered() == before


def test_what_is_paused_within_its_proof_does_not_go_back(host, monkeypatch):
    """Neither by this change nor by the timer, and whoever goes on finds where to go back to."""
    host.apply([one(OLD)])
    said = iter([None])
    monkeypatch.setattr(release_host, "paused", lambda _host, entries: next(said, "container c is paused, by X"))
    host.bad = {("one", NEW, "endpoint.unpaused")}
    result = host.apply([one(NEW)])
    assert (result["outcome"], result["paused"], result["message"]) == ("failed", True, "container c is paused, by X") and host.runs() == {"one": NEW}
    assert host.timer() == [] and host.remembered()["state"] == "failed" and host.remembered()["before"] == {"one": OLD}


def test_a_way_back_is_begun_only_of_the_change_that_was_cut_off(host, monkeypatch):
    asked = []
    given = {"folder": host.path("job"), "params": host.request([])["params"], "why": "it rebooted"}
    host.apply([one(OLD)])
    assert host_change.bring_back(given) == {"began": False}
    host_change.remember(host_change.host_params(host.request([])), state="proving", change="job")
    assert host_change.bring_back(given) == {"began": False}, "no timer was armed"
    with open(host.path("units", domain.DEAD_MAN + ".service"), "w") as stream:
        stream.write("")
    monkeypatch.setattr(release_host.Host, "systemctl", lambda _self, args, purpose: asked.append(args))
    assert host_change.bring_back(given) == {"began": True} and asked == [["start", domain.DEAD_MAN + ".service"]]
    assert job_host.read_text(host.path("job", host_change.GIVEN_UP)) == "it rebooted"
    job_host.write_text(host.path("job", "result.json"), '{"outcome": "reverted"}')
    assert host_change.brought_back(given) == {"result": {"outcome": "reverted"}}


@pytest.mark.parametrize("gone, words", [("image-" + NEW, "is not on this host any more; run again"), ("image-" + OLD, "there would be no way back")])
def test_without_its_images_nothing_is_stopped(host, gone, words):
    host.apply([one(OLD)])
    host.save(dict(host.state, gone=[gone]))
    host.calls()
    with pytest.raises(release.ReleaseError, match=words + ".*nothing was stopped"):
        host_change.begin({"id": "x", "check": False, "request": dict(host.request([one(NEW)]), secrets={}), "program": ""})
    result = host.apply([one(NEW)])
    assert result["outcome"] == "failed" and not result["changed"] and words in result["message"] and host.runs() == {"one": OLD}
    assert not any("stop" in call for call in host.calls())
    assert host.remembered()["state"] == "serving", "a change that did not begin leaves no trace"


def test_a_failing_start_is_put_back_and_proven(host):
    host.apply([one(OLD)])
    host.save(dict(host.state, broken=["start"]))
    result = host.apply([one(NEW)])
    assert (result["outcome"], host.runs(), host.timer()) == ("reverted", {"one": OLD}, []) and "links, units and secrets are back" in result["message"]


def test_a_failing_start_that_cannot_be_put_back_is_down(host):
    host.apply([one(OLD)])
    host.save(dict(host.state, broken=["start", "start"]))
    assert host.apply([one(NEW)])["outcome"] == "down" and host.remembered()["state"] == "down"


def test_secrets_wait_beside_those_in_force_and_leave_nothing(host):
    def secret(value):
        return {"one": {"VLLM_API_KEY": value}}

    host.apply([one(OLD, secret=True)], secrets=secret("first"))
    assert host.secret_files() == ["one.secret"]
    host.bad = {("one", NEW)}
    host.apply([one(NEW, secret=True)], secrets=secret("second"))
    assert host.secret_files() == ["one.secret"] and release_host.read_text(host.path("secrets", "one.secret")) == "VLLM_API_KEY=first\n"
    host.bad = set()
    host.apply([one(NEW, secret=True)], secrets=secret("second"))
    assert release_host.read_text(host.path("secrets", "one.secret")) == "VLLM_API_KEY=second\n" and host.secret_files() == ["one.secret"]
    assert os.stat(host.path("secrets", "one.secret")).st_mode & 0o777 == 0o600


def test_the_other_verbs(host):
    host.apply([one(OLD)])
    host.apply([one(NEW)])
    host.calls()
    assert host.apply([{"name": "one"}], "restarted")["outcome"] == "done" and "systemctl stop vllm-ascend-one.service" in host.calls()
    assert host.apply([{"name": "one"}], "stopped", prove=None)["outcome"] == "done" and host.runs() == {} and host.remembered()["state"] == "stopped"
    assert host.apply([{"name": "one"}], "stopped", prove=None)["outcome"] == "unchanged"
    assert host.apply([{"name": "one"}], "started")["outcome"] == "done" and host.runs() == {"one": NEW}
    assert host.apply([{"name": "one"}], "previous")["outcome"] == "done" and host.runs() == {"one": OLD}
    assert host.apply([{"name": "one"}], "absent", prove=None)["outcome"] == "done" and host.runs() == {}
    host_change.clean({"params": host.request([])["params"]})
    assert not os.path.exists(host.path("state"))


def test_a_rollback_that_is_not_proven_stays_with_what_ran(host):
    host.apply([one(OLD)])
    host.apply([one(NEW)])
    host.bad = {("one", OLD)}
    assert host.apply([{"name": "one"}], "previous")["outcome"] == "reverted" and host.runs() == {"one": NEW}


def test_a_controller_that_was_overtaken_is_refused(host):
    fence = {"epoch": 3, "owner": "ann@c1"}
    host_change.remember(host_change.host_params(host.request([])), epoch=4, owner="bob@c2")
    with pytest.raises(domain.Fenced, match=r"follows the rollout of bob@c2 \(epoch 4\).*nothing was changed"):
        host_change.begin({"id": "x", "check": False, "request": dict(host.request([one(NEW)], fence=fence), secrets={}), "program": ""})
    assert host.runs() == {}


def test_check_mode_foretells_and_touches_nothing(host):
    host.apply([one(OLD)])
    before, calls = host.tree(), host.calls()
    told = host_change.begin({"id": "x", "check": True, "request": dict(host.request([one(NEW)]), secrets={}), "program": ""})
    assert told["changed"] and told["instances"]["one"]["release"] == NEW and told["job"] is None and calls
    assert host.tree() == before and host.calls() == []


PAST_THE_END = 99


class Killed(BaseException):
    """What no handler sees: the job is gone."""


def cut(monkeypatch, at):
    """Kill the job at its n-th act on the host."""
    count = [0]

    def counted(original):
        def act(*args, **kwargs):
            count[0] += 1
            if count[0] == at:
                raise Killed()
            return original(*args, **kwargs)
        return act

    for owner, name in ((release_host.Host, "systemctl"), (release_host, "write_text"), (release_host, "set_link"), (release_host, "remove_file")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    # A process that is killed runs no finally either.
    monkeypatch.setattr(host_change.Change, "forget_secrets", lambda _self: None)


@pytest.mark.parametrize("at", [*range(1, 38), PAST_THE_END])
def test_a_change_that_dies_anywhere_is_brought_back_by_the_timer(host, at):
    host.apply([one(OLD, secret=True), two(OLD)], secrets={"one": {"VLLM_API_KEY": "first"}})
    request = host.request([one(NEW, secret=True), two(NEW)])
    died = False
    with pytest.MonkeyPatch.context() as patch:
        host_change.put_secrets(host_change.Outline(request, {"one": {"VLLM_API_KEY": "second"}}))
        change = host_change.Change(request, host.path("job"))
        cut(patch, at)
        try:
            change.run()
        except Killed:
            died = True
    if not died:
        assert at == PAST_THE_END, "the change has more acts than the test cuts"
        assert host.runs() == {"one": NEW, "two": NEW}
        return
    armed = host.timer() == [domain.DEAD_MAN + ".service", domain.DEAD_MAN + ".timer"]
    unfinished = host.remembered()["state"] in domain.UNFINISHED
    if not armed or not unfinished:
        # Nothing had been stopped yet, or all of it was over.
        assert host.runs() in ({"one": OLD, "two": OLD}, {"one": NEW, "two": NEW})
        return
    result = host_change.Change(request, host.path("job")).revert_alone()
    assert result["outcome"] in ("reverted", "unchanged"), result["message"]
    assert host.runs() == {"one": OLD, "two": OLD} and host.timer() == []
    assert release_host.read_text(host.path("secrets", "one.secret")) == "VLLM_API_KEY=first\n" and host.secret_files() == ["one.secret"]
    assert host.remembered()["state"] == "reverted"


def test_the_timer_leaves_a_host_alone_that_is_well(host):
    host.apply([one(OLD)])
    assert host_change.Change(host.request([one(OLD)]), host.path("job")).revert_alone()["outcome"] == "unchanged" and host.runs() == {"one": OLD}


def test_the_timer_gives_a_change_all_the_time_that_its_own_deadlines_give():
    instances = [{"ready_timeout_s": 900, "stability_window_s": 10, "stop_timeout_s": 150}, {"ready_timeout_s": 60, "stop_timeout_s": 600}]
    assert domain.dead_man_s(instances, 30) == 30 + 600 + 2 * 900 + 10 + domain.DEAD_MAN_MARGIN_S
    text = domain.dead_man_units("/x/program.py", "/usr/bin/python3", 77)[domain.DEAD_MAN + ".timer"]
    assert "OnActiveSec=77\n" in text and "WantedBy=timers.target" in text


# -- a member of a group over several hosts ---------------------------------------------------------------------------------


def member(release_id):
    made = one(release_id, group={"name": "one", "members": ["h", "me"], "role": "member", "address": "192.0.2.1"})
    manifest = json.loads(made["release"]["files"]["manifest.json"])
    made["release"]["files"]["manifest.json"] = json.dumps(dict(manifest, group=made["group"]))
    return made


def test_a_member_stops_when_its_head_serves_no_more(host, monkeypatch):
    """Until then the head finishes its requests, for which it needs its ranks."""
    host.apply([member(OLD)])
    answers = [200, 200, None]
    seen = []

    def ask(address, port, path, **dummy):
        seen.append((address, port, path, host.runs()))
        return answers.pop(0), ""

    monkeypatch.setattr(endpoint_probes, "ask", ask)
    assert host.apply([{"name": "one"}], "stopped", prove=None)["outcome"] == "done"
    assert seen == [("192.0.2.1", 8000, "/health", {"one": OLD})] * 3 and host.runs() == {}
    assert "systemctl reset-failed vllm-ascend-one.service" in host.calls()


def test_a_member_does_not_wait_for_its_head_for_ever(host, monkeypatch):
    host.apply([member(OLD)])
    monkeypatch.setattr(endpoint_probes, "ask", lambda *_args, **_more: (200, ""))
    assert host.apply([dict(member(NEW), stop_timeout_s=0.2)])["outcome"] == "done" and host.runs() == {"one": NEW}


def test_what_the_group_gave_up_reaches_the_prover_but_not_that_of_the_way_back(host, monkeypatch):
    given = []
    monkeypatch.setattr(endpoint_probes, "run", lambda params, dummy: (given.append(params["given_up"] and params["given_up"]()), host.prove(params, dummy))[1])
    monkeypatch.setattr(endpoint_probes, "ask", lambda *_args, **_more: (None, ""))
    host.apply([member(OLD)])
    host.bad = {("one", NEW)}
    assert host_change.give_up({"folder": host.path("job"), "why": "h is not proven"}) == {"changed": False}
    assert host.apply([member(NEW)])["outcome"] == "reverted"
    assert given == [None, "h is not proven", None]
    host_change.give_up({"folder": host.path("no-such-job"), "why": "x"})
