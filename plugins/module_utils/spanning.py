# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances that span several hosts: vLLM's data-parallel ranks, with the API at the first host and headless servers at the others. Pure.

Each host of a group has an instance of the same name; its "group" in the plan and in the manifest is {"name", "id", "members": [host], "role": "head" |
"member", "rank", "address": of the head or None, "interface": of this host or None}. What differs anywhere in a group changes its id, and with the id the
release of every member: a group changes as one.
"""

from __future__ import annotations

import hashlib
import json

# vLLM's ranks meet at the head's port. It follows from the group's id, so that a rank of one release never joins the head of another.
RPC_PORT = 13389
RPC_PORTS = 512
HCCN_CONF = "/etc/hccn.conf"
# HCCL's own default is 120 s, in which the slowest host must have loaded; it takes 7200 at most (CANN 8.5 environment-variable reference).
CONNECT_S = (120, 7200)
BUILT_IN = "built in: several hosts"


def size(group):
    """How many hosts the key "group" of an instance asks for."""
    return len(group) if isinstance(group, list) else group or 1


def problems_of(group):
    """What is wrong with the key "group", as half sentences."""
    if isinstance(group, list):
        if len(group) < 2 or len(set(map(str, group))) != len(group) or not all(isinstance(name, str) for name in group):
            return ["group must name two or more hosts, each once, such as [a2-1, a2-2], not %r" % (group,)]
    elif group is not None and group < 1:
        return ["group must be a count of hosts or their names, not %r" % (group,)]
    return []


def demanded(settings, catalogue, selection):
    """Whether a host may get an instance that spans hosts, before anybody has looked at it."""
    wanted = [{"model": name} for name in selection or ()] if settings["fleet_instances"] is None else settings["fleet_instances"]
    for demand in wanted:
        layers = [catalogue["models"].get(demand["model"], {})]
        layers += [layer for _source, about, layer in settings["overrides"] if about in (None, demand["model"])] + [demand]
        if size([layer["group"] for layer in [{"group": None}] + layers if "group" in layer][-1]) > 1:
            return True
    return False


def ranks(options, count, hosts):
    """The data-parallel sizes of a group, where the arguments do not say.

    :param dict options: arguments of the instance. :param int count: NPUs a host. :param int hosts: of the group.
    :returns: (options, names that were added, [problem as half a sentence]).
    """
    def number(name, default):
        value = options.get(name)
        return int(value) if str(value).isdigit() else default

    each = number("tensor-parallel-size", 1) * number("pipeline-parallel-size", 1)
    local = number("data-parallel-size-local", max(1, count // each))
    # One rank on several hosts is what a model says that is none by itself.
    options = dict((name, value) for name, value in options.items() if name != "data-parallel-size" or number(name, 1) > 1)
    total, problems = number("data-parallel-size", local * hosts), []
    if each > count:
        problems = ["one rank needs %d NPUs and a host of the group gives %d; a rank stays on one host: lower tensor-parallel-size" % (each, count)]
    elif total != local * hosts:
        problems = ["data-parallel-size %d is not %d hosts with data-parallel-size-local %d each" % (total, hosts, local)]
    added = {"data-parallel-size": total, "data-parallel-size-local": local}
    return dict(added, **options), [name for name in added if name not in options], problems


def join(hosts, instances, surveys, addresses):
    """Make groups of the instances that span hosts.

    :param list hosts: of the run, in the order of the inventory; the first of a group is its head.
    :param dict instances: {host: [instance]}; those with "span" are completed: group, options, environment, port of the head.
    :param dict surveys: {host: survey}. :param dict addresses: {host: the address that the inventory names, or None}.
    :returns: [problem].
    """
    problems, asking = [], {}
    for host in hosts:
        for instance in instances.get(host, ()):
            span = instance.pop("span")
            if size(span) > 1:
                key = (instance["name"], tuple(span) if isinstance(span, list) else span)
                asking.setdefault(key, {})[host] = instance
    for (name, span), found in asking.items():
        problem = _incomplete(name, span, found)
        if problem:
            problems.append(problem)
        else:
            members = list(span) if isinstance(span, tuple) else list(found)
            _complete(name, [(host, found[host]) for host in members], surveys, addresses)
    return problems


def _incomplete(name, span, found):
    """Why a group cannot be made of the hosts that ask for it, or None."""
    first = sorted(found)[0] if isinstance(span, int) else next(iter(found))
    if isinstance(span, int):
        if len(found) == span:
            return None
        return (
            "%s: instance '%s' spans %d hosts, and %d of this run ask%s for it (%s); "
            "name its hosts, such as {model: %s, group: [%s, <another>]}, and run for all of them"
            % (first, name, span, len(found), "s" if len(found) == 1 else "", ", ".join(found), found[first]["model"], first)
        )
    outside = [host for host in found if host not in span]
    if outside:
        return "%s: instance '%s' is a group of %s; take it out of what %s asks for" % (outside[0], name, ", ".join(span), outside[0])
    missing = [host for host in span if host not in found]
    if missing:
        return "%s: instance '%s' is one group with %s, which is not in this run or does not ask for it; run for all of %s (--limit %s)" % (
            first, name, ", ".join(missing), " and ".join(span), ",".join(span))
    return None


def _complete(name, members, surveys, addresses):
    """Give the instances of one group, the head's first, what they need to find each other."""
    hosts, head = [host for host, _instance in members], members[0][1]
    where = dict((host, interface(surveys.get(host), addresses.get(host))) for host in hosts)
    address, local = where[hosts[0]][1], int(head["options"]["data-parallel-size-local"])
    for host, instance in members:
        device, own = where[host]
        _add(instance, "options", {"data-parallel-address": address} if address else {})
        found = {"GLOO_SOCKET_IFNAME": device, "TP_SOCKET_IFNAME": device, "HCCL_SOCKET_IFNAME": device, "HCCL_IF_IP": own} if device else {}
        found["HCCL_CONNECT_TIMEOUT"] = str(min(max(instance["ready_timeout_s"], CONNECT_S[0]), CONNECT_S[1]))
        _add(instance, "environment", found)
    told = [[host, instance["image_reference"] or instance["image"], instance["device_count"], instance["weights"]["path"], instance["options"],
             instance["environment"]] for host, instance in members]
    identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()[:12]
    for rank, (host, instance) in enumerate(members):
        _add(instance, "options", {"data-parallel-rpc-port": RPC_PORT + int(identity, 16) % RPC_PORTS})
        if rank:
            instance["options"].update({"headless": True, "data-parallel-start-rank": rank * local})
            instance["provenance"].update({"arguments.headless": BUILT_IN, "arguments.data-parallel-start-rank": BUILT_IN})
            # Nothing of a member listens there; it is where the group answers.
            instance["port"] = head["port"]
        instance["environment"]["FLEET_GROUP"] = identity
        instance["provenance"]["environment.FLEET_GROUP"] = BUILT_IN
        instance["group"] = {"name": name, "id": identity, "members": hosts, "role": "member" if rank else "head", "rank": rank, "address": address,
                             "interface": where[host][0]}


