# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small SSH hosts behind one port: every address of 127.0.0.0/8 may be one of its own."""

from __future__ import annotations

import base64
import logging
import select
import socket
import subprocess
import threading
import time

import paramiko

LOG = "ssh_stub"
# A shell that is this machine's, with both streams, its exit status, and what it asks answered while it runs.
LIVE = "live"
logging.getLogger(LOG).addHandler(logging.NullHandler())
logging.getLogger(LOG).propagate = False


class Fleet:
    """behaviour: {address: {"users": {name: [key]}, "password", "shell": callable(command, given) -> bytes, or LIVE, "mute", "greeting", "close",
    "host_key", "also": whether a key is not enough, "thinks": seconds before a login is answered}}; addresses that are not named get default."""

    def __init__(self, default):
        self.default, self.behaviour, self.logins, self.commands = dict(default), {}, [], []
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def of(self, address):
        return dict(self.default, **self.behaviour.get(address, {}))

    def close(self):
        # Wakes the thread in accept(), which would else take a connection from whoever gets the descriptor next.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def _serve(self):
        while True:
            try:
                connection, _peer = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection):
        try:
            self._talk(connection)
        except OSError:
            connection.close()   # the prober left first, as it may

    def _talk(self, connection):
        address = connection.getsockname()[0]
        how = self.of(address)
        if how.get("greeting"):
            connection.sendall(how["greeting"])
        if how.get("greeting") or how.get("mute") or how.get("close"):
            if not how.get("close"):
                select.select([connection], [], [], 30)
            connection.close()
            return
        transport = paramiko.Transport(connection)
        transport.daemon = True
        transport.set_log_channel(LOG)
        transport.add_server_key(how["host_key"])
        try:
            transport.start_server(server=_Host(self, address, how))
        except (paramiko.SSHException, EOFError, OSError):
            transport.close()


class _Host(paramiko.ServerInterface):
    def __init__(self, fleet, address, how):
        self.fleet, self.address, self.how = fleet, address, how

    def get_allowed_auths(self, username):
        return ",".join((["publickey"] if self.how.get("users") else []) + (["password"] if self.how.get("password") else [])) or "publickey"

    def check_auth_none(self, username):
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        self.fleet.logins.append((self.address, username, "key"))
        time.sleep(self.how.get("thinks", 0))
        if key.asbytes() in [known.asbytes() for known in self.how.get("users", {}).get(username, ())]:
            return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.how.get("also") else paramiko.AUTH_SUCCESSFUL
        return paramiko.AUTH_FAILED

    def check_auth_password(self, username, password):
        self.fleet.logins.append((self.address, username, "password"))
        return paramiko.AUTH_SUCCESSFUL if password == self.how.get("password") else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._answer, args=(channel, command.decode("utf-8")), daemon=True).start()
        return True

    def _answer(self, channel, command):
        try:
            self._run(channel, command)
        except OSError:
            channel.close()   # whoever asked has left

    def _run(self, channel, command):
        if self.how["shell"] == LIVE:
            self.fleet.commands.append(command)
            run_live(channel, command)
            return
        given = b""
        while True:
            data = channel.recv(4096)
            if not data:
                break
            given += data
        self.fleet.commands.append(command)
        channel.sendall(self.how["shell"](command, given))
        channel.send_exit_status(0)
        channel.close()


def run_here(command, given):
    """A host that is this machine."""
    return subprocess.run(["/bin/sh", "-c", command], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


def run_live(channel, command):
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def feed():
        try:
            for data in iter(lambda: channel.recv(65536), b""):
                process.stdin.write(data)
                process.stdin.flush()
            process.stdin.close()
        except OSError:
            pass   # It wanted no more; what it says ends by itself.

    def complain():
        for data in iter(lambda: process.stderr.read1(65536), b""):
            channel.sendall_stderr(data)

    pumps = [threading.Thread(target=pump, daemon=True) for pump in (feed, complain)]
    for pump in pumps:
        pump.start()
    try:
        for data in iter(lambda: process.stdout.read1(65536), b""):
            channel.sendall(data)
        channel.send_exit_status(process.wait())
        pumps[1].join()
    finally:
        process.kill()
        channel.close()


def known_hosts_line(names, key):
    return "%s %s %s\n" % (names, key.get_name(), base64.b64encode(key.asbytes()).decode("ascii"))
