# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollout at a time: what an anchor decides, what the anchors decide together, and that two owners never both hold a majority."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import lease, lease_host

ANN = {"name": "ann", "host": "c1", "boot_id": "b", "pid": 1, "started": 10}
BOB = {"name": "bob", "host": "c2", "boot_id": "b", "pid": 2, "started": 20}


def held(**more):
    return dict({"epoch": 3, "owner": ANN, "expires": 100.0, "released": False, "rollout": "r1", "plan": "0123456789abcdef", "since": 50.0}, **more)


@pytest.mark.parametrize("state, wanted, given_, words", [
    ({}, {"epoch": 1, "owner": BOB}, True, None),
    (held(), {"epoch": 4, "owner": BOB}, False, "the lease is held by ann@c1 (process 1, rollout r1, plan 0123456789ab, since 00:00:50 UTC, for another 40 s)"),
    (held(released=True), {"epoch": 4, "owner": BOB}, True, None),
    (held(expires=59.0), {"epoch": 4, "owner": BOB}, True, "the lease of ann@c1"),
    (held(), {"epoch": 4, "owner": BOB, "take_over": "asked for"}, True, None),
    (held(), {"epoch": 3, "owner": ANN}, True, None),
    (held(), {"epoch": 3, "owner": BOB}, False, "epoch 3 is taken by ann@c1"),
    # The old one wakes after somebody else took over.
    (held(epoch=5, owner=BOB), {"epoch": 3, "owner": ANN}, False, "it has seen epoch 5, which is later than 3"),
])
def test_an_anchor_gives_its_lease_once(state, wanted, given_, words):
    found, reason = lease.decide(state, wanted, 60.0)
    assert found is given_ and (reason is None if words is None else words in reason)


def test_a_majority_is_enough_and_less_is_refused():
    yes, no = {"given": True, "reason": None, "held": {}}, {"given": False, "reason": "the lease is held by ann", "held": {}}
    assert lease.tally({"a": yes, "b": yes, "c": {"error": "silent"}}, 3)[0]
    granted, why, _told = lease.tally({"a": yes, "b": no, "c": {"error": "silent"}}, 3)
    assert not granted and why == "1 of 3 anchors give their lease and 2 must: b: the lease is held by ann; c did not answer"


def test_anchors_are_an_odd_number_or_those_that_are_named():
    assert lease.anchors(["d", "c", "b", "a"]) == ["a", "b", "c"]
    assert lease.anchors(["b", "a"]) == ["a"] and lease.anchors(["a"]) == ["a"] and lease.anchors(["a", "b"], ["b"]) == ["b"]


@pytest.mark.parametrize("owner, here, running, alive", [
    (ANN, {"host": "c1", "boot_id": "b"}, True, True),
    (ANN, {"host": "c1", "boot_id": "b"}, False, False),
    (ANN, {"host": "c1", "boot_id": "other"}, True, False),
    (ANN, {"host": "c2", "boot_id": "b"}, True, None),
])
def test_only_its_own_controller_can_tell_that_a_process_is_gone(owner, here, running, alive):
    assert lease.alive({"owner": owner}, here, lambda pid, started: running) is alive


def test_a_lease_on_a_host_is_taken_asked_to_pause_and_given_back(tmp_path):
    def ask(act, **more):
        return lease_host.answer(dict({"directory": str(tmp_path), "act": act, "owner": ANN, "epoch": 1}, **more))

    assert ask("look")["held"] == {}
    taken = ask("take", seconds=60, rollout="r", plan="p")
    assert taken["given"] and taken["held"]["owner"] == ANN
    assert not ask("take", seconds=60, rollout="s", plan="p", owner=BOB, epoch=2)["given"]
    ask("request", request="pause")
    assert ask("take", seconds=60, rollout="r", plan="p")["held"]["request"] == "pause", "the owner hears it when it renews"
    assert not ask("release", owner=BOB)["given"] and ask("release")["given"]
    later = ask("take", seconds=60, rollout="s", plan="p", owner=BOB, epoch=2)
    assert later["given"] and later["held"]["request"] is None, "a wish is not meant for the next rollout"
    assert not ask("take", seconds=60, rollout="r", plan="p")["given"], "the old one is refused by its epoch"


class Fleet:
    """Anchors that may be silent, and controllers that take and renew at any time."""

    def __init__(self, count):
        self.now, self.leases, self.epochs = 0.0, [{} for _number in range(count)], {}

    def take(self, owner, silent):
        heard = [number for number in range(len(self.leases)) if number not in silent]
        if owner["name"] not in self.epochs:
            self.epochs[owner["name"]] = max([self.leases[number].get("epoch", 0) for number in heard] + [0]) + 1
        answers = {}
        for number in range(len(self.leases)):
            if number in silent:
                answers[str(number)] = {"error": "silent"}
                continue
            arguments = {"act": "take", "epoch": self.epochs[owner["name"]], "owner": owner, "seconds": 10.0, "rollout": "r", "plan": "p"}
            given_, reason, after = lease_host.decide(self.leases[number], arguments, self.now)
            self.leases[number] = after
            answers[str(number)] = {"given": given_, "reason": reason, "held": after}
        granted = lease.tally(answers, len(self.leases))[0]
        if not granted:
            self.epochs.pop(owner["name"])
        return granted


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.sets(st.integers(0, 2), max_size=2), st.floats(0, 12)), max_size=20))
def test_two_owners_never_both_hold_a_majority(steps):
    fleet, granted = Fleet(3), {}
    for owner, silent, passes in steps:
        fleet.now += passes
        if fleet.take(owner, silent):
            granted[owner["name"]] = fleet.now
        valid = [name for name in granted if sum(
            1 for each in fleet.leases if (each.get("owner") or {}).get("name") == name and each["expires"] > fleet.now) >= lease.quorum(3)]
        assert len(valid) <= 1
