# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts change in which order, and whether the next ones may."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rollout

HOSTS = ["h%d" % number for number in range(1, 7)]
RACKS = dict(zip(HOSTS, ("r1", "r1", "r2", "r2", "r3", "r3")))


def rules(**more):
    made, problems = rollout.policy(more)
    assert problems == []
    return made


def plan(hosts=HOSTS, group=()):
    entry = {"group": {"members": list(group)}} if group else {}
    return {"hash": "p", "hosts": {host: {"instances": [dict({"name": "one"}, **(entry if host in group else {}))]} for host in hosts}}


def serving(hosts=HOSTS, model="M", ready=True):
    return {model: {(host, "one"): ready for host in hosts}}


def compose(work=HOSTS, racks=None, serves=None, made=None, **policy):
    return rollout.compose(made or plan(), {host: {} for host in HOSTS}, serving() if serves is None else serves, list(work),
                           RACKS if racks is None else racks, rules(**policy))


def test_a_canary_comes_first_and_then_a_quarter():
    assert [len(batch) for batch in compose()["batches"]] == [1, 1, 1, 1, 1, 1]
    assert [len(batch) for batch in compose(batches=[1, "50%"])["batches"]] == [1, 3, 2]
    assert [len(batch) for batch in compose(batches=["100%"])["batches"]] == [5, 1], "one replica has to stay"


def test_batches_take_from_every_rack_in_turn():
    assert compose(batches=[3])["batches"] == [["h1", "h3", "h5"], ["h2", "h4", "h6"]]
    assert compose(batches=[4], max_unavailable_per_rack=1)["batches"] == [["h1", "h3", "h5"], ["h2", "h4", "h6"]]


def test_the_hosts_of_a_group_change_as_one():
    made = compose(made=plan(group=["h2", "h5"]), batches=[1])
    assert ["h2", "h5"] in made["batches"] and sum(len(batch) for batch in made["batches"]) == 6


def test_a_model_with_one_replica_is_refused_with_the_way_to_allow_it():
    made = compose(work=["h1"], serves=serving(["h1"]))
    assert made["refusals"] == ["h1: 0 of 1 proven replicas of M would be left while it changes, and at least 1 must be; add a replica, or allow the gap with "
                                "-e '{\"fleet_rollout\": {\"min_ready\": {\"M\": 0}}}'"]
    assert compose(work=["h1"], serves=serving(["h1"]), min_ready={"M": 0})["refusals"] == []
    assert compose(work=["h1"], serves={})["refusals"] == [], "what nobody serves yet cannot be missed"


def test_the_hash_changes_with_all_that_was_agreed_to():
    first = compose()["hash"]
    assert compose()["hash"] == first
    assert len({first, compose(work=HOSTS[:5])["hash"], compose(soak_s=5)["hash"], compose(made=dict(plan(), hash="q"))["hash"]}) == 4


@pytest.mark.parametrize("given_, words", [
    ({"batch": [1]}, "unknown key 'batch'; did you mean 'batches'?"),
    ({"batches": [0]}, "neither a count of hosts nor a percentage"),
    ({"batches": ["many"]}, "neither a count of hosts nor a percentage"),
    ({"batches": []}, "batches is empty"),
    ({"on_failure": "panic"}, "on_failure must be one of hold, revert, not 'panic'"),
    ({"max_load": True}, "max_load must be float or int"),
])
def test_a_wrong_policy_is_told(given_, words):
    assert words in " ".join(rollout.policy(given_)[1])


@pytest.mark.parametrize(
    "given_, words",
    [
        ({}, "performance: suite must be str, not None"),
        ({"suite": "gemma4", "repeat": 3}, "unknown key 'repeat'; did you mean 'repeats'?"),
        ({"suite": "gemma4", "repeats": 1}, "one measurement has no spread to judge by"),
        ({"suite": "gemma4", "confidence": 95.0}, "must be between 0 and 1, not 95.0"),
        ({"suite": "gemma4", "workloads": "1k/1k"}, "performance: workloads must be list, not '1k/1k'"),
    ],
)
def test_a_wrong_performance_gate_is_told(given_, words):
    assert words in " ".join(rollout.policy({"performance": given_})[1])
    assert rollout.policy({"performance": {"suite": "gemma4"}})[1] == []


