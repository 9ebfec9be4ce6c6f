# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's gateway: which model has which port, which servers stand behind it, and what HAProxy says of them. Pure."""

from __future__ import annotations

import hashlib
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

# name -> (types, default): the keys of fleet_gateway; docs/gateway.md explains each.
SETTINGS = {
    "first_port": ((int,), 9000),
    "models": ((dict,), {}),
    "certificate": ((str, type(None)), None),
    "address": ((str, type(None)), None),
    "interface": ((str, type(None)), None),
    "router_id": ((int,), 51),
    "idle_timeout_s": ((int,), 600),
    "max_connections": ((int,), 4000),
    "check_interval_s": ((int, float), 5),
}
DIRECTORY = "/etc/vllm-ascend-fleet-gateway"
SOCKET = "/run/vllm-ascend-fleet-gateway/admin.sock"
STATES = ("ready", "drain", "maint")


def settings(given):
    """The settings of the gateways with defaults filled. :returns: (settings, [one-line problem])."""
    problems, result = [], {}
    for name in sorted(given):
        if name not in SETTINGS:
            problems.append("fleet_gateway: unknown key '%s'%s" % (name, did_you_mean(name, SETTINGS)))
    for name, (types, default) in SETTINGS.items():
        value = given.get(name, default)
        if not isinstance(value, types) or isinstance(value, bool):
            problems.append("fleet_gateway: %s must be %s, not %r" % (name, " or ".join(t.__name__ for t in types), value))
            value = default
        result[name] = value
    for model, entry in result["models"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("port"), int) or set(entry) != set(["port"]):
            problems.append("fleet_gateway: models: %s must be {port: <number>}, not %r" % (model, entry))
    if result["address"] and not result["interface"]:
        problems.append("fleet_gateway: address is the gateways' common address and needs interface, the network interface that carries it")
    return result, problems


def server_name(host, instance):
    """Name of an instance at the gateways."""
    return "%s.%s" % (host, instance)


def slug(model):
    """A model's name as HAProxy takes it for a proxy."""
    return "model-" + re.sub(r"[^A-Za-z0-9._-]", "_", model)


def ports(models, chosen, kept):
    """{served model name: port}: those that the settings name, then those that are in force, the others counted from first_port in the order of their names.

    :param models: served model names. :param dict chosen: of :func:`settings`.
    :param dict kept: of :func:`read_ports`; an address that clients know does not move because another model came or went.
    """
    named = dict((model, entry["port"]) for model, entry in chosen["models"].items())
    result = dict((model, named[model]) for model in models if model in named)
    for model in sorted(models):
        port = kept.get(slug(model))
        if model not in result and port is not None and port not in named.values() and port not in result.values():
            result[model] = port
    following = chosen["first_port"]
    for model in sorted(models):
        if model not in result:
            while following in named.values() or following in result.values():
                following += 1
            result[model] = following
    return result


def read_ports(text):
    """The ports in a configuration of ours. {slug: port}."""
    return dict((name, int(port)) for name, port in re.findall(r"^frontend (\S+)\n +bind :(\d+)", text, re.MULTILINE))


def servers(plan, surveys, proof, addresses, present):
    """Who stands behind which model.

    A server begins to get requests the moment it is named, so one that is not proven is named only where it is named already.

    :param dict plan: of this run. :param dict surveys: and what was found. :param dict proof: {host: {instance: {"ready"}}}, the latest of each.
    :param dict addresses: {host: address}. :param present: names of servers that the gateways have.
    :returns: {served model name: [{"host", "instance", "name", "address", "port"}]}; a group stands there once, with its head.
    """
    wanted = {}
    for host, entry in plan["hosts"].items():
        # What the run was not about stays as it is: then the survey knows, not the plan.
        for instance in entry["instances"]:
            wanted[(host, instance["name"])] = instance
    for host, survey in surveys.items():
        for name, found in ((survey or {}).get("instances") or {}).items():
            if (found.get("manifest") or {}).get("port"):
                wanted.setdefault((host, name), dict(found["manifest"], name=name))
    found = {}
    for (host, name), instance in sorted(wanted.items()):
        if spanning.is_member(instance):
            continue
        called = server_name(host, name)
        if ((proof.get(host) or {}).get(name) or {}).get("ready") or called in present:
            found.setdefault(instance["served_model_name"], []).append(
                {"host": host, "instance": name, "name": called, "address": addresses[host], "port": instance["port"]})
    return found


def client_map(clients):
    """The map from the hash of a client's key to its name, as HAProxy reads it."""
    lines = sorted("%s %s\n" % (hashlib.sha256(str(key).encode("utf-8")).hexdigest().upper(), name) for name, key in clients.items())
    return "".join(lines)


def client_problems(clients):
    """What is wrong with the clients of the gateways. [sentence]; no key is shown."""
    problems = []
    for name, key in sorted(clients.items()):
        if not re.match(r"^[A-Za-z0-9._-]{1,64}$", str(name)):
            problems.append("fleet_gateway_clients: the name '%s' must be letters, digits, '.', '_' and '-', 64 at most" % name)
        if not isinstance(key, str) or len(key) < 16 or re.search(r"\s", key):
            problems.append("fleet_gateway_clients: the key of '%s' must be text without blanks, at least 16 characters" % name)
    keys = list(map(str, clients.values()))
    if len(set(keys)) != len(keys):
        problems.append("fleet_gateway_clients: two clients have the same key, so nobody could tell them apart")
    return problems


# The numbers of HAProxy 2.6, doc/management.txt, "show servers state".
_DRAIN, _MAINT = 0x08 | 0x10, 0x01 | 0x02 | 0x04 | 0x20 | 0x40


def read_states(text):
    """"show servers state" -> {(backend, server): {"state": ready, drain or maint, "operational": bool}}."""
    rows, header = {}, None
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# "):
            header = words[1:]
        elif header and len(words) >= len(header):
            row = dict(zip(header, words))
            admin = int(row["srv_admin_state"])
            rows[(row["be_name"], row["srv_name"])] = {
                "state": "maint" if admin & _MAINT else "drain" if admin & _DRAIN else "ready", "operational": row["srv_op_state"] != "0"}
    return rows


def read_stats(text):
    """"show stat" -> {(backend, server): {"check", "status", "sessions", "queue", "requests_total", "errors_total", "rate"}}."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("# "):
        return {}
    header, rows = lines[0][2:].split(","), {}
    for line in lines[1:]:
        row = dict(zip(header, line.split(",")))
        if row.get("type") != "2":
            continue
        rows[(row["pxname"], row["svname"])] = {
            "check": " ".join(word for word in (row.get("check_status"), row.get("check_code")) if word), "status": row["status"],
            "sessions": _number(row["scur"]), "queue": _number(row["qcur"]), "requests_total": _number(row.get("req_tot") or row["stot"]),
            "errors_total": _number(row["econ"]) + _number(row["eresp"]), "rate": _number(row["rate"])}
    return rows


def _number(text):
    return int(text) if str(text).isdigit() else 0
