# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the instances reached by the gateways alone, one host first; what cuts a gateway off is taken back. Runs on the controller."""

from __future__ import annotations

import hashlib

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import firewall
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import FIREWALL_UNIT
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out

ASK_S = 150.0


class FirewallError(Exception):
    """A host could not be brought to what is wanted; the text names it and the remedy."""


def wanted(hosts, plan, surveys, addresses, traffic, sources):
    """{host: text of its unit or None} for those hosts whose firewall is not as it must be.

    :param dict sources: {gateway: {address of a host: address from which the gateway comes}}. :param dict traffic: with "access" and "scrapers".
    """
    found = {}
    for host in hosts:
        survey = surveys[host]
        if survey.get("unreachable") or "firewall" not in survey:
            continue
        those = [seen[addresses[host]] for seen in sources.values() if seen.get(addresses[host])]
        text = firewall.unit(firewall.ports(plan, surveys, host), those + list(traffic["scrapers"])) if traffic["access"] == "gateways" else None
        there = survey["firewall"]
        if (there["sha256"] if there else None) != (hashlib.sha256(text.encode()).hexdigest() if text else None) or (there and not there["active"]):
            found[host] = text
    return found


def bring(action, task_vars, texts, plan, surveys, addresses, gateways):
    """Change hosts, the first alone and then the others.

    :param dict texts: of :func:`wanted`. :param gateways: names of the gateway hosts.
    :returns: {host: {"changed", "before", "after"}}. :raises FirewallError: for the first host that is not as it must be; it has what it had before.
    """
    hostvars, check, done = task_vars["hostvars"], action._task.check_mode, {}
    servers = {host: [[addresses[host], port] for port in firewall.ports(plan, surveys, host)] for host in texts}
    hosts = sorted(texts)
    for group in (hosts[:1], hosts[1:]):
        if not group:
            continue
        before = reached(action, hostvars, gateways, group, servers)
        answers = fan_out.ask(action, {host: {"text": texts[host], "check": check} for host in group}, "firewall_host:answer", hostvars, ASK_S)
        failures = [f"{host}: {answer.get('msg') or 'it ran no program'}" for host, answer in sorted(answers.items()) if "changed" not in answer]
        if not check:
            after = reached(action, hostvars, gateways, group, servers)
            cut = {host: found for host in group if "changed" in answers[host] for found in sorted(before[host] - after[host])}
            if cut:
                fan_out.ask(action, {host: {"text": answers[host]["before"], "check": False} for host in cut}, "firewall_host:answer", hostvars, ASK_S)
            failures = [
                f"{host}: its firewall keeps the gateway {gateway} from port {port}, so it was taken back; name the address that the host sees of the "
                "gateway in fleet_metrics_scrapers, or say fleet_instance_access: everyone" for host, (gateway, port) in sorted(cut.items())] + failures
        if failures:
            raise FirewallError("; ".join(failures))
        done.update({host: dict(answer, after=texts[host]) for host, answer in answers.items()})
    return done


def diff(done):
    """What :func:`bring` changed, as Ansible shows it."""
    return [{"before_header": f"{host}: {FIREWALL_UNIT}", "after_header": f"{host}: {FIREWALL_UNIT}", "before": answer["before"] or "",
             "after": answer["after"] or ""} for host, answer in sorted(done.items()) if answer["changed"]]


def reached(action, hostvars, gateways, hosts, servers):
    """{host: {(gateway, port)}}: where each gateway can open a connection."""
    found = {host: set() for host in hosts}
    asked = [server for host in hosts for server in servers[host]]
    if not asked or not gateways:
        return found
    answers = fan_out.ask(action, {gateway: {"act": "connect", "servers": asked} for gateway in gateways}, "gateway_host:answer", hostvars, ASK_S)
    for gateway, answer in answers.items():
        for host in hosts:
            found[host].update((gateway, port) for address, port in servers[host] if [address, port] in (answer.get("open") or ()))
    return found