def test_batches_take_as_long_as_their_slowest_hosts():
    expected = {"h1": {"drain": 1.0, "change": 9.0}, "h2": {"change": 5.0}, "h3": {"change": 20.0}}
    assert rollout.duration([["h1"], ["h2", "h3"], ["h4"]], expected) == 30.0
    assert rollout.duration([["h4"]], expected) is None


@pytest.mark.parametrize("unready, policy, may, words", [
    ({}, {}, True, "1 to change + 0 not proven = 1, and 1 may be out"),
    ({"h4": "no route"}, {}, False, "1 to change + 1 not proven (h4: no route) = 2, and 1 may be out"),
    ({"h4": "no route"}, {"max_unavailable": 2}, True, "= 2, and 2 may be out"),
    ({"h4": "x", "h5": "y"}, {"max_unavailable": "50%"}, True, "= 3, and 3 may be out"),
    ({"h2": "x"}, {"max_unavailable": 3, "max_unavailable_per_rack": 1}, False, "rack r1: 2 hosts out (h1, h2), and 1 may be"),
    ({"h3": "x"}, {"max_unavailable": 3, "max_unavailable_per_rack": 1}, True, "= 2"),
])
def test_a_budget_counts_everything_that_is_not_proven(unready, policy, may, words):
    found, said = rollout.budget(["h1"], unready, RACKS, rules(**policy), [["h1"], ["h2"]], 6)
    assert found is may and words in said


def load(running=0, waiting=0, usage=0.0, seats=10):
    return {"running": running, "waiting": waiting, "kv_usage": usage, "max_num_seqs": seats}


@pytest.mark.parametrize("loads, ok, words", [
    ([load(), load()], True, "M: 0 requests for 1 replicas with room for 8"),
    ([load(4), load(4)], True, "8 requests"),
    ([load(4, 1), load(4)], False, "at most 8 requests"),
    ([load(usage=0.5), load(usage=0.5)], False, "90 % may be"),
    ([load(), {"error": "HTTP 404 from /metrics"}], None, "the load of one on h2 is not known (HTTP 404 from /metrics)"),
    ([load()], None, "nobody asked"),
])
def test_what_is_left_must_carry_what_runs_and_silence_is_not_zero(loads, ok, words):
    hosts = ["h1", "h2"]
    found = rollout.capacity(["h1"], serving(hosts), dict(zip([(host, "one") for host in hosts], loads)), rules())
    assert [verdict["ok"] for verdict in found] == [ok] and words in found[0]["message"]


def test_replicas_that_are_not_proven_do_not_count():
    serves = {"M": {("h1", "one"): True, ("h2", "one"): False}}
    assert rollout.capacity(["h1"], serves, {}, rules())[0]["ok"] is False
    assert rollout.left(serves, ["h2"]) == {}, "who is down already is not missed"


def event(kind, seq, **more):
    return dict({"seq": seq, "event": kind, "host": None, "batch": None, "step": None, "ok": None, "message": ""}, **more)


STORY = [
    event("rollout.begin", 1, evidence={"hash": "x"}), event("batch.begin", 2, batch=0, evidence={"hosts": ["h1"]}),
    event("step.begin", 3, host="h1", step="drain"), event("step.end", 4, host="h1", step="drain", ok=True, evidence={"cut": 0}),
    event("step.begin", 5, host="h1", step="change"), event("step.end", 6, host="h1", step="change", ok=True, evidence={"outcome": "done"}),
    event("step.begin", 7, host="h1", step="admit"), event("step.end", 8, host="h1", step="admit", ok=True, evidence={"moved": []}),
    event("batch.end", 9, batch=0), event("rollout.end", 10, evidence={"outcome": "done"})]


def test_a_journal_tells_the_same_wherever_it_ends():
    states = [rollout.replay(STORY[:length]) for length in range(len(STORY) + 1)]
    assert [state["outcome"] for state in states] == [None] * 10 + ["done"]
    assert [state["hosts"].get("h1", {}).get("out") for state in states] == [None] * 4 + [True] * 4 + [False] * 3
    assert [state["hosts"].get("h1", {}).get("outcome") for state in states] == [None] * 6 + ["done"] * 5
    assert [state["batch"] for state in states] == [0, 0] + [1] * 9


