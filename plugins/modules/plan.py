#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Make the plan of a fleet and judge its hosts
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Reads the C(fleet_*) variables of every host of the play, the catalogue, the lock file and the patch files, and makes the plan.
  - Runs on the controller, once for all hosts. Changes nothing but the report and, with O(stage=complete), the lock file.
options:
  stage:
    description:
      - V(intent) checks what can be checked before any host is asked, and says what to ask each host.
      - V(judge) makes the plan with what M(vllm_ascend.fleet.survey) found, and judges every host.
      - V(complete) makes the plan again after images were built, and writes their digests into the lock file.
      - V(show) prints the plan, where each value comes from, and what differs from what runs now.
      - V(compare) finds out what differs from what runs now, and only warns when there can be no plan.
      - V(back) makes the plan of the way back, from what runs to what ran before it.
    type: str
    choices: [intent, judge, complete, show, back, compare]
    required: true
  model:
    description: The run is about this model. Empty means all.
    type: str
    default: ""
  suite:
    description: The run is about the models of this suite. Empty means all.
    type: str
    default: ""
  explain:
    description: Id of a rule to explain instead of printing the table.
    type: str
    default: ""
  quiet:
    description: Print no table.
    type: bool
    default: false
  enforce:
    description: Fail when more hosts than C(fleet_max_unready_hosts) are not ready.
    type: bool
    default: true
  deep:
    description: Ask the hosts for their slow sources too. For O(stage=intent).
    type: bool
    default: false
  overrides:
    description:
      - With O(stage=intent), keys of an instance that this run lays over what the inventory says, such as C(image) or C(patch_set). A patch set only takes
        the place of one.
    type: dict
    default: {}
  rollout:
    description: With O(stage=back), only what this rollout has changed. V(latest) is the latest on record.
    type: str
    default: ""
  batch:
    description: With O(rollout), only this batch of it, counted from 1. 0 means all.
    type: int
    default: 0
  conclude:
    description: With O(stage=judge), say how the run ended when no host has any work, as M(vllm_ascend.fleet.record) would.
    type: bool
    default: false
  ends:
    description: With O(stage=judge), nothing follows, so that the report is that of a run that has ended.
    type: bool
    default: false
  texts:
    description: Ask the hosts for the installed units and environments too, which O(stage=show) compares. For O(stage=intent).
    type: bool
    default: false
  prune:
    description: Plan and judge as if instances that left the inventory were gone, because they will be removed before anything new starts.
    type: bool
    default: false
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Check what the inventory asks for
  vllm_ascend.fleet.plan:
    stage: intent
    suite: gemma4
  run_once: true
  register: intent
"""

RETURN = r"""
directory:
  description: Folder of the run on the controller.
  returned: O(stage=intent)
  type: str
weights:
  description: For each host the folders of weights that its instances need.
  returned: O(stage=intent)
  type: dict
plan:
  description: Of the plan what the role C(acquire) needs; the whole, whose shape stands in docs/architecture.md, stays with the run and is in C(plan.json).
  returned: O(stage=judge) and O(stage=complete)
  type: dict
present:
  description: For each host the references that its instances need and that it has already.
  returned: O(stage=judge) and O(stage=complete)
  type: dict
work:
  description: Hosts that are ready and not yet what the plan says, because something differs or does not answer; those that go back.
  returned: O(stage=judge) and O(stage=back)
  type: list
  elements: str
instances:
  description: For each host the instances that go back.
  returned: O(stage=back)
  type: dict
ready:
  description: Hosts that passed every rule.
  returned: O(stage=judge)
  type: list
  elements: str
unready:
  description: Hosts that did not.
  returned: O(stage=judge)
  type: list
  elements: str
waived:
  description: Number of findings that a waiver set aside.
  returned: O(stage=judge)
  type: int
unbuilt:
  description: Images that have to be built first.
  returned: O(stage=judge)
  type: list
  elements: str
left_over:
  description: For each host the instances of ours that its inventory no longer names.
  returned: O(stage=judge) and O(stage=show)
  type: dict
hash:
  description: Hash of the plan.
  returned: O(stage=show)
  type: str
"""
