# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM's /metrics says of its load. Pure.

Names and labels: vLLM 0.18.0; one series per engine, which is one per data-parallel rank, so they are summed.
"""

from __future__ import annotations

import math
import re

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})?\s+([^\s]+)")
RUNNING, WAITING, KV_USAGE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
FINISHED = "vllm:request_success_total"


def parse(text):
    """Prometheus text -> {metric name: [value of each series]}; a line that is none is passed over."""
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        try:
            value = float(match.group(3))
        except ValueError:
            continue
        found.setdefault(match.group(1), []).append(value)
    return found


def load(status, text):
    """The load of an instance from the answer of its /metrics.

    :returns: {"running", "waiting", "kv_usage" (the fullest engine, 0 .. 1), "finished" (since it started)}, or {"error": why it is not known}.
    """
    if status != 200:
        return {"error": "HTTP %s from /metrics" % status if status else "/metrics: %s" % text}
    found = parse(text)
    missing = [name for name in (RUNNING, WAITING) if not found.get(name)]
    if missing:
        return {"error": "/metrics does not tell %s" % ", ".join(missing)}
    values = found[RUNNING] + found[WAITING] + found.get(KV_USAGE, [0.0])
    if any(math.isnan(value) or value < 0 for value in values):
        return {"error": "/metrics tells %s" % ", ".join("%g" % value for value in values)}
    return {"running": int(sum(found[RUNNING])), "waiting": int(sum(found[WAITING])), "kv_usage": max(found.get(KV_USAGE) or [0.0]),
            "finished": int(sum(found.get(FINISHED) or [0.0]))}