def test_control_is_what_neither_drain_nor_model_took():
    story = [
        event("batch.begin", 1, time=102.0, elapsed_s=2.0, batch=0, evidence={"hosts": ["h1", "h2"]}),
        event("step.end", 2, time=105.0, host="h1", batch=0, step="drain", elapsed_s=3.0, ok=True, evidence={"elapsed_s": 2.5}),
        event("step.end", 3, time=125.0, host="h1", batch=0, step="switch", elapsed_s=4.0, ok=True),
        event("step.end", 4, time=125.0, host="h1", batch=0, step="prove", elapsed_s=15.0, ok=True),
        event("step.end", 5, time=126.0, host="h1", batch=0, step="admit", elapsed_s=0.5, ok=True),
        event("step.end", 6, time=130.0, host="h2", batch=0, step="drain", elapsed_s=30.0, ok=False, evidence={"outcome": "failed"}),
        event("batch.end", 7, time=130.5, batch=0, evidence={"hosts": {}})]
    assert rollout.overhead(story) == {"h1": {"total_s": 26.5, "drain_s": 2.5, "model_s": 19.0, "overhead_s": 5.0},
                                       "h2": {"total_s": 30.5, "drain_s": 0.0, "model_s": 0.0, "overhead_s": 30.5}}
    assert rollout.overhead([]) == {}


@pytest.mark.parametrize("chips, tool, words", [
    ([{"device": "/dev/davinci0", "health": "OK"}, {"device": "/dev/davinci1", "health": "Alarm"}], {}, None),
    ([{"device": "/dev/davinci0", "health": "Critical"}], {}, "/dev/davinci0 health Critical"),
    ([], {"info": {"error": True, "kind": "hang", "reason": "no end after 60 s"}}, "npu-smi: no end after 60 s"),
])
def test_a_host_is_sick_whose_own_npus_are_not_known_to_be_healthy(chips, tool, words):
    plan = {"hosts": {"h1": {"instances": [{"devices": ["/dev/davinci0"]}]}, "h2": {"instances": [{"devices": ["/dev/davinci0"]}]}}}
    found = rollout.sick(plan, {"h1": {"chips": chips, "npu_smi": tool}, "h2": {"unreachable": True, "error": "gone"}})
    assert found == ({"h1": words} if words else {})


def test_who_left_the_plan_is_named_and_tried_again_by_who_goes_on():
    story = STORY[:9] + [event("leave", 10, host="h2", batch=1, message="sick")]
    assert rollout.replay(story)["hosts"]["h2"]["outcome"] == "left out"
    assert rollout.replay(story + [event("rollout.begin", 11, evidence={})])["hosts"]["h2"]["outcome"] is None


def test_a_rollout_that_goes_on_has_no_outcome_any_more():
    held = [event("hold", 11, message="why"), event("rollout.end", 12, evidence={"outcome": "held"})]
    assert rollout.replay(STORY[:9] + held)["outcome"] == "held"
    again = rollout.replay(STORY[:9] + held + [event("rollout.begin", 13, evidence={"hash": "other"})])
    assert (again["outcome"], again["held"], again["begin"]) == (None, None, {"hash": "x"})


@pytest.mark.parametrize("hosts, held, ended", [
    ({"h1": "done", "h2": "unchanged"}, None, "done"), ({"h1": "done"}, "why", "held"), ({"h1": "reverted"}, "why", "held"),
    ({"h1": "reverted", "h2": "reverted"}, None, "reverted"), ({"h1": "done", "h2": "down"}, "why", "degraded"), ({"h1": "unreachable"}, "why", "degraded"),
    ({"h1": "done", "h2": "quarantined"}, None, "held"),
])
def test_how_it_ends(hosts, held, ended):
    assert rollout.outcome(hosts, held, ["h1", "h2"])[0] == ended


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.lists(st.one_of(st.integers(1, 6), st.sampled_from(["10%", "25%", "50%", "100%"])), min_size=1, max_size=3),
       st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 4), st.integers(1, 4))
def test_no_batch_breaks_its_own_rules(count, batches, per_rack, least, spread):
    hosts = ["h%02d" % number for number in range(count)]
    racks = {host: "r%d" % (number % spread) for number, host in enumerate(hosts)}
    chosen = rules(batches=batches, max_unavailable_per_rack=per_rack, min_ready=least)
    made = rollout.compose(plan(hosts), {host: {} for host in hosts}, serving(hosts), hosts, racks, chosen)
    assert sorted(itertools.chain(*made["batches"])) == hosts
    for number, batch in enumerate(made["batches"]):
        assert len(batch) <= rollout.share(batches[min(number, len(batches) - 1)], count)
        assert per_rack is None or all(sum(racks[host] == rack for host in batch) <= per_rack for rack in racks.values())
        assert count - len(batch) >= least or made["refusals"]
