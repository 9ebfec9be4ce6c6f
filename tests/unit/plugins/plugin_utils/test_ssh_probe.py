# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk up to a host, against real SSH servers on addresses of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time

import paramiko
import pytest
import ssh_stub

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate_table, reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import ssh_probe

MINIMUM, CORE = (3, 8), "2.19.4"
ANSWER = b"reach:shell:\nreach:clock:%d.5\nreach:python:0:/usr/bin/python3:3.11.2\nreach:sudo:0:\n"


def answer(command, given):
    return ANSWER % time.time()


def says(usual, instead):
    """A shell with one answer that differs."""
    return lambda command, given: answer(command, given).replace(usual.encode("ascii"), instead.encode("ascii"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Names -> (private file, key); made once, by ssh-keygen as users do."""
    directory, made = tmp_path_factory.mktemp("keys"), {}
    for name, secret in (("host", ""), ("other", ""), ("mine", ""), ("stranger", ""), ("locked", "secret")):
        path = str(directory / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", secret, "-C", name, "-f", path], check=True, stdin=subprocess.DEVNULL)
        made[name] = (path, paramiko.PKey.from_path(path) if not secret else None)
    return made


@pytest.fixture
def fleet(keys, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = ssh_stub.Fleet({"host_key": keys["host"][1], "users": {"ops": [keys["mine"][1]]}, "shell": answer})
    yield made
    made.close()


@pytest.fixture
def record(tmp_path, fleet, keys):
    """A known_hosts file that knows every address of the fleet but those that a test leaves out."""
    path = tmp_path / "known_hosts"
    path.write_text(ssh_stub.known_hosts_line("[127.*]:%d" % fleet.port, keys["host"][1]))
    return path


def target(fleet, keys, record, host="a", address="127.0.0.2", key="mine", extra=(), **changes):
    arguments = ["-F", "none", "-o", "Port=%d" % fleet.port, "-o", "User=ops", "-o", "UserKnownHostsFile=%s" % record, "-o", "GlobalKnownHostsFile=/dev/null",
                 "-o", "IdentityFile=%s" % keys[key][0] if key in keys else "IdentityFile=%s" % key]
    made = {"host": host, "address": address, "arguments": arguments + list(extra), "password": None, "ssh": "ssh", "key_file": None, "unsupported": [],
            "needs_sshpass": False, "become": {"method": "sudo", "user": "root", "password": None, "executable": "sudo"}, "python": None,
            "pythons": ["python3"]}
    made.update(changes)
    return made


def verdict(made, deadline_s=8.0):
    facts = ssh_probe.probe_all([made], deadline_s)[made["host"]]
    return reachability.judge(facts, MINIMUM, CORE)


def blocking(judged):
    return [one for one in judged["findings"] if one["status"] != "pass"]


def test_a_host_with_nothing_wrong(fleet, keys, record):
    judged = verdict(target(fleet, keys, record))
    assert judged["status"] == "pass", judged
    assert judged["cells"] == ["ok", "ok", "known", "ops", "3.11.2", "ok", "ok"]


def test_this_machine_answers_the_real_questions(fleet, keys, record):
    fleet.behaviour["127.0.0.3"] = {"shell": ssh_stub.run_here}
    judged = verdict(target(fleet, keys, record, address="127.0.0.3", become=None, python=sys.executable))
    assert judged["status"] == "pass", judged
    assert judged["cells"][4] == "%d.%d.%d" % sys.version_info[:3]
    assert judged["cells"][5] == "-"


BROKEN = {
    # what the host does, changes of the target: rule, piece of found, piece of remedy
    "a web server": ({"greeting": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, {}, "reach.port", "HTTP/1.1 400", "ansible_port"),
    "closes at once": ({"close": True}, {}, "reach.port", "closed before a banner", "MaxStartups"),
    "wrong key": ({}, {"key": "stranger"}, "reach.login", "stranger: refused", "stranger.pub ops@127.0.0.2"),
    "locked key": ({}, {"key": "locked"}, "reach.login", "encrypted", "ssh-add"),
    "no key": ({}, {"key": "/nonexistent/key", "key_file": "/nonexistent/key"}, "reach.login", "does not exist", "ansible_ssh_private_key_file"),
    "wrong password": ({"password": "right", "users": {}}, {"password": "wrong"}, "reach.login", "password: refused", "ansible_password"),
    "password not taken": ({}, {"key": "stranger", "password": "x"}, "reach.login", "the host takes none", "keys only"),
    "password without sshpass": ({"password": "x", "users": {}}, {"password": "x", "needs_sshpass": True}, "reach.login", "sshpass", "install sshpass"),
    "second factor": ({"also": True}, {}, "reach.login", "the host also wants", "AuthenticationMethods"),
    "no shell": ({"shell": lambda command, given: b"This account is currently not available.\n"}, {}, "reach.python", "not available", "usermod"),
    "no python": ({"shell": says("python:0:/usr/bin/python3:3.11.2", "python:127:python3:sh: python3: not found")}, {},
                  "reach.python", "none of the places", "install python3"),
    "given python is not there": ({"shell": says("python:0:/usr/bin/python3:3.11.2", "python:127:/opt/py:sh: /opt/py: not found")},
                                  {"python": "/opt/py"}, "reach.python", "/opt/py", "ansible_python_interpreter"),
    "old python": ({"shell": says("3.11.2", "3.7.9")}, {}, "reach.python", "3.7.9", "ansible-core 2.16"),
    "very old python": ({"shell": says("3.11.2", "3.6.8")}, {}, "reach.python", "3.6.8", "3.8 or later"),
    "sudo asks": ({"shell": says("sudo:0:", "sudo:1:sudo: a password is required")}, {}, "reach.sudo", "asks for a password", "--ask-become-pass"),
    "not in sudoers": ({"shell": says("sudo:0:", "sudo:1:ops is not in the sudoers file.")}, {}, "reach.sudo", "not in the sudoers", "visudo"),
    "no sudo": ({"shell": says("sudo:0:", "sudo:127:sh: sudo: not found")}, {}, "reach.sudo", "no sudo", "install sudo"),
    "clock": ({"shell": lambda command, given: ANSWER % (time.time() - 3600)}, {}, "reach.clock", "-3", "chronyc"),
    "bad option": ({}, {"extra": ["-o", "Nonsense=1"]}, "reach.name", "Nonsense".lower(), "ansible_ssh_common_args"),
    "no name": ({}, {"address": "no-such-host.invalid"}, "reach.name", "no-such-host.invalid", "ansible_host"),
    "refused": ({}, {"extra": []}, "reach.port", "refused", "sshd"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_one_thing_broken_is_named_alone(name, fleet, keys, record):
    behaviour, changes, rule, found, remedy = BROKEN[name]
    fleet.behaviour["127.0.0.2"] = behaviour
    made = target(fleet, keys, record, **changes)
    if name == "refused":
        made["arguments"] = ["-F", "none", "-o", "Port=1"]
    judged = verdict(made)
    assert [one["rule"] for one in blocking(judged)] == [rule], judged["findings"]
    assert found in blocking(judged)[0]["found"]
    assert remedy in blocking(judged)[0]["remedy"]
    assert reachability.as_survey(judged)["remedy"] == blocking(judged)[0]["remedy"]


def test_a_key_that_others_can_read_is_ignored_as_openssh_does(fleet, keys, record, tmp_path):
    open_key = str(tmp_path / "open")
    shutil.copy(keys["mine"][0], open_key)
    os.chmod(open_key, 0o644)
    judged = verdict(target(fleet, keys, record, key=open_key))
    assert blocking(judged)[0]["remedy"].startswith("chmod 600")
    assert not fleet.logins


@pytest.mark.parametrize("line, policy, state, status", [
    ("{host}", "ask", "known", "pass"), ("{other}", "ask", "changed", "fail"), ("", "ask", "new", "fail"), ("", "yes", "new", "fail"),
    ("", "accept-new", "new", "pass"), ("{other}", "accept-new", "changed", "fail"), ("@revoked {host}", "ask", "revoked", "fail"),
])
def test_the_host_key_is_judged_and_never_written(line, policy, state, status, fleet, keys, record):
    lines = {name: ssh_stub.known_hosts_line("[127.0.0.2]:%d" % fleet.port, keys[name][1]) for name in ("host", "other")}
    record.write_text(line.format(**lines))
    before = record.read_bytes()
    judged = verdict(target(fleet, keys, record, password="secret", extra=["-o", "StrictHostKeyChecking=" + policy]))
    assert judged["cells"][2] == state
    assert (judged["findings"][2]["rule"], judged["findings"][2]["status"]) == ("reach.host_key", status)
    assert record.read_bytes() == before
    if status == "fail":
        assert not fleet.logins and judged["kind"] == "host_key"


def test_no_password_for_a_host_that_is_not_known(fleet, keys, record):
    fleet.behaviour["127.0.0.2"] = {"password": "secret", "users": {}}
    record.write_text("")
    judged = verdict(target(fleet, keys, record, password="secret", extra=["-o", "StrictHostKeyChecking=accept-new"]))
    assert "kept back" in blocking(judged)[0]["found"]
    assert "password" not in [how for _address, _user, how in fleet.logins]


def test_a_become_password_is_tried_and_shown_nowhere(fleet, keys, record):
    def shell(command, given):
        if "-S" in command:
            return b"reach:sudo:0:\n" if given == b"hunter2\n" else b"reach:sudo:1:Sorry, try again.\n"
        return says("sudo:0:", "sudo:1:sudo: a password is required")(command, given)
    fleet.behaviour["127.0.0.2"] = {"shell": shell}
    become = {"method": "sudo", "user": "root", "password": "hunter2", "executable": "sudo"}
    judged = verdict(target(fleet, keys, record, become=become))
    assert judged["status"] == "pass"
    assert not [command for command in fleet.commands if "hunter2" in command]
    judged = verdict(target(fleet, keys, record, become=dict(become, password="wrong2")))
    assert blocking(judged)[0]["remedy"] == "correct ansible_become_password"
    assert "wrong2" not in str(judged)


def test_a_proxy_command_carries_the_connection(fleet, keys, record):
    code = ("import socket,sys,threading;s=socket.create_connection(('%h',%p));"
            "threading.Thread(target=lambda:[s.sendall(d) for d in iter(lambda:sys.stdin.buffer.raw.read(9999),b'')],daemon=True).start();"
            "[(sys.stdout.buffer.write(d),sys.stdout.flush()) for d in iter(lambda:s.recv(9999),b'')]")
    judged = verdict(target(fleet, keys, record, extra=["-o", 'ProxyCommand=%s -c "%s"' % (sys.executable, code)]))
    assert judged["status"] == "pass", judged["findings"]
    assert judged["cells"][0] == "by proxy"


def test_a_proxy_command_that_fails_is_quoted(fleet, keys, record):
    judged = verdict(target(fleet, keys, record, extra=["-o", "ProxyCommand=echo no way through >&2; exit 1"]))
    assert "no way through" in blocking(judged)[0]["found"]
    assert judged["sure"] is False


def test_hosts_behind_one_proxy_wait_for_their_turn_without_losing_time(fleet, keys, record, monkeypatch):
    monkeypatch.setattr(ssh_probe, "PROXIES", threading.BoundedSemaphore(1))
    made = [target(fleet, keys, record, host=host, extra=["-o", "ProxyCommand=sh -c 'sleep 1; echo %s is closed >&2; exit 1'" % host])
            for host in ("a", "b", "c", "d")]
    for host, facts in ssh_probe.probe_all(made, 1.9).items():
        assert facts["error"] == "%s is closed" % host and "late" not in facts


def test_a_jump_host_becomes_openssh_with_nothing_accepted(fleet, keys, record, tmp_path):
    seen, tool = tmp_path / "seen", tmp_path / "ssh"
    tool.write_text('#!/bin/sh\nif [ "$1" = -G ]; then exec ssh "$@"; fi\necho "$@" > %s\necho jump host is down >&2\nexit 255\n' % seen)
    tool.chmod(0o755)
    judged = verdict(target(fleet, keys, record, extra=["-J", "one,two@jump:2200"], ssh=str(tool)))
    assert "jump host is down" in blocking(judged)[0]["found"]
    words = seen.read_text().split()
    assert words[-1] == "ssh://two@jump:2200" and words[words.index("-J") + 1] == "one"
    assert "StrictHostKeyChecking=yes" in words and "BatchMode=yes" in words


def test_what_paramiko_cannot_do_is_no_failure(fleet, keys, record):
    judged = verdict(target(fleet, keys, record, key="stranger", unsupported=["pkcs11_provider"]))
    assert judged["status"] == "unknown"
    assert "handed to Ansible's own connection" in blocking(judged)[0]["found"]
    assert reachability.as_survey(judged) is None
    judged = verdict({"host": "here", "handed_over": "ansible_connection is local"})
    assert judged["status"] == "unknown"


def test_without_ssh_on_the_controller_paramiko_reads_the_configuration(fleet, keys, record):
    judged = verdict(target(fleet, keys, record, ssh="/nonexistent/ssh"))
    assert judged["status"] == "pass", judged["findings"]


def test_a_mute_host_costs_its_deadline_and_no_more(fleet, keys, record):
    fleet.behaviour["127.0.0.2"] = {"mute": True}
    judged = verdict(target(fleet, keys, record), deadline_s=0.5)
    assert "no answer to 'port' within 0.5 s" in blocking(judged)[0]["found"]
    assert judged["sure"] is True


@pytest.mark.parametrize("behaviour, rule, step", [
    ({"thinks": 5}, "reach.login", "login"), ({"shell": lambda command, given: time.sleep(5) or b""}, "reach.python", "shell"),
])
def test_a_slow_step_is_no_refusal(behaviour, rule, step, fleet, keys, record):
    fleet.behaviour["127.0.0.2"] = behaviour
    judged = verdict(target(fleet, keys, record), deadline_s=1.5)
    assert [(one["rule"], one["status"]) for one in blocking(judged)] == [(rule, "fail")]
    assert "no answer to '%s'" % step in blocking(judged)[0]["found"]
    assert judged["sure"] is False


def test_what_has_no_deadline_of_its_own_is_left_behind(fleet, keys, record, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(ssh_probe.socket, "getaddrinfo", lambda *arguments: free.wait(30) and [])
    judged = verdict(target(fleet, keys, record), deadline_s=0.2)
    free.set()
    assert "no answer to 'name'" in blocking(judged)[0]["found"]


def test_a_hundred_hosts_at_once_fit_a_screen(fleet, keys, record):
    for number in (7, 8, 9):
        fleet.behaviour["127.0.1.%d" % number] = {"close": True}
    fleet.behaviour["127.0.1.20"] = {"greeting": b"220 mail.example.net ESMTP\r\n"}
    made = [target(fleet, keys, record, host="a2-%d" % number, address="127.0.1.%d" % number) for number in range(1, 101)]
    found = ssh_probe.probe_all(made, 60.0)
    assert len(found) == 100
    summary = reachability.summary({host: reachability.judge(facts, MINIMUM, CORE) for host, facts in found.items()})
    text = gate_table.render(summary, reachability.HEADINGS)
    assert "a2-[1-6,10-19,21-100]  pass" in text
    assert "a2-[7-9]" in text and "220 mail.example.net ESMTP" in text
    assert text.endswith("100 hosts: 96 pass, 4 fail, 0 unknown")
    assert len(text.split("\n")) < 25


def test_paramiko_that_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(ssh_probe, "paramiko", None)
    monkeypatch.setattr(ssh_probe, "PARAMIKO_ERROR", ImportError("No module named 'paramiko'"), raising=False)
    with pytest.raises(ssh_probe.ProbeError, match="pip install -r requirements.txt"):
        ssh_probe.probe_all([], 1.0)
