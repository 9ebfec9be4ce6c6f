# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter vllm_ascend.fleet.secrets."""

from __future__ import annotations


def secrets(instances, api_key):
    """{instance name: {"VLLM_API_KEY": key}} for the instances that have a secret; {} without a key."""
    if not api_key:
        return {}
    return {instance["name"]: {"VLLM_API_KEY": api_key} for instance in instances if instance.get("secret")}


class FilterModule:
    """Registers the filter."""

    def filters(self):
        return {"secrets": secrets}
