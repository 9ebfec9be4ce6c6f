# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registers the filters of the collection; each is documented in a file of its name beside this one."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.htpasswd import htpasswd


class FilterModule:
    """Registers the filters."""

    def filters(self):
        return {"htpasswd": htpasswd, "to_build": plan.to_build}
