# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Six hosts in three racks behind a gateway, raised from an inventory as an operator writes it; clients ask all the while."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OWN = Path(__file__).resolve().parents[1] / "inventories" / "rollout"
SIMULATED = Path.home() / ".local" / "state" / "vllm_ascend_fleet" / "rollout" / "inventory.yml"
os.environ.setdefault("REHEARSAL_INVENTORY", f"{OWN}:{SIMULATED}")

# After the inventory is known: fleet_operator reads it.
from fleet_operator import play  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def fleet():
    """Every host serves and is behind the gateway."""
    play("playbooks/rehearse.yml", inventory=OWN).succeeded()
    play("playbooks/deploy.yml").succeeded()
    play("playbooks/gateway.yml").succeeded()
