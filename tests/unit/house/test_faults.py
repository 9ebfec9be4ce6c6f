# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault that docs/faults.md tells of is tested where it says."""

from __future__ import annotations

import re

import pytest
from house import ROOT

ROWS = re.findall(r"^\| (F\d+) \|.*\| (`test_.*) \|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
KNOWN = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}


def test_faults_are_listed_once():
    numbers = [number for number, _tests in ROWS]
    assert len(numbers) > 50 and numbers == sorted(set(numbers), key=lambda number: int(number[1:]))


@pytest.mark.parametrize("number, tests", ROWS, ids=[number for number, _tests in ROWS])
def test_a_fault_has_its_tests(number, tests):
    assert set(re.findall(r"`(test_\w+)`", tests)) <= KNOWN
