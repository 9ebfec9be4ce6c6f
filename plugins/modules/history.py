#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: history
short_description: Print series of what the fleet measured
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Reads the history that C(benchmark.yml) and rollouts keep, and prints one metric over time, or how long the steps of a run take. Runs on the
    controller.
options:
  address:
    description: A SQLite file, or C(postgresql://user@host/database), which needs the Python package C(psycopg) on the controller.
    type: str
    default: ''
  password:
    description: Password of the database.
    type: str
  metric:
    description: A metric as the results name it, such as C(mean_ttft_ms), or the other way round, such as C(ttft_mean_ms).
    type: str
    default: output_throughput
  model:
    description: Only this model.
    type: str
    default: ''
  suite:
    description: Only this suite.
    type: str
    default: ''
  workload:
    description: Only this workload.
    type: str
    default: ''
  host:
    description: Only this host.
    type: str
    default: ''
  limit:
    description: How many of the newest measurements.
    type: int
    default: 200
  steps:
    description: Print how long steps take instead.
    type: bool
    default: false
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Show the time to the first token of a model over time
  vllm_ascend.fleet.history:
    address: reports/history.sqlite
    model: gemma-4-E2B-it
    metric: ttft_mean_ms
  run_once: true
"""

RETURN = r"""
series:
  description: The measurements, the newest last.
  returned: unless O(steps=true)
  type: list
  elements: dict
  sample: [{host: a2-1, instance: gemma-4-e2b-it, model: gemma-4-E2B-it, workload: 1k/1k, release: 0f52c468598b, epoch_s: 1795586956.1, value: 121.3}]
steps:
  description: What steps take.
  returned: with O(steps=true)
  type: list
  elements: dict
  sample: [{step: load, model: gemma-4-31B-it, platform: a2, median_s: 412.0, spread_s: 12.3, count: 8, basis: model and platform}]
"""
