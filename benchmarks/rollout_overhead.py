#!/usr/bin/env python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control of a rollout took per host, beyond drain and model: `python benchmarks/rollout_overhead.py reports/<run> ...`."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rollout  # noqa: E402
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal  # noqa: E402


def main(folders):
    every = []
    print("%-12s %8s %8s %8s %9s" % ("host", "total s", "drain s", "model s", "control s"))
    for folder in folders:
        for host, found in rollout.overhead(Journal(folder).events()).items():
            print("%-12s %8.2f %8.2f %8.2f %9.2f" % (host, found["total_s"], found["drain_s"], found["model_s"], found["overhead_s"]))
            every.append(found["overhead_s"])
    if every:
        print("%d hosts: median %.2f s, highest %.2f s" % (len(every), statistics.median(every), max(every)))


if __name__ == "__main__":
    main(sys.argv[1:])
