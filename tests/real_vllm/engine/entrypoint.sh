#!/bin/bash
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The wrapper of vllm-ascend's images sources CANN's environment, which a CPU has not, and becomes the command; so does this one.
exec "$@"
