# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines in vLLM's shape."""

from __future__ import annotations

import os
import sys
import time

process = "APIServer"


def line(message, level="INFO", source="api_server.py:580"):
    """Write one line, e.g. (APIServer pid=1) INFO 04-10 09:00:00 [api_server.py:580] message."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    sys.stderr.write("(%s pid=%d) %s %s [%s] %s\n" % (process, os.getpid(), level, stamp, source, message))
    sys.stderr.flush()
