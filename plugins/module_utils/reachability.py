# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host can be talked to, and why it gave no survey: each in one line with the remedy. Pure."""

from __future__ import annotations

import re
from collections import OrderedDict

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

# (what the connection or the remote shell says, kind, what it means, remedy); the first match counts.
_KNOWN = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed", "host_key",
     "its SSH host key is unknown or has changed", "find out why; only then replace the line: ssh-keygen -R HOST, ssh-keyscan HOST"),
    (r"Permission denied \(|Authentication failed|Too many authentication failures", "authentication",
     "SSH refuses the login", "check ansible_user and its key: ssh -v USER@HOST"),
    (r"Could not resolve hostname|Name or service not known", "name", "its name does not resolve", "set ansible_host or mend DNS"),
    (r"Connection refused", "port", "nothing listens on its SSH port", "check sshd and ansible_port"),
    (r"timed out|No route to host|Network is unreachable|Host is down", "network",
     "it does not answer", "check power, network and ansible_host"),
    (r"Missing sudo password|a password is required|incorrect sudo password|Sorry, try again", "sudo",
     "sudo asks for a password", "run with --ask-become-pass or allow the user to sudo without one"),
    (r"is not in the sudoers|not allowed to execute", "sudo", "the user may not use sudo", "add it to sudoers or set ansible_become: false"),
    (r"python[0-9.]*: (command )?not found|python[0-9.]*: No such file|interpreter.{0,80}was not found|rc.{0,4}127", "python",
     "has no Python at the configured path", "install python3 (3.7 or later) or set ansible_python_interpreter"),
    (r"SyntaxError|future feature annotations is not defined|requires a minimum of Python|ModuleNotFoundError: No module named 'ansible",
     "python", "its Python is too old for this ansible-core",
     "install Python 3.9 or later and set ansible_python_interpreter, or use ansible-core 2.16 for Python 3.7"),
    (r"No space left on device", "disk", "its temporary folder is full", "free space in /tmp or set ansible_remote_tmp"),
)


def explain(answer, interpreter="python3"):
    """Turn a failed module result into a survey of a host that cannot be surveyed.

    :param dict answer: what Ansible returned; "unreachable", "msg", "module_stdout", "module_stderr", "rc" are read.
    :returns: {"unreachable": True, "kind": str, "error": one line, "remedy": str}.
    """
    text = "\n".join(str(answer.get(key, "")) for key in ("msg", "module_stderr", "module_stdout", "exception") if answer.get(key))
    if answer.get("rc") == 127:
        text += "\nrc 127"
    for pattern, kind, meaning, remedy in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            if kind == "python":
                meaning = "%s (%s)" % (meaning, interpreter)
            return {"unreachable": True, "kind": kind, "error": meaning, "remedy": remedy}
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no output")
    return {"unreachable": True, "kind": "unknown", "error": "the survey did not run: %s" % first[:200], "remedy": "ansible -m ping -vvv on this host"}


# The stage before the survey: what an SSH client finds out step by step, and what that means.

STEPS = ("name", "port", "host key", "login", "python", "sudo", "clock")
HEADINGS = ("host", "verdict") + STEPS
CLOCK_BOUND_S = 5
SOURCE = "asked over SSH with the options that Ansible would use"
# Of a step that only a TCP connection decides; no other SSH client would get further.
SURE_KINDS = ("name", "port", "network")
# The oldest Python that module_utils/basic.py of each ansible-core accepts, where that file does not hold it as a tuple.
CORE_PYTHONS = {"2.16": (3, 6)}
OUR_PYTHON = (3, 7)


def python_minimum(core_version, declared):
    """The oldest Python on hosts, as a tuple.

    :param str core_version: of ansible-core. :param declared: ``_PY_MIN`` of ansible.module_utils.basic, a tuple where it tells.
    """
    core = declared if isinstance(declared, tuple) else CORE_PYTHONS.get(".".join(core_version.split(".")[:2]), OUR_PYTHON)
    return max(core, OUR_PYTHON)


