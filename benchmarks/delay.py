#!/usr/bin/env python3
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A long way between this machine and a container: `delay.py <pid in the container> <one way ms>` until it is told to end.

Packets pass two tun devices, one on each side, and wait in between, so every program on top meets the same round-trip time. `tc netem`
would do, but many kernels of virtual machines have none.
"""

from __future__ import annotations

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
NAME = "fleet-far"


def tun():
    """A new tun device of the network namespace that this process is in."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22s", NAME.encode(), IFF_TUN | IFF_NO_PI, b""))
    return device


def carry(ends, delay_s):
    """Carry packets both ways, each after its time."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting = collections.deque()
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 3600.0
        for end in select.select(ends, [], [], left)[0]:
            try:
                while True:
                    waiting.append((time.monotonic() + delay_s, other[end], os.read(end, 65536)))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _due, end, packet = waiting.popleft()
            try:
                os.write(end, packet)
            except OSError:
                # A full queue or a device without an address loses a packet, as a router would.
                pass


def main():
    pid, one_way_ms = sys.argv[1], float(sys.argv[2])
    here = tun()
    with open(f"/proc/{pid}/ns/net", "rb") as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
            sys.exit(f"the network of process {pid} cannot be entered: {os.strerror(ctypes.get_errno())}")
    ends = [here, tun()]
    print("ready", flush=True)
    carry(ends, one_way_ms / 1000)


if __name__ == "__main__":
    main()
