#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Carry a rollout from batch to batch
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Decides on the controller what may change next and why not, from the plan and the surveys of this run, the lease of a majority of anchor hosts, and a
    fresh look at the whole fleet before each batch. Every decision is in the journal before it is acted upon.
  - Use it with C(run_once). docs/rollouts.md explains the policy, C(fleet_rollout).
options:
  stage:
    description:
      - V(plan) prints the batches, the capacity at the worst moment, the expected time and the hash.
      - V(begin) refuses what cannot go well, takes the lease and opens the journal, or goes on in the journal of a run that was cut off.
      - V(batch) says whether the hosts of this batch may be taken out; RV(go) is empty when not.
      - V(batch_end) watches a batch for C(soak_s) and closes it.
      - V(revert) says which hosts go back because a later one failed.
      - V(end) closes the journal, gives the lease back, writes the ledger, and fails unless all is done.
      - V(request) asks whoever runs a rollout to pause or to end.
      - V(parameters) tells what the latest rollout of this controller was asked to do.
      - V(verify) checks the ledger.
    type: str
    choices: [plan, begin, batch, batch_end, revert, end, request, parameters, verify]
    required: true
  work:
    description: The hosts to change, for V(stage=plan) and V(stage=begin).
    type: list
    elements: str
    default: []
  parameters:
    description: What the playbook was asked to do, kept in the journal for V(stage=parameters).
    type: dict
    default: {}
  plan_hash:
    description: The hash that was agreed to. Another one is refused.
    type: str
    default: ""
  take_over:
    description: Take the lease from whoever has it.
    type: bool
    default: false
  ignore_load:
    description: Go on where the load of a replica is not known. It is told in the journal.
    type: bool
    default: false
  request:
    description: With V(stage=request), what to ask for. V(none) takes a wish back.
    type: str
    choices: [pause, abort, none]
  anchors:
    description: With V(stage=request), the hosts that hold the lease, as C(anchors) of C(fleet_rollout) names them.
    type: list
    elements: str
    default: []
  state_directory:
    description: With V(stage=request), where hosts keep their state.
    type: path
    default: /var/lib/vllm-ascend-fleet
  report_directory:
    description: With V(stage=parameters) and V(stage=verify), where journals and ledger are kept on the controller.
    type: path
    default: reports
  allowed_signers:
    description: With V(stage=verify), who may sign, as a file in the form of OpenSSH. Without it signatures are not judged.
    type: path
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Ask whether this batch may begin
  vllm_ascend.fleet.rollout:
    stage: batch
  run_once: true
  register: batch

- name: Stop before the next batch
  vllm_ascend.fleet.rollout:
    stage: request
    request: pause
  run_once: true
"""

RETURN = r"""
hash:
  description: Hash of the rollout's plan.
  returned: O(stage=plan)
  type: str
batches:
  description: The hosts of each batch.
  returned: O(stage=plan) and O(stage=begin)
  type: list
  elements: list
refusals:
  description: Why the rollout cannot go well, in sentences with the remedy.
  returned: O(stage=plan)
  type: list
  elements: str
directory:
  description: Folder of the journal.
  returned: O(stage=begin)
  type: str
go:
  description: The hosts that may be taken out.
  returned: O(stage=batch)
  type: list
  elements: str
why:
  description: Why no host may be taken out.
  returned: O(stage=batch)
  type: str
hosts:
  description: The hosts that go back.
  returned: O(stage=revert)
  type: list
  elements: str
outcome:
  description: V(done), V(held), V(reverted) or V(degraded).
  returned: O(stage=end)
  type: str
rollout:
  description: Name of the rollout.
  returned: O(stage=request) and O(stage=parameters)
  type: str
parameters:
  description: What the playbook was asked to do.
  returned: O(stage=parameters)
  type: dict
entries:
  description: The entries of the ledger with what was found of each.
  returned: O(stage=verify)
  type: list
  elements: dict
"""
