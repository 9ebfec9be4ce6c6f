#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: change
short_description: Bring the instances of a host to what is wanted, prove them, or go back
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Changes the instances of one host as one transaction. A job on the host prepares, stops, switches, starts and proves them, and brings back what ran
    before when they cannot be proven. It finishes there whatever becomes of the connection and of the controller.
  - Before anything stops, a timer of the host is armed that brings back what ran before, should the job die with its host.
  - The task follows the job, shows each step as a line, and opens a lost connection again.
  - What the plan of this run or the survey of this run says of the instances is taken from there, so M(vllm_ascend.fleet.survey) has to run before, and
    for O(state=present) M(vllm_ascend.fleet.plan).
  - Containers and unit files that are not ours are never touched, and masked units are never unmasked.
options:
  state:
    description:
      - V(present) installs and starts the releases of the plan.
      - V(previous) switches each instance back to the release that ran before the current one, and forgets the one it left.
      - V(restarted), V(started) and V(stopped) only stop and start what is installed.
      - V(absent) removes units, releases, secrets and containers of the instances, and nothing else.
    type: str
    choices: [present, previous, restarted, started, stopped, absent]
    default: present
  instances:
    description: Names of the instances; all of the plan, or all that are installed, when not given.
    type: list
    elements: str
  prune:
    description: With O(state=present), also remove instances of ours that the inventory no longer names, once the others are proven.
    type: bool
    default: false
  api_key:
    description: With O(state=present), the key that clients must send.
    type: str
  prove:
    description: Prove what runs afterwards, and go back when it cannot be.
    type: bool
    default: true
  rounds:
    description: How often the fixed question is asked; all answers must be equal.
    type: int
    default: 3
  first_token_s:
    description: Deadline of the first token of a completion, in seconds.
    type: float
    default: 60
  gap_s:
    description: Longest time between two tokens, in seconds.
    type: float
    default: 30
  parse_s:
    description: How long the engine's own parser may take to read the arguments of a new release, in seconds.
    type: float
    default: 180
  keep:
    description: How many releases of each instance stay on the host. The current and the previous one always stay.
    type: int
    default: 3
  no_way_back:
    description: Change also a host on which the image of what runs is gone, so that it could not go back.
    type: bool
    default: false
  only_prepare:
    description: With O(state=present), do only what changes nothing that runs, which is writing releases and asking the engine's parser.
    type: bool
    default: false
  rollout:
    description: The change is a step of the rollout of this run, which M(vllm_ascend.fleet.rollout) has begun. It is journalled, and not done twice.
    type: bool
    default: false
  patience_s:
    description: How long a lost connection is opened again, in seconds.
    type: int
    default: 300
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Bring this host to the plan
  vllm_ascend.fleet.change:
    api_key: "{{ fleet_api_key }}"

- name: Return to the release that ran before
  vllm_ascend.fleet.change:
    state: previous
    instances: [gemma-4-e2b-it]
"""

RETURN = r"""
outcome:
  description:
    - V(unchanged), V(done), V(reverted) (the release before is back and proven), V(down) (nothing is proven), or V(failed) (nothing was changed, or there was
      nothing to go back to).
  returned: when a job ran
  type: str
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: [stop vllm-ascend-gemma-4-e2b-it.service, switch gemma-4-e2b-it from 0f52c468598b to 9d1f0c3a77e2]
instances:
  description: For each instance by name C(release), C(previous), C(active_state) and C(actions).
  returned: success
  type: dict
elapsed_s:
  description: Seconds that the job took.
  returned: when a job ran
  type: float
"""
