# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one command costs: wall time, CPU and memory of its whole process tree, and what else the machine did meanwhile."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
TICK = os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """Make this process the parent of whatever its commands leave behind, such as ControlPersist's masters, so that they are counted and ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parents():
    """{pid: parent's pid} of the whole machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    found[int(name)] = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    return found


def descendants(of, leave_out=()):
    """Every process below one, but for those below any of ``leave_out``."""
    children = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [of]
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in leave_out:
                found.append(pid)
                queue.append(pid)
    return found


def memory_kib(pids):
    """Memory that these processes use together; pages that they share count once."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as stream:
                total += next(int(line.split()[1]) for line in stream if line.startswith(b"Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def busy_s():
    """CPU seconds that this machine has worked since its start."""
    with open("/proc/stat", encoding="ascii") as stream:
        user, nice, system, _idle, _wait, irq, soft = [int(word) for word in stream.readline().split()[1:8]]
    return (user + nice + system + irq + soft) / TICK


def children_s():
    """CPU seconds of every child that has ended and was waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue


def _reap(leave_out):
    """End and count whatever is left of a command; a child that ended in time counts as well."""
    deadline = time.monotonic() + 5
    while True:
        left = descendants(os.getpid(), leave_out)
        if not left:
            return
        _end(left)
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                # A grandchild: ours as soon as its parent has ended.
                continue
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def command(argv, leave_out=(), node_s=lambda: 0.0, **options):
    """Run one command.

    :param leave_out: children of ours that are no part of it. :param node_s: the CPU clock of the hosts that it talks to.
    :returns: {"rc", "output", "wall_s", "cpu_s", "node_cpu_s", "memory_mib", "other_cpu_share"}.
    """
    peak, over = [0], threading.Event()
    before, node_before, machine_before, started = children_s(), node_s(), busy_s(), time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)

    def watch():
        while not over.wait(0.25):
            peak[0] = max(peak[0], memory_kib(descendants(os.getpid(), leave_out)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    output = []
    # What it leaves behind may hold its output open: the end of the command counts, not that of the pipe.
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()), daemon=True)
    reader.start()
    rc = process.wait()
    wall = time.monotonic() - started
    node, machine = node_s() - node_before, busy_s() - machine_before
    over.set()
    watcher.join()
    _reap(leave_out)
    reader.join(10)
    cpu = children_s() - before
    other = max(0.0, machine - cpu - node) / (wall * (os.cpu_count() or 1))
    return {"rc": rc, "output": "".join(output), "wall_s": wall, "cpu_s": cpu, "node_cpu_s": node, "memory_mib": peak[0] / 1024, "other_cpu_share": other}
