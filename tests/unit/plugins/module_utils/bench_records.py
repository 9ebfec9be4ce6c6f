# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark records for the tests, as bench_plan.record makes them."""

from __future__ import annotations

import math

PROTOCOL = {"tool": "vllm bench serve", "run": "warm", "tokenizer": "gemma-4-E2B-it", "random-input-len": 1024, "random-output-len": 1024,
            "num-prompts": 1, "max-concurrency": 1, "seed": 20260410}


def record(**changes):
    """One good record; ``protocol`` and ``metrics`` are laid over the usual ones."""
    made = {"schema": 1, "id": "0" * 16, "run_id": "now", "epoch_s": 1.0, "host": "a2-1", "instance": "gemma", "model": "gemma-4-E2B-it", "platform": "a2",
            "suite": "gemma4", "workload": "1k/1k", "label": None, "round": 2, "rounds": 2, "counts_as": "kept", "protocol_id": "p", "disturbed": False,
            "tokenizer_sha256": None, "cache_hit_ratio": None, "status": "good", "problems": [], "notes": [],
            "metrics": {"output_throughput": 80.0, "mean_ttft_ms": 120.0, "mean_tpot_ms": 12.0}}
    made.update(changes, protocol=dict(PROTOCOL, **changes.get("protocol", {})))
    return made


def many(draw, size, factor=1.0, noise=0.01, **changes):
    """Rounds of one run: throughput scaled by a factor, times the other way."""
    made = []
    for number in range(size):
        scale = [math.exp(draw.gauss(0, noise)) for dummy in range(3)]
        made.append(record(round=number + 2, metrics={"output_throughput": 80.0 * factor * scale[0], "mean_ttft_ms": 120.0 / factor * scale[1],
                                                      "mean_tpot_ms": 12.0 / factor * scale[2]}, **changes))
    return made
