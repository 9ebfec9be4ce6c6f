# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Levers: one file per fault in the driver's folder, which every container mounts; looked at when the fault could happen.

``<lever>.<served model name>`` beats ``<lever>``; the file's content is the lever's parameter.
"""

from __future__ import annotations

import os

from . import settings


def lever(name, model):
    """The parameter of a lever as text (empty for a bare one), or None while it is not pulled."""
    for candidate in ("%s.%s" % (name, model), name):
        try:
            with open(os.path.join(settings.FAULTS, candidate), encoding="utf-8") as handle:
                return handle.read().strip()
        except FileNotFoundError:
            continue
    return None


def seconds(name, model, default=None):
    """The parameter of a lever as seconds; a lever without a readable number gives the default."""
    text = lever(name, model)
    try:
        return default if text is None else float(text)
    except ValueError:
        return default
