# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts as an inventory of pyinfra."""

import os
from pathlib import Path

STATE = Path(os.environ["STATE"])
WAY = {"ssh_user": "root", "ssh_key": str(STATE / "id_ed25519"), "ssh_known_hosts_file": str(STATE / "known_hosts_bench")}
hosts = [(address, WAY) for address in Path(os.environ["ADDRESSES"]).read_text(encoding="utf-8").split()]
