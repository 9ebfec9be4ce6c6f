# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter vllm_ascend.fleet.to_revert."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import recovery


class FilterModule:
    """Registers the filter."""

    def filters(self):
        return {"to_revert": recovery.to_revert}
