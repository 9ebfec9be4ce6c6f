# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy on a gateway host: its configuration and its admin socket. This file does I/O; ``gateway`` decides."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import socket
import tempfile
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, gateway, release_host

UNIT = "vllm-ascend-fleet-gateway.service"
UNIT_FILE = "/etc/systemd/system/" + UNIT
CONFIGURATION = "haproxy.cfg"
STATE = "server-state"
# The version of the form of a state file.
NO_STATES = "1\n"
SOCKET_S = 10.0
SHOWN_S = 5.0
CHECK_S = 60.0
CONNECT_S = 3.0


def answer(arguments):
    """Look at, change or configure the gateway of this host.

    :param dict arguments: "act": "look", "set", "apply" or "connect"; for set "servers": [{"host", "instance", "model"}] and "state"; for apply "files":
        {name: text}, "addresses" of hosts and "check"; for connect "servers": [[address, port]]; "socket" and "directory" stand for the usual ones.
    :raises ValueError: with one line for the user.
    """
    return {"look": look, "set": set_state, "apply": apply, "connect": connect}[arguments["act"]](arguments)


def ask(path, command):
    """One command at the admin socket. :returns: its answer as text."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SOCKET_S)
    try:
        connection.connect(path)
        connection.sendall(command.encode("utf-8") + b"\n")
        chunks = []
        while True:
            data = connection.recv(65536)
            if not data:
                break
            chunks.append(data)
    except OSError as error:
        raise ValueError("HAProxy's socket %s does not answer: %s; see: systemctl status %s" % (path, error.strerror or error, UNIT))
    finally:
        connection.close()
    return b"".join(chunks).decode("utf-8", "replace")


def state_of(path):
    """{(backend, server): what HAProxy says of it}."""
    states, stats = gateway.read_states(ask(path, "show servers state")), gateway.read_stats(ask(path, "show stat"))
    return dict((key, dict(states[key], **stats.get(key, {}))) for key in states)


def look(arguments):
    """Everything behind the gateway."""
    path = arguments.get("socket") or gateway.SOCKET
    ports = gateway.read_ports(release_host.read_text(os.path.join(arguments.get("directory") or gateway.DIRECTORY, CONFIGURATION)) or "")
    if not os.path.exists(path):
        return {"servers": [], "running": False, "set_up": os.path.exists(UNIT_FILE), "ports": ports}
    found = state_of(path)
    servers = [dict(entry, backend=backend, name=name) for (backend, name), entry in sorted(found.items())]
    return {"running": True, "set_up": True, "ports": ports, "servers": servers}


def set_state(arguments):
    """Bring servers to a state, and see that they are in it."""
    path, wanted = arguments.get("socket") or gateway.SOCKET, arguments["state"]
    before = state_of(path)
    rows, asked = [], []
    for server in arguments["servers"]:
        key = (gateway.slug(server["model"]), gateway.server_name(server["host"], server["instance"]))
        if key not in before:
            if wanted != "ready":
                # Who is not behind the gateway gets no requests from it.
                continue
            known = sorted(name for backend, name in before if backend == key[0])
            raise ValueError("%s is not behind this gateway; %s has %s; run playbooks/gateway.yml" % (key[1], server["model"], ", ".join(known) or "no server"))
        rows.append(dict(server, name=key[1], before=before[key]["state"]))
        if before[key]["state"] != wanted:
            asked.append(key)
            said = ask(path, "set server %s/%s state %s" % (key[0], key[1], wanted)).strip()
            if said:
                raise ValueError("HAProxy refuses to set %s to %s: %s" % (key[1], wanted, said))
    until = time.monotonic() + SHOWN_S
    after = state_of(path)
    while any(after.get(key, {}).get("state") != wanted for key in asked):
        if time.monotonic() > until:
            late = [key[1] for key in asked if after.get(key, {}).get("state") != wanted]
            raise ValueError("HAProxy says nothing against it, but %s is still %s and not %s" % (late[0], after.get(asked[0], {}).get("state"), wanted))
        time.sleep(0.05)
        after = state_of(path)
    if asked:
        keep_states(path, arguments.get("directory") or gateway.DIRECTORY)
    for row in rows:
        now = after[(gateway.slug(row["model"]), row["name"])]
        row.update(after=now["state"], sessions=now.get("sessions"), requests_total=now.get("requests_total"), check=now.get("check"))
    return {"changed": bool(asked), "servers": rows}


def keep_states(path, directory):
    """Have HAProxy find the states again after a reload, a restart or a power cut."""
    release_host.write_text(os.path.join(directory, STATE), ask(path, "show servers state"), 0o600)


def source(address):
    """The address from which this host reaches another; None when it knows no way there."""
    try:
        family, kind, protocol, dummy, there = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as handle:
            # Of a datagram socket this asks the routes and sends nothing.
            handle.connect(there)
            return handle.getsockname()[0]
    except OSError:
        return None


def connect(arguments):
    """To which servers a connection can be opened. :returns: {"open": [[address, port]]}."""
    def opens(server):
        try:
            socket.create_connection(tuple(server), CONNECT_S).close()
        except OSError:
            return False
        return True
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        return {"open": [server for server, there in zip(arguments["servers"], pool.map(opens, arguments["servers"])) if there]}


def apply(arguments):
    """Bring the configuration to what is wanted; a bad one is refused and the old one stays in force.

    :returns: {"changed", "different": [names of files], "actions", "before": the configuration, "sources": {address of a host: where this one comes from}}.
    """
    directory = arguments.get("directory") or gateway.DIRECTORY
    path, files = arguments.get("socket") or gateway.SOCKET, arguments["files"]
    haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if haproxy is None:
        raise ValueError("HAProxy is not installed; run playbooks/gateway.yml")
    before = dict((name, release_host.read_text(os.path.join(directory, name))) for name in files)
    different = sorted(name for name in files if before[name] != files[name])
    stale = sorted(
        name for name in (os.listdir(directory) if os.path.isdir(directory) else ()) if name not in files and name != STATE and not name.startswith(".")
    )
    before.update((name, release_host.read_text(os.path.join(directory, name))) for name in stale)
    running = container_cli.run(["systemctl", "is-active", "--quiet", UNIT], CHECK_S)["rc"] == 0
    actions = ["write %s" % name for name in different] + ["remove %s" % name for name in stale]
    if actions or not running:
        actions.append("reload the gateway" if running else "start the gateway")
    result = {"changed": bool(actions), "actions": actions, "different": different, "before": before.get(CONFIGURATION),
              "sources": dict((address, source(address)) for address in arguments.get("addresses") or ())}
    if not actions or arguments.get("check"):
        return result
    os.makedirs(directory, mode=0o700, exist_ok=True)
    trial = tempfile.mkdtemp(prefix=".trial-", dir=directory)
    try:
        for name, text in files.items():
            release_host.write_text(os.path.join(trial, name), text.replace(directory + "/", trial + "/"), 0o600)
        if not os.path.exists(os.path.join(trial, STATE)):
            release_host.write_text(os.path.join(trial, STATE), NO_STATES, 0o600)
        verdict = container_cli.run([haproxy, "-c", "-q", "-f", os.path.join(trial, CONFIGURATION)], CHECK_S)
        if verdict["rc"] != 0:
            lines = [line for line in (verdict["stderr"] + verdict["stdout"]).splitlines() if "ALERT" in line] or [container_cli.last_line(verdict["stderr"])]
            raise ValueError("HAProxy refuses the new configuration, so the old one stays in force: %s" % lines[0].replace(trial, directory))
    finally:
        shutil.rmtree(trial)
    if running:
        keep_states(path, directory)
    elif not os.path.exists(os.path.join(directory, STATE)):
        release_host.write_text(os.path.join(directory, STATE), NO_STATES, 0o600)
    for name in different:
        release_host.write_text(os.path.join(directory, name), files[name], 0o600)
    for name in stale:
        release_host.remove_file(os.path.join(directory, name))
    done = container_cli.run(["systemctl", "reload" if running else "start", UNIT], CHECK_S)
    if done["rc"] != 0:
        for name in different + stale:
            if before[name] is None:
                release_host.remove_file(os.path.join(directory, name))
            else:
                release_host.write_text(os.path.join(directory, name), before[name], 0o600)
        back = container_cli.run(["systemctl", "reload" if running else "start", UNIT], CHECK_S)["rc"] == 0 if before.get(CONFIGURATION) else False
        raise ValueError("the gateway did not take the new configuration (%s); %s: journalctl -u %s" % (
            container_cli.last_line(done["stderr"]) or "exit %s" % done["rc"],
            "the old one is back" if back else "the old files are back, but the gateway needs a person", UNIT))
    return result