def parse_config(text):
    """``ssh -G`` -> {option: [values]}, options in lower case."""
    found = {}
    for line in text.split("\n"):
        key, _blank, value = line.strip().partition(" ")
        if key:
            found.setdefault(key.lower(), []).append(value.strip())
    return found


def read_answers(text):
    """What the shell command of the probe printed: {"clock": float, "pythons": [(path, version or None, what it said)], "sudo": (rc, text)}.

    Other lines, such as greetings of a login script, are passed over.
    """
    answers = {"clock": None, "pythons": [], "sudo": None, "shell": False}
    for line in text.split("\n"):
        match = re.match(r"reach:(shell|clock|python|sudo):(.*)", line.strip())
        if not match:
            continue
        kind, rest = match.groups()
        if kind == "shell":
            answers["shell"] = True
        elif kind == "clock" and re.match(r"\d{1,12}(\.\d{1,9})?", rest):
            answers["clock"] = float(re.match(r"\d{1,12}(\.\d{1,9})?", rest).group(0))
        elif kind == "python":
            rc, path, said = (rest.split(":", 2) + ["", ""])[:3]
            version = re.match(r"\d{1,3}\.\d{1,3}\.\d{1,3}\Z", said.strip())
            answers["pythons"].append((path, version.group(0) if rc == "0" and version else None, said.strip()[:200]))
        elif kind == "sudo":
            rc, said = (rest.split(":", 1) + [""])[:2]
            answers["sudo"] = (int(rc) if rc.isdigit() else 255, said.strip()[:200])
    return answers


class _Report(object):
    """Cells of one host's row and its findings."""

    def __init__(self, host):
        self.host, self.cells, self.findings, self.kind = host, OrderedDict((step, "-") for step in STEPS), [], None

    def say(self, step, status, cell, found, expected, remedy, kind=None):
        self.cells[step] = cell
        self.findings.append(finding("reach." + step.replace(" ", "_"), status, found, expected, SOURCE, remedy, self.host))
        if status == "fail" and self.kind is None:
            self.kind = kind or step
        return status == "pass"


def judge(facts, minimum, core_version):
    """Judge what the probe found out about one host.

    :param dict facts: as of ``ssh_probe.probe``. :param tuple minimum: the oldest usable Python, see ``python_minimum``.
    :returns: {"status": pass | fail | unknown, "cells": [text in the order of STEPS], "findings": [...],
        "kind": of the first failure or None, "sure": bool, whether any other client would fail as well}.
    """
    report = _Report(facts["host"])
    if facts.get("handed_over"):
        report.say("login", "unknown", "not asked", facts["handed_over"], "an SSH connection", "ansible %s -m ansible.builtin.ping" % facts["host"])
    else:
        _judge_network(report, facts) and _judge_host_key(report, facts) and _judge_login(report, facts) and _judge_shell(
            report, facts, minimum, core_version)
    if facts.get("late"):
        step = facts["late"] if facts["late"] in STEPS else "python"   # the first thing that the shell tells
        report.say(step, "fail", "no answer", "no answer to '%s' within %s s" % (facts["late"], facts["deadline_s"]), "an answer",
                   "check the network and the load of the host; or raise deadline_s", kind="network" if step in ("name", "port") else step)
    statuses = set(one["status"] for one in report.findings)
    return {
        "status": next((status for status in ("fail", "unknown") if status in statuses), "pass"), "cells": list(report.cells.values()),
        "findings": report.findings, "kind": report.kind, "sure": report.kind in SURE_KINDS and not facts.get("proxy"),
    }


