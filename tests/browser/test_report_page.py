# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in a real browser: what a person sees of it on a desk, at night, on a phone and on paper."""

from __future__ import annotations

import re

import pytest
import synthetic_run

WIDTHS = {"desk": 1280, "phone": 390}


@pytest.mark.parametrize("where, dark", [("desk", False), ("desk", True), ("phone", False)], ids=["light", "dark", "phone"])
@pytest.mark.parametrize("kind", sorted(synthetic_run.KINDS))
def test_a_page_can_be_read(browser, page, kind, where, dark):
    seen = browser.look(page(kind), WIDTHS[where], dark=dark)
    assert seen["width"] == WIDTHS[where] and seen["dark"] is dark
    assert seen["problems"] == [] and seen["wide"] == [] and seen["faint"] == [] and seen["unnamed"] == 0
    assert all(seen["drawn"]) and len(seen["drawn"]) == (3 if kind == "benchmark" else 0)
    browser.shoot(page(kind), f"{kind}-{where}{'-dark' if dark else ''}", WIDTHS[where], dark=dark)


def test_ten_seconds_suffice(browser, page):
    """What happened, where and what to do stand on the first screen of a phone, and the host that failed comes first in the fleet."""
    seen = browser.look(page("deploy"), 390, 844)
    assert seen["verdict_bottom"] < 844 and seen["first"] == "a2-3"
    assert re.search(r"1 of 6 hosts went wrong.*Where\s+a2-3\s+What to do\s+journalctl", seen["text"], re.DOTALL)


def test_paper_shows_what_went_wrong_unfolded(browser, page):
    assert browser.look(page("deploy"))["folded_bad"] == 0
    pages = re.findall(rb"/Type\s*/Page\b(?!s)", browser.print(page("deploy"), "deploy").read_bytes())
    assert 1 <= len(pages) <= 8


def test_five_hundred_hosts_open_and_one_is_found(browser, page):
    seen = browser.look(page("deploy", 500))
    assert seen["problems"] == [] and seen["wide"] == [] and seen["first"] == "a2-3"
    assert seen["found"] == ["a2-17"] + [f"a2-{number}" for number in range(170, 180)]
    browser.shoot(page("deploy", 500), "deploy-500")
