# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys

# Tests here import their builders by plain name, under pytest's importlib mode and under ansible-test alike.
sys.path.insert(0, os.path.dirname(__file__))