def _judge_network(report, facts):
    where = "%s port %s" % (facts.get("hostname"), facts.get("port"))
    proxy, error = facts.get("proxy"), facts.get("error")
    if facts.get("config_error"):
        return report.say("name", "fail", "options", facts["config_error"], "SSH options that ssh accepts",
                          "correct ansible_ssh_common_args, ansible_ssh_extra_args or ansible_ssh_args")
    if proxy:
        report.cells["name"] = "by proxy"
    elif facts.get("addresses"):
        report.say("name", "pass", "ok", ", ".join(facts["addresses"][:3]), "an address", "")
    elif facts.get("late") == "name":
        return False
    else:
        return report.say("name", "fail", "unknown", "%s: %s" % (facts.get("hostname"), error or "no address"), "an address",
                          "set ansible_host for %s, or mend DNS: getent hosts %s" % (facts["host"], facts.get("hostname")))
    if facts.get("banner"):
        return report.say("port", "pass", "ok", facts["banner"], "an SSH banner", "")
    if facts.get("late"):
        return False
    if facts.get("greeting"):
        return report.say("port", "fail", "no SSH", "%s answers with %r" % (where, facts["greeting"][:60]), "an SSH banner", "correct ansible_port")
    if facts.get("connected") and proxy:
        return report.say("port", "fail", "proxy", "nothing came through '%s': %s" % (proxy, error or "no banner"), "an SSH banner",
                          "run it by hand: ssh -v %s" % facts.get("hostname"), kind="network")
    if facts.get("connected"):
        return report.say("port", "fail", "no banner", "%s accepts and says nothing: %s" % (where, error or "no banner"), "an SSH banner",
                          "look at sshd on the host: MaxStartups, /etc/hosts.deny, journalctl -u ssh -u sshd", kind="network")
    if error and "refused" in error.lower():
        return report.say("port", "fail", "refused", "%s: %s" % (where, error), "an SSH banner",
                          "systemctl enable --now sshd on the host, or correct ansible_port")
    return report.say("port", "fail", "no answer", "%s: %s" % (where, error or "no answer"), "an SSH banner",
                      "check power, network, firewall and ansible_host: nc -vz %s %s" % (facts.get("hostname"), facts.get("port")), kind="network")


def _judge_host_key(report, facts):
    key = facts.get("host_key")
    if not key:
        if not facts.get("late"):
            report.say("host key", "unknown", "not read", "%s; handed to Ansible's own connection" % (facts.get("error") or "no host key"),
                       "a host key", "ssh -v %s" % facts.get("hostname"))
        return False
    shown = "%s %s" % (key["type"], key["fingerprint"])
    strict = key["policy"] not in ("no", "off", "false")
    name = key["names"][0]
    files = " ".join(key["files"]) or "no file"
    if key["state"] == "known":
        return report.say("host key", "pass", "known", "%s, %s" % (shown, key["where"]), "a known key", "")
    if key["state"] in ("changed", "revoked"):
        path = key["where"].rpartition(":")[0]
        verb = "is not the one in" if key["state"] == "changed" else "was revoked in"
        passes = key["state"] == "changed" and not strict
        return report.say("host key", "pass" if passes else "fail", key["state"], "%s %s %s" % (shown, verb, key["where"]), "the known key",
                          "find out who changed it; only when that was meant: ssh-keygen -f %s -R '%s', then add the new key" % (path, name),
                          kind="host_key")
    if not strict or key["policy"] == "accept-new":
        return report.say("host key", "pass", "new", "%s, which StrictHostKeyChecking=%s accepts" % (shown, key["policy"]), "a known key", "")
    if key["state"] == "authority" or key.get("command"):
        report.say("host key", "unknown", "not judged", "%s is for %s to tell; handed to Ansible's own connection" % (
            shown, key["where"] or "KnownHostsCommand"), "a known key", "ssh -v %s" % facts.get("hostname"))
        return False
    port = "" if facts["port"] == 22 else "-p %s " % facts["port"]
    return report.say(
        "host key", "fail", "new", "%s is not in %s" % (shown, files), "a known key",
        "compare %s with the host's console (ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub), then: ssh-keyscan %s-t %s %s >> %s" % (
            key["fingerprint"], _short_type(key["type"]), port, _short_type(key["type"]), facts["hostname"], (key["files"] or ["~/.ssh/known_hosts"])[0]),
        kind="host_key")


