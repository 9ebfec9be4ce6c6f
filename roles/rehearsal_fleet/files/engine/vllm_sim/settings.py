# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the engine looks. Inside the image the defaults hold; a test points them elsewhere."""

from __future__ import annotations

import os

TREE = os.environ.get("REHEARSAL_TREE", "/vllm-workspace")
DEV = os.environ.get("REHEARSAL_DEV", "/dev")
DRIVER = os.environ.get("REHEARSAL_DRIVER", "/usr/local/Ascend/driver")
FAULTS = os.environ.get("REHEARSAL_FAULTS", DRIVER + "/lib64/rehearsal_faults")
START_S = float(os.environ.get("REHEARSAL_START_S", "3"))
TOKEN_S = float(os.environ.get("REHEARSAL_TOKEN_S", "0.005"))
# vLLM looks every 5 s whether its engine still lives.
WATCHDOG_S = float(os.environ.get("REHEARSAL_WATCHDOG_S", "5"))
