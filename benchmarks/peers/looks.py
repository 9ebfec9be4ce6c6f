# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same looks as a deploy of pyinfra."""

import os

from pyinfra import host
from pyinfra.facts.files import FileContents, Sha256File
from pyinfra.facts.server import Command
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

host.get_fact(Command, command="npu-smi info")
for path in ("/usr/local/Ascend/driver/version.info", "/usr/local/Ascend/firmware/version.info", "/etc/ascend_install.info", "/etc/os-release"):
    host.get_fact(FileContents, path=path)
host.get_fact(Command, command="docker images --digests")
for name in ("gemma-4-e2b-it", "gemma-4-e4b-it"):
    host.get_fact(Sha256File, path=f"/etc/systemd/system/vllm-ascend-{name}.service")
    host.get_fact(Sha256File, path=f"/var/lib/vllm-ascend-fleet/instances/{name}/current/environment")
UNITS = ["vllm-ascend-gemma-4-e2b-it.service", "vllm-ascend-gemma-4-e4b-it.service"]
host.get_fact(SystemdStatus, services=UNITS)
host.get_fact(SystemdEnabled, services=UNITS)
for port in (8000, 8001) if os.environ["ANSWERS"] == "1" else ():
    host.get_fact(Command, command=f"curl -sSf http://127.0.0.1:{port}/v1/models")