def _add(instance, kind, values):
    for name, value in values.items():
        if name not in instance[kind]:
            instance[kind][name] = value
            instance["provenance"]["%s.%s" % ("arguments" if kind == "options" else kind, name)] = BUILT_IN


def interface(survey, address=None):
    """(interface, address) by which the other hosts of a group reach a host; (None, None) when the survey does not tell.

    :param address: that the inventory names, or None; then it is that of the default route, or of the only interface.
    """
    network = (survey or {}).get("network") or {}
    held = network.get("interfaces") or {}
    if address:
        device = next((name for name, own in sorted(held.items()) if own == address), None)
    else:
        device = network.get("default") if network.get("default") in held else list(held)[0] if len(held) == 1 else None
    return (device, held[device]) if device else (None, None)


def pings(plan, surveys):
    """Which chips of groups are to reach which addresses: {host: {davinci number as text: [address of a chip of another host]}}."""
    found = {}
    for host, entry in plan["hosts"].items():
        for instance in entry["instances"]:
            peers = [address for other in (instance.get("group") or {}).get("members") or () if other != host
                     for planned in plan["hosts"][other]["instances"] if planned["name"] == instance["name"]
                     for address in _chip_addresses(surveys.get(other), planned)]
            if peers:
                found.setdefault(host, {}).update((number, peers) for number in _numbers(instance))
    return found


def _numbers(instance):
    return [path.rpartition("davinci")[2] for path in instance["devices"] if path.rpartition("davinci")[2].isdigit()]


def _chip_addresses(survey, instance):
    network = ((survey or {}).get("deep") or {}).get("network") or {}
    read = [((network.get(number) or {}).get("ip") or {}).get("status") for number in _numbers(instance)]
    return [address for address in read if address]


def is_member(instance):
    """Whether an instance (of a plan, or a manifest) only computes for a group that answers at another host."""
    return (instance.get("group") or {}).get("role") == "member"


def shown_port(instance):
    """Where an instance answers, for people: its port, or the host of the group's head."""
    return "at " + instance["group"]["members"][0] if is_member(instance) else instance.get("port")


def served(instances):
    """The instances that answer themselves."""
    return [instance for instance in instances if not is_member(instance)]


def companions(instances):
    """The hosts that instances of a host share groups with, the host itself among them."""
    return set(member for instance in instances for member in (instance.get("group") or {}).get("members") or ())


def closed(plan, hosts, add):
    """A set of hosts, brought in line with the groups of a plan.

    :param bool add: with every member of a group of which one is in the set; otherwise without.
    """
    found = set(hosts)
    for entry in plan["hosts"].values():
        for instance in entry["instances"]:
            members = (instance.get("group") or {}).get("members") or ()
            if add and found & set(members):
                found |= set(members)
            elif not add and set(members) - found:
                found -= set(members)
    return [host for host in plan["hosts"] if host in found]


def torn(instances, hosts):
    """Why the instances of a host must not be changed: a member of their group does not take part. :returns: a sentence or None."""
    for instance in instances:
        missing = [member for member in (instance.get("group") or {}).get("members") or () if member not in hosts]
        if missing:
            return "instance '%s' is one group with %s, which takes no part in this run or dropped out of it; a group changes as one: run for %s" % (
                instance["name"], ", ".join(missing), ",".join(instance["group"]["members"]))
    return None
