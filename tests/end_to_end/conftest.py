# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rehearsal fleet for the whole session, or that of the inventory which a file names; the tests run in the order of the file, as an operator's day would."""

from __future__ import annotations

import pytest
from fleet_operator import INVENTORY, on, play

UP = set()


@pytest.fixture(scope="module", autouse=True)
def fleet(request):
    """Bring the fleet of the file's inventory up, if it is not."""
    inventory = getattr(request.module, "INVENTORY", INVENTORY)
    if inventory not in UP:
        play("playbooks/rehearse.yml", inventory=inventory).succeeded()
        UP.add(inventory)


@pytest.fixture
def fault():
    """Pull a lever on a node; every lever is let go afterwards."""
    pulled = []

    def pull(host, name, value=""):
        pulled.append((host, name))
        on(host, f"printf %s '{value}' > /etc/rehearsal/faults/{name}")

    yield pull
    for host, name in pulled:
        on(host, f"rm -f /etc/rehearsal/faults/{name}")
