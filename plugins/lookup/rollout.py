# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout of this run has decided, for the keywords of a play."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout
short_description: The hosts and batches of the rollout of this run
version_added: 0.1.0
author: The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Gives what M(vllm_ascend.fleet.rollout) decided earlier in this run, in a form for the keywords C(hosts) and C(serial) of a play, which know no
    registered variables.
options:
  _terms:
    description:
      - V(hosts) gives the hosts in the order in which they change, V(serial) the sizes of the batches, V(revert) the hosts that are to go back.
      - Without a rollout the hosts are a pattern that matches nobody.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Change batch after batch
  hosts: "{{ query('vllm_ascend.fleet.rollout', 'hosts') }}"
  serial: "{{ query('vllm_ascend.fleet.rollout', 'serial') }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: Names of hosts, or numbers.
  type: list
  elements: raw
"""

from ansible.plugins.lookup import LookupBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import interrupt, workspace

NOBODY = ["!all"]


class LookupModule(LookupBase):
    """See above."""

    def run(self, terms, variables=None, **kwargs):
        kept = workspace.load("rollout", {})
        if kept:
            # Templated by the process that runs the play, the only one that can.
            interrupt.listen()
        batches = kept.get("batches") or []
        return {"hosts": [host for batch in batches for host in batch] or NOBODY, "serial": [len(batch) for batch in batches] or [1],
                "revert": kept.get("revert") or NOBODY}[terms[0]]
