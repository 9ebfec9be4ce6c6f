# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings all gateways of the fleet to what a run has found and proven, and the firewalls of its hosts with them. Runs on the controller."""

from __future__ import annotations

import difflib
import os
import pathlib

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gateway
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import redact
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, firewalls, gateway_files, looking, workspace

ASK_S = 150.0


class GatewayError(Exception):
    """A gateway could not be brought to what is wanted; the text names it and the remedy."""


def variable(task_vars, name, default):
    """A fleet_* variable of the run, from the first host that has it; secrets do not pass through the workspace."""
    for host in workspace.load("plan")["hosts"]:
        if name in task_vars["hostvars"].raw_get(host):
            return task_vars["hostvars"][host][name]
    return default


def proven():
    """{host: {instance: proof}} with the latest proof of each that this run has."""
    found = {host: dict(entries) for host, entries in workspace.load("proof", {}).items()}
    for host in workspace.load("plan")["hosts"]:
        changed = workspace.load("change." + host, {})
        for key in ("proof", "revert_proof"):
            found.setdefault(host, {}).update(changed.get(key) or {})
        for name in (changed.get("removed") or []) + (changed.get("leaving") or []):
            found[host].pop(name, None)
    return found


def surveyed():
    """The surveys without what this run has removed."""
    surveys = workspace.load("surveys", {})
    for host, survey in surveys.items():
        changed = workspace.load("change." + host, {})
        gone = (changed.get("removed") or []) + ((changed.get("leaving") or []) if changed.get("outcome") == "done" else [])
        if survey.get("instances"):
            survey["instances"] = {name: found for name, found in survey["instances"].items() if name not in gone}
    return surveys


def apply(action, task_vars):
    """Configure the gateways.

    A host that gateway.yml has not set up yet is left alone, and that is told.

    :returns: None of a fleet without gateways, else {"changed", "addresses": {model: [url]}, "diff", "gateways": {host: answer}, "guarded": [host whose
        firewall changed]}.
    :raises GatewayError: naming the first that is not as it must be.
    """
    traffic = workspace.load("rollout_settings")["traffic"]
    hosts = traffic["gateways"]
    if not hosts:
        return unguarded(action, task_vars, traffic)
    chosen, hostvars = traffic["gateway"], task_vars["hostvars"]
    answers = fan_out.ask(action, {host: {"act": "look"} for host in hosts}, "gateway_host:answer", hostvars, ASK_S)
    refuse(answers)
    bare = sorted(host for host, answer in answers.items() if not answer["set_up"])
    if bare:
        action._display.warning("%s: no gateway yet; set it up with playbooks/gateway.yml" % ", ".join(bare))
    hosts = [host for host in hosts if host not in bare]
    if not hosts:
        return None
    present = {server["name"] for answer in answers.values() for server in answer["servers"]}
    kept = next((answers[host]["ports"] for host in hosts if answers[host]["ports"]), {})
    plan, surveys, proofs = workspace.load("plan"), surveyed(), proven()
    own = sorted(surveys)
    beyond = workspace.load("rollout_settings")["beyond"]
    if beyond:
        # A run of some hosts must not put the others out.
        more, theirs, dummy = looking.look(action, task_vars, beyond, prove=True)
        silent = sorted(host for host, survey in more.items() if survey.get("unreachable"))
        if silent:
            action._display.warning("the gateways stay as they are, since %s cannot be asked; run playbooks/gateway.yml later" % ", ".join(silent))
            return None
        surveys, proofs = dict(surveys, **more), dict(proofs, **theirs)
    addresses = {host: str(hostvars[host].get("fleet_address") or hostvars[host].get("ansible_host") or host) for host in set(plan["hosts"]) | set(surveys)}
    servers = gateway.servers(plan, surveys, proofs, addresses, present)
    ports = gateway.ports(servers, chosen, kept)
    clients = variable(task_vars, "fleet_gateway_clients", {}) or {}
    problems = gateway.client_problems(clients)
    if problems:
        raise GatewayError(problems[0])
    api_key = variable(task_vars, "fleet_api_key", None)
    if api_key and not clients:
        # The gateway shows this key to the instances; it must not lend it to whoever comes.
        clients = {"fleet": api_key}
    files = gateway_files.render(servers, ports, chosen, clients, api_key, certificate(chosen["certificate"]))
    request = {"act": "apply", "files": files, "addresses": [addresses[name] for name in own], "check": action._task.check_mode}
    answers = fan_out.ask(action, dict.fromkeys(hosts, request), "gateway_host:answer", hostvars, ASK_S)
    refuse(answers)
    texts = firewalls.wanted(own, plan, surveys, addresses, traffic, {host: answer["sources"] for host, answer in answers.items()})
    guarded = guard(action, task_vars, texts, plan, surveys, addresses, hosts)
    scheme = "https" if chosen["certificate"] else "http"
    named = [chosen["address"]] if chosen["address"] else [str(hostvars[host].get("ansible_host") or host) for host in hosts]
    return {
        "changed": any(answer["changed"] for answer in list(answers.values()) + list(guarded.values())),
        "gateways": answers,
        "guarded": sorted(host for host, answer in guarded.items() if answer["changed"]),
        "diff": diff(answers, files, [api_key] + list(clients.values())) + firewalls.diff(guarded),
        "addresses": {model: ["%s://%s:%d" % (scheme, name, port) for name in named] for model, port in sorted(ports.items())},
    }


