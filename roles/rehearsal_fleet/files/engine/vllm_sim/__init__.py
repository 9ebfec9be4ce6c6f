# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of the rehearsal fleet: a `vllm` command that behaves like vLLM 0.18.0 and computes nothing."""

from __future__ import annotations

VERSION = "0.18.0+empty"
