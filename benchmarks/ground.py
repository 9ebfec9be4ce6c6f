# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark stands on: one simulated host with as many addresses as are wanted, near or far away."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = Path(sys.executable).parent
FLEET = "bench"
CONTAINER = FLEET + "-a2-1"
INVENTORY = HERE / "inventory"
STATE = Path.home() / ".local" / "state" / "vllm_ascend_fleet" / FLEET
WORK = ROOT / ".cache" / "bench"
# All of these are the host; the first is its end of the long way.
ADDRESSES = ipaddress.ip_network("10.238.0.0/16")
NODE, FAR_HERE = "172.31.238.11", "10.237.0.1"
CURSOR = "/run/bench.cursor"


class GroundError(Exception):
    """The benchmark cannot stand; one line with the remedy."""


def call(*argv, given=b"", **options):
    """A command that has to work. :returns: what it printed."""
    done = subprocess.run([str(part) for part in argv], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise GroundError(f"{' '.join(str(part) for part in argv[:4])} ended with {done.returncode}:\n{said[-1500:]}")
    return said


def environment():
    """Of Ansible's runs, ours and those that raise the fleet."""
    return dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8")


def playbook(name, *more):
    """Run a playbook of the checkout on the benchmark's own host."""
    return call(BIN / "ansible-playbook", name, "-i", INVENTORY, *more, cwd=ROOT, env=environment())


def raise_fleet():
    """The simulated host with its instances; quick when it is there."""
    playbook("playbooks/rehearse.yml")
    playbook("deploy_gemma4.yml")
    call("docker", "exec", CONTAINER, "sh", "-c", "echo 'LogLevel VERBOSE' > /etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh && "
         f"ip route replace local {ADDRESSES} dev lo")
    pid = call("docker", "inspect", "--format", "{{.State.Pid}}", CONTAINER).strip()
    call("ip", "route", "replace", ADDRESSES, "via", NODE)
    return pid


def leave():
    """Take back what raise_fleet changed on this machine; the fleet stays for the next run."""
    subprocess.run(["ip", "route", "del", str(ADDRESSES)], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def far(pid, round_trip_ms):
    """The way to all addresses takes that long. :returns: the pid of what carries the packets, or None."""
    if not round_trip_ms:
        yield None
        return
    carrier = subprocess.Popen([sys.executable, HERE / "delay.py", pid, str(round_trip_ms / 2)], stdout=subprocess.PIPE, text=True)
    try:
        if carrier.stdout.readline().strip() != "ready":
            raise GroundError(f"no tun device for a round-trip time of {round_trip_ms} ms: is /dev/net/tun there?")
        call("ip", "addr", "add", f"{FAR_HERE}/32", "dev", "fleet-far")
        call("ip", "link", "set", "fleet-far", "up", "txqueuelen", "10000")
        within = ["nsenter", "-t", pid, "-n"]
        call(*within, "ip", "link", "set", "fleet-far", "up", "txqueuelen", "10000")
        call(*within, "ip", "route", "add", f"{FAR_HERE}/32", "dev", "fleet-far")
        call("ip", "route", "replace", ADDRESSES, "dev", "fleet-far", "src", FAR_HERE)
        yield carrier.pid
    finally:
        carrier.terminate()
        carrier.wait()
        call("ip", "route", "replace", ADDRESSES, "via", NODE)


def names(count):
    """{host: address}."""
    first = int(ADDRESSES.network_address) + 257
    return {"npu-%03d" % (number + 1): str(ipaddress.ip_address(first + number)) for number in range(count)}


def _variables():
    """Those of the one host, with their values in place of expressions, as an operator writes them."""
    names_of = json.loads(call(BIN / "ansible-inventory", "-i", INVENTORY, "--host", "a2-1", cwd=ROOT, env=environment()))
    wanted = ", ".join(f"'{name}': {name}" for name in names_of if name not in ("ansible_host", "checkout"))
    said = call(BIN / "ansible", "a2-1", "-i", INVENTORY, "-m", "ansible.builtin.debug", "-a", "msg={{ {%s} }}" % wanted, cwd=ROOT, env=environment())
    return json.loads(said.partition("=>")[2])["msg"]


@functools.lru_cache(maxsize=None)
def inventory(count):
    """An inventory folder of so many hosts, each with an address and a known host key. :returns: its path."""
    folder = WORK / ("hosts-%d" % count)
    # It holds a password, if only a rehearsed one.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    hosts = names(count)
    key = " ".join((STATE / "known_hosts").read_text(encoding="utf-8").split("\n")[0].split()[1:3])
    (STATE / "known_hosts_bench").write_text("".join(f"{address} {key}\n" for address in hosts.values()), encoding="utf-8")
    entries = {name: {"ansible_host": address} for name, address in hosts.items()}
    # JSON is YAML as well, and quicker to read.
    made = {"all": {"vars": _variables(), "children": {"npu_nodes": {"children": {"atlas_800_a2": {"hosts": entries}}}}}}
    (folder / "hosts.yml").write_text(json.dumps(made), encoding="utf-8")
    (folder / "addresses").write_text("".join(address + "\n" for address in hosts.values()), encoding="utf-8")
    return folder


def clock(pid):
    """The file in which the kernel counts a container's CPU time, and nanoseconds or microseconds of its unit in a second."""
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").split("\n") if line)
    for names, group in groups.items():
        if "cpuacct" in names.split(","):
            return Path("/sys/fs/cgroup/cpuacct") / group.removesuffix("/init.scope").strip("/") / "cpuacct.usage", 1e9
    return Path("/sys/fs/cgroup") / groups[""].removesuffix("/init.scope").strip("/") / "cpu.stat", 1e6


def node_s(pid):
    """CPU seconds that the host has used since its start, its engines included."""
    path, unit = clock(pid)
    return int(path.read_text(encoding="ascii").split("\n")[0].split()[-1]) / unit


def idle_share(pid, seconds=3.0):
    """CPU seconds per second that the host uses by itself."""
    before = node_s(pid)
    time.sleep(seconds)
    return (node_s(pid) - before) / seconds


def mark():
    """From now on ``asked`` counts."""
    call("docker", "exec", CONTAINER, "sh", "-c", f"rm -f {CURSOR}; journalctl --unit=ssh --cursor-file={CURSOR} --lines=0")


def asked():
    """(connections, commands and file transfers) that sshd has seen since ``mark``."""
    text = call("docker", "exec", CONTAINER, "journalctl", "--unit=ssh", f"--cursor-file={CURSOR}", "--output=cat", "--quiet")
    return text.count("Accepted publickey"), text.count("Starting session")