def _short_type(kind):
    return "ecdsa" if kind.startswith("ecdsa") else kind.replace("ssh-", "")


def _judge_login(report, facts):
    login = facts.get("login")
    if not login:
        return False
    expected = "a login as %s" % login["user"]
    if login.get("by"):
        return report.say("login", "pass", login["user"], "%s by %s" % (login["user"], login["by"]), expected, "")
    if facts.get("late"):
        return False
    tried = "; ".join(login["tried"]) or "nothing to try: no key and no password"
    accepts = ", ".join(login["allowed"]) or "?"
    found = "%s: %s; the host accepts %s" % (login["user"], tried, accepts)
    if login.get("handed"):
        report.say("login", "unknown", "not tried", "%s; %s is handed to Ansible's own connection" % (found, login["handed"]), expected,
                   "ansible %s -m ansible.builtin.ping" % facts["host"])
        return False
    return report.say("login", "fail", "refused", found, expected, _login_remedy(facts, login), kind="authentication")


def _login_remedy(facts, login):
    tried, port = " ".join(login["tried"]), "" if facts["port"] == 22 else "-p %s " % facts["port"]
    if login.get("too_many"):
        return "offer one key only: set ansible_ssh_private_key_file and ansible_ssh_common_args: -o IdentitiesOnly=yes"
    if login.get("needs_sshpass"):
        return "install sshpass on the controller, or use a key"
    if "also wants" in tried:
        return "set ansible_password when it is a password; else let %s in by key alone: AuthenticationMethods in sshd_config" % login["user"]
    if login.get("encrypted"):
        return "ssh-add %s (it is encrypted and no agent holds it)" % login["encrypted"][0]
    if login.get("exposed"):
        return "chmod 600 %s (OpenSSH ignores a private key that others can read)" % login["exposed"][0]
    if login.get("missing"):
        return "correct ansible_ssh_private_key_file: there is no %s" % login["missing"][0]
    if "password: refused" in tried:
        return "correct ansible_password or ansible_user"
    if "password" in tried and login["allowed"] == ["publickey"]:
        return "the host takes keys only: set ansible_ssh_private_key_file"
    if login.get("public"):
        return "ssh-copy-id %s-i %s %s@%s, or correct ansible_user" % (port, login["public"], login["user"], facts["hostname"])
    return "set ansible_ssh_private_key_file to a key that %s may use" % login["user"]


def _judge_shell(report, facts, minimum, core_version):
    shell = facts.get("shell")
    if not shell:
        return
    if not shell["answers"]["shell"]:
        report.say("python", "fail", "no shell", "no shell answers to %s: %s" % (facts["login"]["user"], shell["said"] or "no output"),
                   "a POSIX shell", "getent passwd %s on the host; set a login shell with: usermod -s /bin/bash %s" % (
                       facts["login"]["user"], facts["login"]["user"]), kind="shell")
        return
    _judge_python(report, facts, shell["answers"]["pythons"], minimum, core_version)
    if facts.get("become"):
        _judge_sudo(report, facts, shell["answers"]["sudo"])
    offset = facts.get("clock_offset_s")
    if offset is None:
        report.say("clock", "unknown", "not read", "date told no time", "at most %d s away" % CLOCK_BOUND_S, "date +%s on the host")
    elif abs(offset) > CLOCK_BOUND_S + facts.get("round_trip_s", 0):
        report.say("clock", "fail", "%+.0f s" % offset, "%+.1f s from the controller" % offset, "at most %d s away" % CLOCK_BOUND_S,
                   "systemctl enable --now chronyd && chronyc makestep")
    else:
        report.say("clock", "pass", "ok", "%+.1f s from the controller" % offset, "at most %d s away" % CLOCK_BOUND_S, "")


