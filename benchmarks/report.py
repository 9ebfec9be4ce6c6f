#!/usr/bin/env python3
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the report of a run of many hosts takes: `python benchmarks/report.py [hosts]`, 500 by default with four instances each."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))

import synthetic_run  # noqa: E402  (after the path)
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report, workspace  # noqa: E402

if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    files, surveys = synthetic_run.deploy(count)
    workspace.load = lambda name, default=None: surveys
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "20260922-120000-1"
        synthetic_run.put(run, files)
        started = time.monotonic()
        report.conclude(run)
        took = time.monotonic() - started
        print("%d hosts, %d instances: %.1f s; %s" % (count, 4 * count, took, ", ".join(
            "%s %.0f KiB" % (name, (run / name).stat().st_size / 1024) for name in ("index.html", "report.json", "report.md", "junit.xml"))))
