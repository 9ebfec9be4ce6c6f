# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
import surveys
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import placement

GEMMA = [("gemma-4-e2b-it", 1), ("gemma-4-e4b-it", 1), ("gemma-4-26b-a4b-it", 2), ("gemma-4-31b-it", 4)]


def want(*demands):
    return [{"name": d[0], "devices": d[1], "explicit": d[2] if len(d) > 2 else None} for d in demands]


def place(demands, chips, platform="a2", running=None):
    return placement.place(demands, chips, surveys.PLATFORMS[platform], running or {})


def without(platform, *sick, **fields):
    chips = surveys.chips(platform)
    for index in sick:
        chips[index].update(fields or {"health": "Alarm"})
    return chips


def test_the_four_gemma_models_fill_an_a2():
    placed = place(want(*GEMMA), surveys.chips("a2"))
    assert placed["conflict"] is None
    assert placed["assignments"] == {
        "gemma-4-31b-it": [0, 1, 2, 3], "gemma-4-26b-a4b-it": [4, 5], "gemma-4-e2b-it": [6], "gemma-4-e4b-it": [7]}
    assert len(placed["why"]) == 4


@pytest.mark.parametrize("model,devices", GEMMA)
def test_an_a2_with_one_chip_less_cannot_hold_them(model, devices):
    placed = place(want(*GEMMA), without("a2", 6))
    assert placed["assignments"] == {}
    assert {"name": model, "devices": devices, "explicit": None} in placed["conflict"]["demands"]
    assert "8 of 7 usable chips" in placed["conflict"]["message"]
    assert "davinci6: health Alarm" in placed["conflict"]["message"]


def test_the_smallest_conflict_leaves_the_innocent_out():
    # Chips 1 and 5 are sick: no aligned block of four is left, whatever the others want.
    placed = place(want(("big", 4), ("small", 1), ("tiny", 1)), without("a2", 1, 5))
    assert [d["name"] for d in placed["conflict"]["demands"]] == ["big"]
    assert "aligned" in placed["conflict"]["message"]


def test_ring_blocks_avoid_a_sick_chip():
    assert place(want(("a", 4)), without("a2", 0))["assignments"] == {"a": [4, 5, 6, 7]}
    assert place(want(("a", 2), ("b", 1)), without("a2", 0))["assignments"] == {"a": [2, 3], "b": [1]}


def test_other_sizes_on_a_ring_are_contiguous():
    assert place(want(("a", 3), ("b", 2)), surveys.chips("a2"))["assignments"] == {"a": [0, 1, 2], "b": [4, 5]}


def test_the_dies_of_an_a3_npu_stay_together():
    placed = place(want(*GEMMA), surveys.chips("a3"), "a3")["assignments"]
    assert placed == {"gemma-4-31b-it": [0, 1, 2, 3], "gemma-4-26b-a4b-it": [4, 5], "gemma-4-e2b-it": [6], "gemma-4-e4b-it": [7]}


def test_single_dies_share_an_npu():
    assert place(want(("a", 1), ("b", 1)), surveys.chips("a3"), "a3")["assignments"] == {"a": [0], "b": [1]}


def test_a_broken_pair_serves_singles_only():
    placed = place(want(("a", 2), ("b", 1)), without("a3", 0), "a3")["assignments"]
    assert placed == {"a": [2, 3], "b": [1]}
    assert place(want(("a", 2)), [c for c in surveys.chips("a3") if c["index"] % 2], "a3")["conflict"]


def test_a3_blocks_are_aligned_where_they_can_be():
    assert place(want(("a", 4), ("b", 1)), without("a3", 0), "a3")["assignments"] == {"a": [4, 5, 6, 7], "b": [1]}
    assert place(want(("a", 4)), without("a3", 0, 6, 10, 14), "a3")["assignments"] == {"a": [2, 3, 4, 5]}
    # Any two whole NPUs will do when no two neighbours are left.
    assert place(want(("a", 4)), without("a3", 0, 4, 8, 12), "a3")["assignments"] == {"a": [2, 3, 6, 7]}


def test_of_many_demands_the_conflict_is_still_small():
    placed = place(want(("big", 4), *[("s%02d" % n, 1) for n in range(11)]), without("a3", 0, 2, 4, 6, 8, 10, 12, 14), "a3")
    assert [d["name"] for d in placed["conflict"]["demands"]] == ["big"]


def test_an_odd_demand_takes_whole_npus_and_one_die():
    assert place(want(("a", 3), ("b", 1)), surveys.chips("a3"), "a3")["assignments"] == {"a": [0, 1, 2], "b": [3]}


def test_duo_cards_are_taken_whole_first():
    assert place(want(("a", 1), ("b", 2)), surveys.chips("310p"), "310p")["assignments"] == {"b": [0, 1], "a": [2]}
    # Only half cards are left: any chips do.
    assert place(want(("a", 2)), without("310p", 0, 2, 4, 6), "310p")["assignments"] == {"a": [1, 3]}


def test_explicit_devices_win():
    placed = place(want(("a", 2, [3, 5]), ("b", 4)), surveys.chips("a2"))
    assert placed["conflict"]["demands"][0]["name"] == "a"
    placed = place(want(("a", 2, [5, 3]), ("b", 2)), surveys.chips("a2"))
    assert placed["assignments"]["a"] == [5, 3]
    assert not set(placed["assignments"]["b"]) & {3, 5}
    assert "a gets davinci5, davinci3: named in the inventory" in placed["why"]