def _judge_python(report, facts, found, minimum, core_version):
    wanted = "%s or later" % ".".join(map(str, minimum))
    expected = "Python %s, for ansible-core %s" % (wanted, core_version)
    path, version, said = next((one for one in found if one[1]), found[-1] if found else (None, None, ""))
    asked = facts.get("python")
    if version is None and asked:
        report.say("python", "fail", "none", "ansible_python_interpreter %s: %s" % (asked, said or "does not run"), expected,
                   "correct ansible_python_interpreter, or install Python %s there" % wanted)
    elif version is None:
        report.say("python", "fail", "none", "none of the places where Ansible looks has a Python", expected,
                   "install python3 (%s), or set ansible_python_interpreter" % wanted)
    elif tuple(int(part) for part in version.split(".")) < minimum:
        report.say("python", "fail", version, "%s is Python %s" % (path, version), expected,
                   "install Python %s beside it and set ansible_python_interpreter for %s%s" % (
                       wanted, facts["host"], "; or use a controller with ansible-core 2.16, which drives 3.7"
                       if minimum > OUR_PYTHON <= tuple(int(part) for part in version.split(".")) else ""))
    else:
        report.say("python", "pass", version, "%s is Python %s" % (path, version), expected, "")


def _judge_sudo(report, facts, answer):
    become = facts["become"]
    expected = "%s to %s without a question" % (become["method"], become["user"])
    if become["method"] != "sudo":
        report.say("sudo", "unknown", "not asked", "become_method %s is handed to Ansible's own connection" % become["method"], expected,
                   "ansible %s -b -m ansible.builtin.ping" % facts["host"])
        return
    rc, said = answer or (255, "no answer")
    lower = said.lower()
    if rc == 0:
        report.say("sudo", "pass", "ok", "sudo to %s works" % become["user"], expected, "")
    elif "not found" in lower or rc == 127:
        report.say("sudo", "fail", "none", "there is no sudo on the host", expected,
                   "install sudo%s" % (", or set ansible_become: false as %s is root" % facts["host"] if facts["login"]["user"] == "root" else ""))
    elif "not in the sudoers" in lower or "not allowed" in lower or "may not run" in lower:
        report.say("sudo", "fail", "forbidden", said, expected, "add %s to sudoers: visudo -f /etc/sudoers.d/%s" % (
            facts["login"]["user"], facts["login"]["user"]))
    elif "try again" in lower or "incorrect" in lower:
        report.say("sudo", "fail", "password", "sudo refuses the become password", expected, "correct ansible_become_password")
    elif "password is required" in lower or "terminal is required" in lower:
        report.say("sudo", "fail", "password", "sudo asks for a password", expected,
                   "run with --ask-become-pass, or add NOPASSWD for %s: visudo -f /etc/sudoers.d/%s" % (facts["login"]["user"], facts["login"]["user"]))
    else:
        report.say("sudo", "fail", "fails", "sudo: %s" % (said or "status %s" % rc), expected, "ssh to the host and run: sudo -n true")


def summary(judged):
    """Judged hosts -> the form that ``gate_table.render`` prints."""
    return {
        "hosts": dict((host, one["status"]) for host, one in judged.items()),
        "facts": dict((host, one["cells"]) for host, one in judged.items()),
        "findings": [found for host in sorted(judged) for found in judged[host]["findings"]],
    }


def as_survey(judged):
    """The survey of a host that cannot be talked to, from its verdict: the first thing that failed, or None when nothing did."""
    first = next((one for one in judged["findings"] if one["status"] == "fail"), None)
    if first is None:
        return None
    return {"unreachable": True, "kind": judged["kind"], "error": "%s (%s)" % (first["found"], first["rule"]), "remedy": first["remedy"]}


def read_at(survey, asked):
    """When a host read its clock, by the controller's: the moment of the round trip that is nearest to what the host says.

    A round trip may take as long as a clock may be off, so only what lies outside of it is a difference that is sure.

    :param list asked: [when the controller began to ask, when it had the answer], in seconds of the epoch.
    """
    told = (survey.get("host") or {}).get("epoch_s")
    return min(max(told, asked[0]), asked[1]) if isinstance(told, (int, float)) else sum(asked) / 2
