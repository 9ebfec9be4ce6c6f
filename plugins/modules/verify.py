#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Say what the smoke checks found and keep the evidence
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Reads what M(vllm_ascend.fleet.survey) with C(prove=true) and C(smoke=true) left of every host, prints a row per instance and each thing that is not
    right, and writes C(verify.json) with every question and answer. Runs on the controller.
options:
  model:
    description: Only instances of this model, or of this name.
    type: str
    default: ''
  report_directory:
    description: Folder of reports on the controller; the run gets a folder in it.
    type: path
    default: reports
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Look at every host and ask every instance at once
  vllm_ascend.fleet.survey:
    prove: true
    smoke: true
  run_once: true

- name: Say what was found
  vllm_ascend.fleet.verify:
  run_once: true
"""

RETURN = r"""
instances:
  description: What was found of each instance, with every answer, as docs/architecture.md describes C(verify.json).
  returned: always
  type: list
  elements: dict
failures:
  description: By host one line on the first thing that is not right.
  returned: always
  type: dict
  sample: {a2-1: "gemma-4-e2b-it: smoke.arithmetic: a wrong answer: '43'; expected 42"}
verdict:
  description: C(pass) when every instance passed and there was one, else C(fail).
  returned: always
  type: str
file:
  description: Where the evidence is.
  returned: always
  type: str
page:
  description: The result as metrics for a textfile collector of Prometheus' node-exporter.
  returned: always
  type: str
"""
