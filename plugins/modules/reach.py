#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reach
short_description: Find out whether hosts can be talked to, and what is in the way
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Asks all hosts of the play at once from the controller, step by step. The name resolves, the port answers, the host key is known, the
    login works, a shell answers, there is a Python that this ansible-core can use, sudo asks no question, the clock agrees.
  - Uses the connection options that Ansible would use, with what C(ssh -G) makes of them. What paramiko cannot do is named as handed to
    Ansible's own connection, and is no failure.
  - Accepts and changes nothing. A password is never sent to a host whose key is not known. Needs paramiko on the controller.
  - Shows one table and below it what is in the way, with the remedy. A host that cannot be talked to does not fail the task.
  - Meant to run with C(run_once).
options:
  hosts:
    description:
      - Names from the inventory.
      - All hosts of the play when not given.
    type: list
    elements: str
  deadline_s:
    description: How long each host may take, in seconds.
    type: float
    default: 10
  quiet:
    description: Show no table.
    type: bool
    default: false
  directory:
    description: Write the verdicts to C(reach.json) in this directory of the controller.
    type: path
seealso:
  - module: vllm_ascend.fleet.survey
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Ask every host whether it can be talked to
  vllm_ascend.fleet.reach:
  run_once: true
  register: reach

- name: Stop when one cannot
  ansible.builtin.assert:
    that: reach.unreachable_hosts | length == 0
  run_once: true
"""

RETURN = r"""
hosts:
  description: The verdict on each host.
  returned: always
  type: dict
  contains:
    status:
      description: V(pass), V(fail), or V(unknown) when something is left to Ansible's own connection.
      type: str
      returned: always
    cells:
      description: The host's row of the table. Name, port, host key, login, Python, sudo, clock.
      type: list
      elements: str
      returned: always
    findings:
      description: One for each step taken, with C(rule), C(status), C(found), C(expected), C(source) and C(remedy).
      type: list
      elements: dict
      returned: always
    kind:
      description: What failed first.
      type: str
      returned: always
    sure:
      description: Whether the first failure is one that no other SSH client would get around.
      type: bool
      returned: always
unreachable_hosts:
  description: Hosts on which a step failed.
  returned: always
  type: list
  elements: str
"""
