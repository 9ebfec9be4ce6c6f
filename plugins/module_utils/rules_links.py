# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the NPUs' own network, for instances with more than one chip, and about what the hosts of a group must have in common.

A deep survey reads the network; within one host nothing else needs it.
"""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import davinci, failed, passed, rule_in, unsure

RULES = []
each = rule_in(RULES, each_instance=True)

# Families whose chips have a network port of their own.
WITH_PORTS = ("910", "910b", "910c", "950")
DEEP = "ansible-playbook playbooks/preflight.yml --limit %s -e deep=true; hccn_tool comes with the HDK driver"
# What hccn_tool says before anybody has given it an address to detect; within one host that is in order.
NOT_SET_UP = ("Init", "Detect ip set")


def _concerned(view, instance):
    """Whether the links of an instance are judged: several chips with ports, and either somebody looked or the instance spans hosts."""
    several = instance.get("group") or len(davinci(instance)) > 1
    return several and view.peek("family") in WITH_PORTS and (instance.get("group") or view.peek("deep.network") is not None)


def _read(view, instance, key):
    """({device: status}, [device that told nothing]) of one question of hccn_tool."""
    network, told, silent = view.peek("deep.network") or {}, {}, []
    for path in davinci(instance):
        answer = (network.get(re.sub(r"\D", "", path)) or {}).get(key) or {}
        if answer.get("status"):
            told[path] = answer["status"]
        else:
            silent.append(path)
    return told, silent


def _number(path):
    return re.sub(r"\D", "", path)


def _judge(view, instance, key, expected, bad, remedy):
    """The verdict of a question whose answers stand for themselves; bad: {device: status}, found by the rule."""
    told, silent = _read(view, instance, key)
    if bad:
        yield failed(", ".join("%s %s" % item for item in sorted(bad.items())), expected, remedy % _number(sorted(bad)[0]))
    elif silent and instance.get("group"):
        yield unsure("not read: " + ", ".join(silent), expected, DEEP % view.host)
    else:
        yield passed("%d of %d chips tell it" % (len(told), len(told) + len(silent)), expected)


@each("links.up", "The network port of every chip of an instance is up", after=("npu.smi", "plan.placement"),
      why="Ranks that meet over a port that is down wait for HCCL's time-out: EJ0002 'The network port is down', EI0006.",
      source="hccn_tool -link -g; vllm-ascend multi-node checks")
def up(view, instance):
    if not _concerned(view, instance):
        return
    told = _read(view, instance, "link")[0]
    bad = dict((path, status) for path, status in told.items() if status.upper() != "UP")
    yield from _judge(view, instance, "link", "UP", bad, "check cable, optics and switch port; hccn_tool -i %s -link -g")


@each("links.healthy", "The network of every chip of an instance is healthy", after=("links.up",),
      why="A port that is up may still reach nobody: wrong address, gateway or VLAN. Ranks then end in EI0006 or EI0002.",
      source="hccn_tool -net_health -g; vllm-ascend multi-node checks")
def healthy(view, instance):
    if not _concerned(view, instance):
        return
    accepted = ("Success",) if instance.get("group") else ("Success",) + NOT_SET_UP
    told = _read(view, instance, "net_health")[0]
    bad = dict((path, status) for path, status in told.items() if status not in accepted)
    yield from _judge(view, instance, "net_health", "Success", bad, "hccn_tool -i %s -netdetect -g; then -ip -g, -gateway -g and the switch's VLAN")


@each("links.addresses", "Every chip of an instance has a network address of its own", after=("npu.smi", "plan.placement"),
      why="Ranks find each other by these addresses; two chips with the same one never meet.",
      source="hccn_tool -ip -g; /etc/hccn.conf")
def addresses(view, instance):
    if not _concerned(view, instance):
        return
    told = _read(view, instance, "ip")[0]
    held = list(told.values())
    twice = dict((path, address) for path, address in told.items() if held.count(address) > 1)
    yield from _judge(view, instance, "ip", "addresses that differ", twice, "hccn_tool -i %s -ip -s address <address> netmask <mask>")


@each("links.tls_same", "All chips of an instance have the same TLS switch", after=("npu.smi", "plan.placement"),
      why="A rank with TLS and one without cannot shake hands: 'Getting socket times out' (EI0006).",
      source="hccn_tool -tls -g; vllm-ascend multi-node checks: the same switch everywhere")
def tls_same(view, instance):
    if not _concerned(view, instance):
        return
    told = _read(view, instance, "tls")[0]
    values = sorted(set(told.values()))
    odd = {}
    if len(values) > 1:
        rare = min(values, key=lambda value: (list(told.values()).count(value), value == "0"))
        odd = dict((path, "enable [%s]" % value) for path, value in told.items() if value == rare)
    other = "0" if odd and "[1]" in sorted(odd.values())[0] else "1"
    yield from _judge(view, instance, "tls", "one switch for all", odd, "hccn_tool -i %%s -tls -s enable %s" % other)


def _other_hosts(view, instance):
    """[(host, survey or None, plan of the same instance there)] of the other hosts of a group."""
    found = []
    for host in (instance.get("group") or {}).get("members") or ():
        peer = view.peers.get(host)
        planned = [each for each in ((peer or {}).get("host_plan") or {}).get("instances") or () if each["name"] == instance["name"]]
        if planned:
            survey = peer.get("survey")
            found.append((host, survey if survey and not survey.get("unreachable") else None, planned[0]))
    return found


@each("group.interface", "A host of a group has an address that the others are told",
      why="Gloo, HCCL and the ranks' first meeting take an interface by name; a guess ends in EI0006 or a start that never ends.",
      source="vllm-ascend multi-node pages: HCCL_IF_IP, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME, HCCL_SOCKET_IFNAME")
def interface(view, instance):
    group = instance.get("group")
    if not group:
        return
    expected = "one interface with one address"
    held = view.read("network").get("interfaces") or {}
    if not group["interface"]:
        yield failed("which of %s the others reach is not known" % (", ".join("%s %s" % item for item in sorted(held.items())) or "no interfaces"), expected,
                     "set fleet_address of %s to the address of the interface that the group is to use" % view.host)
    elif not group["address"]:
        yield unsure("the address of the head, %s, is not known" % group["members"][0], expected, "set fleet_address of %s" % group["members"][0])
    else:
        yield passed("%s %s" % (group["interface"], held.get(group["interface"])), expected)


@each("group.same", "The hosts of a group run the same", after=("plan.placement",),
      why="Ranks of different images, weights or drivers compute different things, or never meet.",
      source="vllm-ascend multi-node pages: the same image, model path and driver on each node")
def same(view, instance):
    if not instance.get("group"):
        return
    others, expected = _other_hosts(view, instance), "the same on all of %s" % ", ".join(instance["group"]["members"])
    odd, unseen = [], [host for host, survey, _planned in others if survey is None]
    for host, survey, planned in others:
        pairs = [("image", instance["image"], planned["image"]), ("weights", instance["weights"]["path"], planned["weights"]["path"]),
                 ("NPUs", instance["device_count"], planned["device_count"])]
        if survey is not None:
            pairs += [("chips", view.peek("family"), survey.get("family")),
                      ("driver", view.peek("driver.version"), (survey.get("driver") or {}).get("version"))]
        odd += ["%s %s, on %s %s" % (what, here, host, there) for what, here, there in pairs if here != there]
    if odd:
        yield failed("; ".join(odd), expected, "bring the hosts to the same, or take another host into the group")
    elif unseen:
        yield unsure("%s was not surveyed" % ", ".join(unseen), expected, "ansible-playbook playbooks/preflight.yml --limit %s" % ",".join(unseen))
    else:
        yield passed("%d hosts" % (len(others) + 1), expected)


@each("group.links", "The chips of all hosts of a group can meet", after=("group.same", "links.up", "links.healthy", "links.addresses", "links.tls_same"),
      why="One pair of chips that cannot shake hands holds up all ranks until HCCL's time-out: EI0006.",
      source="hccn_tool -ip -g, -tls -g and -ping -g; vllm-ascend multi-node checks")
def group_links(view, instance):
    if not instance.get("group") or view.peek("family") not in WITH_PORTS:
        return
    expected, mine, tls, silent, twice = "addresses that differ, one TLS switch and answers to each ping, on all hosts", {}, {}, [], []
    for host, survey, planned in [(view.host, view.survey, instance)] + _other_hosts(view, instance):
        network = ((survey or {}).get("deep") or {}).get("network") or {}
        for path in davinci(planned):
            answers, where = network.get(_number(path)) or {}, "%s %s" % (host, path)
            address, switch = [(answers.get(key) or {}).get("status") for key in ("ip", "tls")]
            if not address or switch is None:
                silent.append(where)
                continue
            if address in mine:
                twice.append("%s and %s both have %s" % (mine[address], where, address))
            mine[address] = where
            tls.setdefault(switch, []).append(where)
    pings = (view.peek("deep.pings") or {})
    elsewhere = [address for address in mine if not mine[address].startswith(view.host + " ")]
    answers = dict(((path, address), (pings.get(_number(path)) or {}).get(address)) for path in davinci(instance) for address in elsewhere)
    lost = ["%s to %s (%s)" % (path, mine[address], said) for (path, address), said in sorted(answers.items())
            if said and len(set(said.split(" of "))) > 1]
    silent += ["%s to %s" % (path, mine[address]) for (path, address), said in sorted(answers.items()) if not said]
    if twice:
        yield failed("; ".join(twice), expected, "hccn_tool -i <number> -ip -s address <address> netmask <mask> on one of them")
    elif len(tls) > 1:
        rare = min(tls, key=lambda value: (len(tls[value]), value == "0"))
        yield failed("enable [%s] on %s only" % (rare, ", ".join(tls[rare])), expected,
                     "hccn_tool -i <number> -tls -s enable %s there" % ("0" if rare != "0" else "1"))
    elif lost:
        yield failed("packets lost: %s" % ", ".join(lost[:4]) + (" and %d more" % (len(lost) - 4) if len(lost) > 4 else ""), expected,
                     "hccn_tool -i %s -ping -g address <peer>; then the switch between them" % _number(lost[0].split(" ")[0]))
    elif silent:
        yield unsure("not read: %s" % ", ".join(silent[:4]) + (" and %d more" % (len(silent) - 4) if len(silent) > 4 else ""), expected,
                     DEEP % ",".join(instance["group"]["members"]))
    else:
        yield passed("%d chips on %d hosts" % (len(mine), len(instance["group"]["members"])), expected)
