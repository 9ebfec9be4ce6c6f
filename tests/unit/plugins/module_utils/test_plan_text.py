# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text


def instance(name, release="b" * 12):
    return {"name": name, "devices": ["/dev/davinci2", "/dev/davinci3"], "port": 8002, "patch_set": {"name": "gemma4", "id": "0" * 12},
            "image": "registry:5000/ascend/vllm-ascend:v1", "image_name": "vllm", "release": {"id": release} if release else None}


def test_what_will_be_done_follows_from_what_runs():
    plan = {"hosts": {"h": {"notes": [], "instances": [
        instance("same"), instance("down"), instance("other"), instance("new"), instance("unbuilt", None)]}}}
    survey = {"instances": {
        "same": {"release": "b" * 12, "unit": {"active_state": "active"}},
        "down": {"release": "b" * 12, "unit": {"active_state": "failed"}},
        "other": {"release": "a" * 12, "unit": {"active_state": "active"}},
    }}
    found = plan_text.differences(plan, {"h": survey})["h"]
    assert {name: entry["action"] for name, entry in found.items()} == {
        "same": "keep", "down": "start", "other": "replace", "new": "install", "unbuilt": "build"}


def test_the_table_shows_devices_and_notes():
    plan = {"hosts": {"h": {"notes": ["a note"], "instances": [instance("one")]}, "i": {"notes": [], "instances": []}}}
    text = plan_text.render(plan, {})
    assert "2,3" in text
    assert "h: a note" in text
    assert text.splitlines()[2].split()[:2] == ["i", "-"]


def test_long_lists_are_cut():
    assert plan_text.shorten(["h%d" % n for n in range(10)], 3) == "h0, h1, h2 and 7 more"
