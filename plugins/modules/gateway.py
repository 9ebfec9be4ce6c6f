#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway
short_description: Bring the gateways of the fleet to what this run has found and proven
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Gives each served model one address at every gateway, whatever hosts and instances serve it. An instance is named there once it is proven, and no longer
    when it has left.
  - Where C(fleet_instance_access) is V(gateways), the default, a firewall on the hosts of the run lets the gateways, C(fleet_metrics_scrapers) and the host
    itself open connections to the ports of the instances, and nobody else. One host is first, and a firewall that keeps a gateway out is taken back.
  - A configuration that HAProxy refuses is put aside and the old one stays in force. A reload cuts no stream and forgets no drained server.
  - Runs on the controller, asks each gateway in two round trips and a host only when its firewall changes, and needs M(vllm_ascend.fleet.survey) and
    M(vllm_ascend.fleet.plan) before in this run. Use it with C(run_once). A fleet without gateways is left alone.
options: {}
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Bring the gateways to what is proven
  vllm_ascend.fleet.gateway:
  run_once: true
"""

RETURN = r"""
addresses:
  description: For each served model where it can be reached.
  returned: success
  type: dict
  sample: {gemma-4-E2B-it: ["https://192.0.2.5:9000"]}
actions:
  description: For each gateway what was done, or would be done in check mode.
  returned: success
  type: dict
guarded:
  description: The hosts whose firewall changed, or would change in check mode.
  returned: success
  type: list
  elements: str
"""
