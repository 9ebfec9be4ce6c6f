# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module promises about check mode and diff mode, said once."""

from __future__ import annotations


class ModuleDocFragment:
    # For modules that change something.
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: full
  platform:
    description: Target operating systems.
    support: full
    platforms: linux
"""

    # For modules that only look, or only speak.
    INFO = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the same without changing anything.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: N/A
  platform:
    description: Target operating systems.
    support: full
    platforms: linux
"""
