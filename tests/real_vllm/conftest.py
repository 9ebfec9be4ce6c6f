# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One simulated host whose engine is the real vLLM on a CPU, deployed by the very same playbooks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("REHEARSAL_INVENTORY", str(Path(__file__).resolve().parent / "inventory"))

# After the inventory is known: fleet_operator reads it.
from fleet_operator import play  # noqa: E402
from real_engine import bring_models  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def deployed():
    """The first deploy on an empty host."""
    play("playbooks/rehearse.yml").succeeded()
    bring_models()
    play("playbooks/remove.yml").succeeded()
    return play("playbooks/deploy.yml").succeeded()
