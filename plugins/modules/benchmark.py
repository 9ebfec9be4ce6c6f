#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark
short_description: Plan, run and judge benchmarks of instances
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - V(stage=plan) makes the commands of a suite for every instance of the play, shows them, and refuses what cannot be measured. Once for all hosts.
  - V(stage=measure) runs them on its host as a detached job, one after the other, and shows each step. What a job of before has finished in the same
    process of the engine is not repeated. A failed run is no failure of the task, it is told by O(stage=judge).
  - The stages hand plan and results to each other through files of the run.
  - V(stage=judge) makes records of what was measured, writes C(benchmark.json), keeps them in the history, compares them with published figures, with
    the history, host with host and before with after, and holds them against objectives. Once for all hosts.
options:
  stage:
    description: What to do.
    type: str
    choices: [plan, measure, judge, forget]
    required: true
  suite:
    description: A suite of the catalogue, C(catalogue/benchmarks).
    type: str
    default: ''
  label:
    description: V(before) or V(after), for measurements that belong together. With V(after) they are compared with the newest V(before).
    type: str
    default: ''
  repeats:
    description:
      - How often to measure. Runs that warm up what follows are made once. Verdicts need several.
      - 5 when O(slo) has a regression bound, else 1.
    type: int
  concurrency:
    description: Numbers of requests at a time, in place of those of a sweep.
    type: list
    elements: int
    default: []
  workloads:
    description: Only these workloads of the suite.
    type: list
    elements: str
    default: []
  stop:
    description: Whether an instance may be stopped for a workload that needs its NPUs, and started again afterwards.
    type: bool
    default: false
  slo:
    description: Objectives, as a dictionary, the text of one, or the name of a YAML file on the controller.
    type: raw
  fresh:
    description: Throw away what a job of before has finished.
    type: bool
    default: false
  model:
    description: Only instances of this model, or of this name.
    type: str
    default: ''
  timeout_s:
    description: Seconds that one run may take, in place of the suite's.
    type: int
  patience_s:
    description: Seconds during which a lost connection is opened again and again.
    type: int
    default: 600
seealso:
  - module: vllm_ascend.fleet.job
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Look at every host at once
  vllm_ascend.fleet.survey:
    request: {texts: true}
  run_once: true

- name: See what will be measured
  vllm_ascend.fleet.benchmark:
    stage: plan
    suite: gemma4
    slo: {ttft_mean_ms: 500, regression: 0.05}
  run_once: true

- name: Measure
  vllm_ascend.fleet.benchmark:
    stage: measure

- name: Judge
  vllm_ascend.fleet.benchmark:
    stage: judge
  run_once: true
  register: judged
"""

RETURN = r"""
work:
  description: With V(stage=plan), the hosts on which something is measured.
  returned: stage is plan
  type: list
  elements: str
stopped:
  description: With V(stage=plan), by host the instances that will be stopped and started again.
  returned: stage is plan
  type: dict
job:
  description: With V(stage=plan), the id of the job on every host.
  returned: stage is plan
  type: str
directory:
  description: With V(stage=plan), the folder of the run.
  returned: stage is plan
  type: str
state:
  description: With V(stage=measure), C(measured), C(incomplete), C(failed), or C(not measured) in check mode.
  returned: stage is measure
  type: str
reason:
  description: With V(stage=measure), why it is not C(measured), in one line.
  returned: stage is measure
  type: str
failures:
  description: With V(stage=judge), by host one line on what was not measured, or on the objective that was not met.
  returned: stage is judge
  type: dict
  sample: {a2-1: "gemma-4-e2b-it: slo.mean_ttft_ms: found 1k/1k: mean_ttft_ms 812.40; bound 1k/1k: mean_ttft_ms at most 500"}
verdict:
  description: With V(stage=judge), C(pass) or C(fail).
  returned: stage is judge
  type: str
file:
  description: With V(stage=judge), where the records and comparisons are, as docs/architecture.md describes C(benchmark.json).
  returned: stage is judge
  type: str
page:
  description: With V(stage=judge), the result as metrics for a textfile collector of Prometheus' node-exporter.
  returned: stage is judge
  type: str
"""
