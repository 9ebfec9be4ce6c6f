# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process tree of vLLM: an engine core per data-parallel rank, a worker per chip when there is more than one."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def set_title(title):
    """What setproctitle does: the name in /proc/self/comm and the argument area behind /proc/self/cmdline."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    with open("/proc/self/stat", encoding="utf-8") as handle:
        fields = handle.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if end > start:
        ctypes.memmove(start, title.encode()[:end - start - 1].ljust(end - start, b"\0"), end - start)


def _become(title, parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    set_title(title)


def _worker(title, parent):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _become(title, parent)
    while True:
        signal.pause()


def _core(title, parent, workers, drains):
    # With a shutdown timeout the core finishes its requests first; the API server ends it when they are done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if drains else signal.SIG_DFL)
    _become(title, parent)
    mine = os.getpid()
    for name in workers:
        if os.fork() == 0:
            _worker(name, mine)
    while True:
        if workers:
            os.wait()
            os._exit(1)
        signal.pause()


def start(engines, chips, expert_parallel, drains, first=0, several=False):
    """Fork the engine cores; call before any thread exists. first: their rank, when several are in all. Returns the list of their pids."""
    mine, cores = os.getpid(), []
    for rank in range(first, first + engines):
        prefix = "_DP%d" % rank if engines > 1 or several else ""
        workers = ["VLLM::Worker%s_TP%d%s" % (prefix, chip, "_EP%d" % chip if expert_parallel else "") for chip in range(chips)]
        pid = os.fork()
        if pid == 0:
            _core("VLLM::EngineCore" + prefix, mine, workers if chips > 1 else [], drains)
        cores.append(pid)
    return cores


def dead(cores):
    """Pids of cores that have ended (each is told once)."""
    ended = []
    for pid in cores:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                ended.append(pid)
        except ChildProcessError:
            ended.append(pid)
    return ended


def stop(cores):
    """End the cores; their workers follow them."""
    for pid in cores:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue
