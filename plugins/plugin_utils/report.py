# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a run, as files on the controller."""

from __future__ import annotations

import json
import os

from ansible.utils.display import Display


def save(directory, name, content):
    """Write one JSON file of the run. A report that cannot be written warns and never changes the outcome of a run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f".{name}"
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, directory / name)
    except OSError as error:
        Display().warning(f"the report {directory / name} was not written: {error}")
