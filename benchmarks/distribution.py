#!/usr/bin/env python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image over a WAN to every host through the fleet's registry, against the bound bytes/WAN + bytes/LAN.

`python benchmarks/distribution.py --hosts 8 --megabytes 500` needs this machine as the rehearsal fleet does (root, Docker). It raises a fleet of its own;
the upstream registry sends at --wan, the fleet's registry at --lan Mbit/s, both by `tc tbf`. Bytes are random, so that nothing compresses. What each step
took is printed as JSON; the fleet goes away again, unless --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME, NET = "dist", "172.31.235"
IMAGE = "vllm-ascend-fleet/bench-random:v1"
LAYERS = 4


def call(*words, **options):
    """Run a command. :raises SystemExit: with its last words when it fails."""
    done = subprocess.run([str(word) for word in words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, check=False, **options)
    if done.returncode:
        sys.exit("\n".join(done.stdout.splitlines()[-15:]) + f"\n{' '.join(map(str, words))}: exit {done.returncode}")
    return done.stdout


def image(folder, megabytes):
    """An image of random bytes in some layers, as real ones have."""
    lines = ["FROM scratch"]
    for number in range(LAYERS):
        with open(folder / f"layer{number}", "wb") as stream:
            for _each in range(megabytes // LAYERS):
                stream.write(os.urandom(1_000_000))
        lines.append(f"COPY layer{number} /")
    (folder / "Dockerfile").write_text("\n".join([*lines, 'CMD ["/none"]', ""]), encoding="utf-8")
    call("docker", "build", "--quiet", "--tag", IMAGE, folder)


def inventory(folder, hosts):
    """The fleet as an operator would write it. :returns: the file."""
    state = pathlib.Path.home() / ".local/state/vllm_ascend_fleet" / NAME
    content = {"all": {
        "vars": {
            "rehearsal_fleet_name": NAME, "rehearsal_fleet_subnet": f"{NET}.0/24", "rehearsal_fleet_state_directory": str(state),
            "rehearsal_fleet_registries": [{"name": "registry.rehearsal", "kind": "fleet", "port": 5000}, {"name": "quay.io", "kind": "upstream", "port": 443}],
            "rehearsal_fleet_engine_build": ["echo", '{"changed": false}'],
            "rehearsal_fleet_engine_images": [{"tag": IMAGE, "name": "bench/random:v1"}],
            "fleet_name": NAME, "fleet_registry": {"address": f"{NET}.80:5000", "username": "fleet"}, "fleet_registry_password": "bench-password",
            "fleet_instances": [], "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": f"{state}/id_ed25519",
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={state}/known_hosts -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
        },
        "children": {
            "npu_nodes": {"children": {"atlas_800_a2": {"hosts": {f"a2-{n}": {"ansible_host": f"{NET}.{10 + n}"} for n in range(1, hosts + 1)}}}},
            "registries": {"hosts": {"hub-1": {"ansible_host": f"{NET}.80"}}},
        }}}
    path = folder / "hosts.yml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def throttle(container, megabits):
    """What the container sends leaves at this rate."""
    call("docker", "exec", container, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{megabits}mbit", "burst", "1mb", "latency", "100ms")


def sent(container):
    """Bytes that left a container so far."""
    return int(call("docker", "exec", container, "cat", "/sys/class/net/eth0/statistics/tx_bytes"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--wan", type=int, default=50, help="Mbit/s")
    parser.add_argument("--lan", type=int, default=1000, help="Mbit/s")
    parser.add_argument("--keep", action="store_true", help="leave the fleet up")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="distribution-"))
    hosts = inventory(folder, arguments.hosts)
    try:
        image(folder, arguments.megabytes)
        call("ansible-playbook", "playbooks/rehearse.yml", "-i", hosts)
        call("ansible-playbook", "benchmarks/distribution.yml", "-i", hosts, "--tags", "ready")
        upstream, hub = f"{NAME}-registry", f"{NAME}-hub-1"
        throttle(upstream, arguments.wan)
        throttle(hub, arguments.lan)
        before, took = {each: sent(each) for each in (upstream, hub)}, {}
        for step in ("wan", "lan"):
            started = time.monotonic()
            call("ansible-playbook", "benchmarks/distribution.yml", "-i", hosts, "--tags", step, "--forks", arguments.hosts)
            took[step] = round(time.monotonic() - started, 1)
        moved = {each: round((sent(each) - before[each]) / 1e6, 1) for each in (upstream, hub)}
        bits = arguments.megabytes * 8
        print(json.dumps({
            "hosts": arguments.hosts, "megabytes": arguments.megabytes, "wan_mbit": arguments.wan, "lan_mbit": arguments.lan,
            "wan_s": took["wan"], "lan_s": took["lan"], "whole_s": round(sum(took.values()), 1),
            "bound_s": round(bits / arguments.wan + bits / arguments.lan, 1),
            "each_host_alone_s": round(arguments.hosts * bits / arguments.wan, 1),
            "sent_over_wan_mb": moved[upstream], "sent_over_lan_mb": moved[hub], "load": os.getloadavg()[0], "cores": os.cpu_count(),
        }, indent=1))
    finally:
        if not arguments.keep:
            subprocess.run(["ansible-playbook", "playbooks/rehearse_clean.yml", "-i", str(hosts)], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            subprocess.run(["docker", "rmi", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
