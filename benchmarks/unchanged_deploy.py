#!/usr/bin/env python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an unchanged deploy costs: round trips per host, wall time, and the same looks by parallel OpenSSH beside it.

Needs the rehearsal fleet with the four models deployed (`make demo`). Prints a table; `--markdown` for docs/performance.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INVENTORY = "inventories/rehearsal"

# What an unchanged deploy asks of a host, as one shell script: the practical floor.
LOOKS = """
npu-smi info >/dev/null
cat /usr/local/Ascend/driver/version.info /usr/local/Ascend/firmware/version.info /etc/ascend_install.info /etc/os-release >/dev/null
docker images --digests --quiet >/dev/null
for unit in /etc/systemd/system/vllm-ascend-*.service; do
  sha256sum "$unit" /var/lib/vllm-ascend-fleet/instances/*/current/environment >/dev/null
  systemctl show --property=ActiveState,UnitFileState,NRestarts "$(basename "$unit")" >/dev/null
done
for port in 8000 8001 8002 8003; do
  python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v1/models').read()" 2>/dev/null
done
true
"""


def hosts():
    """{host: its OpenSSH command line} of the rehearsal inventory."""
    inventory = json.loads(subprocess.run(
        [BIN / "ansible-inventory", "-i", INVENTORY, "--list"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    state = Path.home() / ".local" / "state" / "vllm_ascend_fleet" / "rehearsal"
    options = ["-o", "BatchMode=yes", "-o", "ControlMaster=no", "-i", state / "id_ed25519", "-o", f"UserKnownHostsFile={state / 'known_hosts'}"]
    return {name: ["ssh", *options, f"root@{variables['ansible_host']}"] for name, variables in inventory["_meta"]["hostvars"].items()}


def deploy():
    """(wall seconds, {host: round trips}, changed) of one deploy; each SSH execution of Ansible is one round trip."""
    started = time.monotonic()
    # New connections, as for a first run of the day.
    environment = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", ANSIBLE_NOCOLOR="1", ANSIBLE_SSH_ARGS="-o ControlMaster=auto -o ControlPersist=5s")
    done = subprocess.run([BIN / "ansible-playbook", "deploy_gemma4.yml", "-i", INVENTORY, "-vvv"], cwd=ROOT, env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    elapsed = time.monotonic() - started
    if done.returncode:
        sys.exit(f"the deploy failed; run `make demo` first:\n{done.stdout[-2000:]}")
    changed = sum(int(count) for count in re.findall(r"changed=(\d+)", done.stdout))
    return elapsed, collections.Counter(re.findall(r"^<(\S+)> SSH: EXEC", done.stdout, re.MULTILINE)), changed


def floor(commands):
    """Wall seconds of the same looks by one OpenSSH for each host, all at once."""
    started = time.monotonic()
    running = [subprocess.Popen([*command, LOOKS], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands.values()]
    for name, process in zip(commands, running):
        complaint = process.communicate()[1]
        if process.returncode:
            sys.exit(f"{name}: {complaint.decode()}")
    return time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    commands, walls, floors, trips = hosts(), [], [], collections.Counter()
    deploy()
    for _run in range(arguments.runs):
        elapsed, trips, changed = deploy()
        if changed:
            sys.exit(f"{changed} changes: this is not an unchanged deploy")
        walls.append(elapsed)
        floors.append(floor(commands))
    rows = [("what", "median", "spread")]
    rows.append((f"deploy_gemma4.yml, {len(commands)} hosts, unchanged, s", f"{statistics.median(walls):.2f}", f"{min(walls):.2f} .. {max(walls):.2f}"))
    rows.append((f"the same looks by parallel OpenSSH, {len(commands)} hosts, s", f"{statistics.median(floors):.2f}", f"{min(floors):.2f} .. {max(floors):.2f}"))
    rows.append(("ratio", f"{statistics.median(w / f for w, f in zip(walls, floors)):.2f}", ""))
    for address, count in sorted(trips.items()):
        rows.append((f"round trips to {address}", str(count), ""))
    for row in rows:
        print("| " + " | ".join(row) + " |" if arguments.markdown else "{:60} {:>8}  {}".format(*row))
        if arguments.markdown and row is rows[0]:
            print("|---|---|---|")


if __name__ == "__main__":
    main()