def unguarded(action, task_vars, traffic):
    """A fleet that has no gateway any more lets everyone reach its instances again. :returns: as :func:`apply`; None when there is nothing to do."""
    plan, surveys = workspace.load("plan"), surveyed()
    texts = firewalls.wanted(sorted(surveys), plan, surveys, {}, dict(traffic, access="everyone"), {})
    if not texts:
        return None
    guarded = guard(action, task_vars, texts, plan, surveys, dict.fromkeys(texts), [])
    return {"changed": True, "gateways": {}, "guarded": sorted(guarded), "addresses": {}, "diff": firewalls.diff(guarded)}


def guard(*arguments):
    """firewalls.bring, whose failure is that of the gateways."""
    try:
        return firewalls.bring(*arguments)
    except firewalls.FirewallError as error:
        raise GatewayError(str(error)) from error


def refuse(answers):
    """:raises GatewayError: for the first gateway that did not do what it was asked."""
    for host, answer in sorted(answers.items()):
        if answer.get("failed") or answer.get("unreachable"):
            raise GatewayError("gateway %s: %s" % (host, answer["msg"] or "it ran no program: %s" % answer.get("module_stderr", "")[-200:]))


def certificate(path):
    """The text of a certificate and its key. :raises GatewayError: when the file cannot be had."""
    if not path:
        return None
    try:
        text = pathlib.Path(os.path.expanduser(path)).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(f"fleet_gateway: certificate {path} cannot be read on the controller: {error}") from error
    for what in ("BEGIN CERTIFICATE", "PRIVATE KEY"):
        if what not in text:
            raise GatewayError(f"fleet_gateway: certificate {path} holds no '{what}'; put certificate, chain and key into one PEM file")
    return text


def diff(answers, files, secrets):
    """What changes in the configuration, without secrets; of the other files only that they change."""
    found = []
    for host, answer in sorted(answers.items()):
        for name in answer["different"]:
            if name != "haproxy.cfg":
                found.append({"before_header": f"{host}: {name}", "after_header": f"{host}: {name}", "before": "not shown\n", "after": "changed, not shown\n"})
                continue
            before, after = ([redact(line, secrets) for line in (text or "").splitlines(keepends=True)] for text in (answer["before"], files[name]))
            found.append({"prepared": "".join(difflib.unified_diff(before, after, f"{host}: {name}", f"{host}: {name}"))})
    return found
