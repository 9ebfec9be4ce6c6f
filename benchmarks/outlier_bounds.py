#!/usr/bin/env python3
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the table OUTLIER_BOUNDS of module_utils/intervals.py: `python benchmarks/outlier_bounds.py`. Takes minutes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intervals  # noqa: E402  (after the path)

SAMPLES = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000


def bound(size, draw):
    """What the largest score of a sample stays below in 95 of 100."""
    scores = []
    for _number in range(SAMPLES):
        values = [draw(0.0, 1.0) for _index in range(size)]
        middle = intervals.median(values)
        scores.append(max(abs(value - middle) for value in values) / intervals.spread(values))
    return sorted(scores)[int(0.95 * SAMPLES)]


if __name__ == "__main__":
    draw = random.Random(20261125).gauss
    for size in list(range(4, 21)) + [30, 31, 50, 51, 100, 101]:
        print("%d: %.2f," % (size, bound(size, draw)), flush=True)