def test_explicit_devices_move_a_running_instance_aside():
    placed = place(want(("a", 1, [0]), ("b", 1)), surveys.chips("a2"), running={"b": [0]})
    assert placed["assignments"]["a"] == [0]
    assert placed["assignments"]["b"] != [0]


@pytest.mark.parametrize("demands,words", [
    ([("a", 1, [9])], "a names davinci9, this host has davinci0"),
    ([("a", 2, [1, 1])], "names a device twice"),
    ([("a", 2, [1])], "asks for 2 chips but names 1"),
    ([("a", 2, [1, 2]), ("b", 1, [2])], "a and b both name davinci2"),
])
def test_explicit_devices_are_checked(demands, words):
    conflict = place(want(*demands), surveys.chips("a2"))["conflict"]
    assert words in conflict["message"]
    assert [d["name"] for d in conflict["demands"]] == [d[0] for d in demands]


def test_davinci_numbers_with_gaps_are_not_indexes():
    chips = surveys.chips("310p")[:4]
    for chip, number in zip(chips, (0, 2, 4, 6)):
        chip["device"] = "/dev/davinci%d" % number
    assert place(want(("a", 1, [4])), chips, "310p")["assignments"] == {"a": [2]}
    assert "names davinci1" in place(want(("a", 1, [1])), chips, "310p")["conflict"]["message"]


@pytest.mark.parametrize("fields,words", [
    ({"holders": ["jupyter"]}, "container jupyter"),
    ({"processes": [{"pid": 7, "name": "", "memory_mib": 1}]}, "pid 7 (name not shown)"),
    ({"hbm_used_mib": 29954}, "29954 MiB"),
    ({"health": None}, "health not known"),
    ({"device_present": False}, "no device node"),
])
def test_what_is_not_free_is_left_out(fields, words):
    placed = place(want(("a", 1)), without("a2", 0, **fields))
    assert placed["assignments"] == {"a": [1]}
    assert any("davinci0 is left out" in line and words in line for line in placed["why"])


def test_an_instance_of_ours_outside_the_plan_keeps_its_chip():
    chips = without("a2", 0, holders=["vllm-ascend-old"], hbm_used_mib=60000)
    placed = place(want(("a", 1)), chips, running={"old": [0]})
    assert placed["assignments"] == {"a": [1]}
    assert any("our instance old" in line for line in placed["why"])


def test_a_running_instance_keeps_its_chips_until_its_size_changes():
    chips = without("a2", 3, holders=["vllm-ascend-a"], hbm_used_mib=60000)
    assert place(want(("a", 1), ("b", 4)), chips, running={"a": [3]})["assignments"] == {"a": [3], "b": [4, 5, 6, 7]}
    assert place(want(("a", 2), ("b", 4)), chips, running={"a": [3]})["assignments"] == {"a": [2, 3], "b": [4, 5, 6, 7]}


@st.composite
def situations(draw):
    platform = draw(st.sampled_from(["a2", "a3", "310p"]))
    chips = surveys.chips(platform)
    for chip in chips:
        state = draw(st.sampled_from(["free"] * 6 + ["sick", "held"]))
        chip.update({"health": "Alarm"} if state == "sick" else {"holders": ["foreign"]} if state == "held" else {})
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 3, 4, 8]), min_size=1, max_size=6))
    free = [c["index"] for c in chips if c["health"] == "OK" and not c["holders"]]
    running = {}
    if free and sizes[0] == 1 and draw(st.booleans()):
        index = draw(st.sampled_from(free))
        chips[index]["holders"] = ["vllm-ascend-i0"]
        running["i0"] = [index]
    return platform, chips, want(*[("i%d" % n, size) for n, size in enumerate(sizes)]), running


@settings(deadline=None, max_examples=150)
@given(situations(), st.randoms(use_true_random=False))
def test_what_every_placement_keeps(situation, random):
    platform, chips, demands, running = situation
    placed = place(demands, chips, platform, running)
    shuffled, mixed = list(demands), list(chips)
    random.shuffle(shuffled)
    random.shuffle(mixed)
    assert place(shuffled, mixed, platform, running) == placed
    if placed["conflict"]:
        names = [d["name"] for d in placed["conflict"]["demands"]]
        culprits = [d for d in demands if d["name"] in names]
        kept = dict((n, held) for n, held in running.items() if n in names)
        others = dict((n, held) for n, held in running.items() if n not in names)
        assert culprits and place(culprits, chips, platform, dict(kept, **others))["conflict"]
        return
    taken = list(itertools.chain.from_iterable(placed["assignments"].values()))
    assert len(taken) == len(set(taken))
    by_index = dict((chip["index"], chip) for chip in chips)
    for demand in demands:
        own = placed["assignments"][demand["name"]]
        assert len(own) == demand["devices"]
        assert all(by_index[i]["health"] == "OK" and "foreign" not in by_index[i]["holders"] for i in own)
        if demand["name"] in running:
            assert own == running[demand["name"]]
        elif platform == "a2":
            assert own == list(range(own[0], own[0] + len(own)))
            assert len(own) == 3 or own[0] % len(own) == 0
        elif platform == "a3" and len(own) > 1:
            assert len(set(by_index[i]["npu_id"] for i in own)) == (len(own) + 1) // 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([1, 1, 1, 2, 2, 4]), min_size=1, max_size=10))
def test_powers_of_two_that_fit_by_number_fit_on_a_healthy_ring(sizes):
    placed = place(want(*[("i%d" % n, size) for n, size in enumerate(sizes)]), surveys.chips("a2"))
    assert (placed["conflict"] is None) == (sum(sizes) <= 8)
