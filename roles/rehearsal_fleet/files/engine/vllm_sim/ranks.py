# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data-parallel ranks on several hosts: headless servers join the head over TCP, and one that leaves takes the others with it."""

from __future__ import annotations

import json
import socket
import threading
import time

# vLLM: HANDSHAKE_TIMEOUT_MINS.
HANDSHAKE_S = 300.0
RETRY_S = 0.2


def remote(args):
    """How many ranks are on other hosts than the head's."""
    return args.data_parallel_size - (args.data_parallel_size_local or args.data_parallel_size)


class Head:
    """What the server with the API knows of the ranks elsewhere. Make it when the engine cores have been forked."""

    def __init__(self, args):
        self.args, self.ready, self.lost, self.refused = args, {}, threading.Event(), None
        self.complete = threading.Event()
        self.socket = socket.create_server((args.data_parallel_address, args.data_parallel_rpc_port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection = self.socket.accept()[0]
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection):
        """One headless server: it says who it is, says when it is ready, and then is quiet until it ends."""
        ranks = ()
        try:
            with connection, connection.makefile("r", encoding="utf-8") as lines:
                for text in lines:
                    said = json.loads(text)
                    if said["data_parallel_size"] != self.args.data_parallel_size:
                        self.refused = "data_parallel_size %s of rank %s is not %s" % (
                            said["data_parallel_size"], said["start_rank"], self.args.data_parallel_size)
                    elif said["ready"]:
                        ranks = range(said["start_rank"], said["start_rank"] + said["local"])
                        self.ready.update((rank, True) for rank in ranks)
                        if len(self.ready) == remote(self.args):
                            self.complete.set()
        except OSError:
            # Its host went away without a word; what follows is the same.
            pass
        if self.complete.is_set() and ranks:
            self.lost.set()
        for rank in ranks:
            self.ready.pop(rank, None)

    def wait(self, seconds):
        """Until every rank has joined. Raises what vLLM raises."""
        until = time.monotonic() + seconds
        while not self.complete.wait(0.05):
            if self.refused:
                raise RuntimeError("Configuration mismatch detected for engine: " + self.refused)
            if time.monotonic() >= until:
                raise TimeoutError("Timed out waiting for engine core processes to start: %d of %d remote ranks have joined. Waited %ds (configured by "
                                   "VLLM_ENGINE_READY_TIMEOUT_S)." % (len(self.ready), remote(self.args), seconds))


class Member:
    """A headless server's line to its head."""

    def __init__(self, args):
        self.args, self.lost = args, threading.Event()
        until = time.monotonic() + HANDSHAKE_S
        while True:
            try:
                self.socket = socket.create_connection((args.data_parallel_address, args.data_parallel_rpc_port), timeout=5)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise RuntimeError("Did not receive response from front-end process within %d minutes" % (HANDSHAKE_S / 60))
                time.sleep(RETRY_S)
        self.socket.settimeout(None)
        self._say(False)
        threading.Thread(target=self._listen, daemon=True).start()

    def _say(self, ready):
        said = {"start_rank": self.args.data_parallel_start_rank or 0, "local": self.args.data_parallel_size_local,
                "data_parallel_size": self.args.data_parallel_size, "ready": ready}
        self.socket.sendall((json.dumps(said) + "\n").encode())

    def _listen(self):
        try:
            self.socket.recv(1)
        except OSError:
            # The line is cut, which is what there is to learn.
            pass
        self.lost.set()

    def ready(self):
        """Tell the head that these ranks have loaded."""
        self._say(True)
