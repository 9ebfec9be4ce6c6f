# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts at once: OpenSSH's client against real SSH servers on addresses of this machine, whose shell is this machine's."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import threading
import time

import paramiko
import pytest
import ssh_action
import ssh_stub

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, ssh_target

ENTRY = "lease_host:answer"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory, made = tmp_path_factory.mktemp("keys"), {}
    for name in ("host", "mine", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True, stdin=subprocess.DEVNULL)
        made[name] = (str(directory / name), paramiko.PKey.from_path(str(directory / name)))
    return made


@pytest.fixture
def fleet(keys, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = ssh_stub.Fleet({"host_key": keys["host"][1], "users": {"ops": [keys["mine"][1]]}, "shell": ssh_stub.LIVE})
    yield made
    made.close()


@pytest.fixture
def world(fleet, keys, tmp_path):
    """{host: its variables} of some hosts; each holds a lease of its own, so that no answer can be taken for another's."""
    (tmp_path / "known_hosts").write_text(ssh_stub.known_hosts_line("[127.*]:%d" % fleet.port, keys["host"][1]))
    common = {
        "ansible_port": fleet.port, "ansible_user": "ops", "ansible_ssh_private_key_file": keys["mine"][0], "ansible_python_interpreter": sys.executable,
        "ansible_ssh_args": "-F none -o ControlMaster=no -o UserKnownHostsFile=%s -o GlobalKnownHostsFile=/dev/null" % (tmp_path / "known_hosts")}

    def made(*names):
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "rollout.json").write_text(json.dumps({"rollout": name}))
        return ssh_action.HostVars((name, dict(common, ansible_host="127.0.1.%d" % number)) for number, name in enumerate(names, 1))

    return made


def ask(hosts, tmp_path, deadline_s=20.0, **keywords):
    requests = {name: {"directory": str(tmp_path / name), "act": "look"} for name in hosts}
    return fan_out.ask(ssh_action.make(**keywords), requests, ENTRY, hosts, deadline_s)


def heard(answers):
    return {name: answer["held"]["rollout"] for name, answer in answers.items() if "held" in answer}


def test_each_of_many_hosts_gives_its_own_answer(world, fleet, tmp_path):
    hosts = world(*["h%d" % number for number in range(30)])
    before = time.time()
    answers = ask(hosts, tmp_path)
    assert heard(answers) == {name: name for name in hosts}, answers
    assert all(before < answer["asked_epoch_s"][0] < answer["asked_epoch_s"][1] < time.time() for answer in answers.values())
    assert len(fleet.commands) == 30, "one round trip each"


def test_what_is_wrong_with_some_is_told_and_hinders_nobody(world, fleet, keys, tmp_path, monkeypatch):
    hosts = world("good", "refused", "stranger", "old", "no python", "mute", "noise", "odd")
    hosts["refused"]["ansible_port"] = 1
    hosts["stranger"]["ansible_ssh_private_key_file"] = keys["stranger"][0]
    hosts["no python"].update(ansible_python_interpreter="auto", ansible_interpreter_python_fallback=["no-such-python"])
    hosts["old"]["ansible_python_interpreter"] = "/no/such/python"
    hosts["odd"]["ansible_connection"] = "no_such_connection"
    # Without Ansible's own importer, which tests do not have, a plugin that does not exist is an ImportError.
    there = fan_out.connection_loader.get
    monkeypatch.setattr(fan_out.connection_loader, "get", lambda name, *args, **more: None if name == "no_such_connection" else there(name, *args, **more))
    monkeypatch.setattr(
        ssh_target, "plugin_variables", lambda kind, name, known=ssh_target.plugin_variables: [] if name == "no_such_connection" else known(kind, name)
    )
    fleet.behaviour[hosts["mute"]["ansible_host"]] = {"shell": lambda command, given: b""}
    fleet.behaviour[hosts["noise"]["ansible_host"]] = {"shell": lambda command, given: b"This account is currently not available.\n"}
    answers = ask(hosts, tmp_path)
    assert heard(answers) == {"good": "good"}
    assert answers["refused"]["unreachable"] and "Connection refused" in answers["refused"]["msg"]
    assert answers["stranger"]["unreachable"] and "Permission denied" in answers["stranger"]["msg"]
    assert answers["no python"]["rc"] == 127 and "no Python was found on this host" in answers["no python"]["module_stderr"]
    assert answers["old"]["rc"] == 127 and "/no/such/python" in answers["old"]["module_stderr"]
    assert answers["mute"]["failed"] and "currently not available" in answers["noise"]["module_stdout"]
    assert "no_such_connection" in answers["odd"]["msg"] and "\n" not in answers["odd"]["msg"]


def test_a_host_that_hangs_costs_its_deadline_and_its_place_is_taken(world, fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(fan_out, "GRACE_S", 0.0)
    monkeypatch.setattr(fan_out, "WIDTH", 1)
    release = threading.Event()
    hosts = world("hangs", "waits")
    fleet.behaviour[hosts["hangs"]["ansible_host"]] = {"shell": lambda command, given: release.wait(60) and b""}
    try:
        answers = ask(hosts, tmp_path, deadline_s=3.0)
    finally:
        release.set()
    assert answers["hangs"] == {"unreachable": True, "msg": "timed out: no answer within 3 s"} and heard(answers) == {"waits": "waits"}


def at_once(world, fleet, tmp_path, monkeypatch, spare):
    """How many of 12 hosts are asked at the same time, when one core is worth 2 of them."""
    monkeypatch.setattr(fan_out, "WIDTH_OF_A_CORE", 2)
    monkeypatch.setattr(fan_out, "LOOK_S", 0.01)
    monkeypatch.setattr(fan_out.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(fan_out.Cores, "spare", lambda self: spare)
    lock, now, most, all_here = threading.Lock(), [0], [0], threading.Event()

    def shell(command, given):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 12:
                all_here.set()
        all_here.wait(20 if spare else 0.05)
        with lock:
            now[0] -= 1
        return b""

    hosts = world(*["h%d" % number for number in range(12)])
    for values in hosts.values():
        fleet.behaviour[values["ansible_host"]] = {"shell": shell}
    assert len(ask(hosts, tmp_path)) == 12
    return most[0]


def test_more_hosts_are_asked_at_once_while_cores_are_idle(world, fleet, tmp_path, monkeypatch):
    assert at_once(world, fleet, tmp_path, monkeypatch, True) == 12


def test_no_more_hosts_are_asked_at_once_than_busy_cores_bear(world, fleet, tmp_path, monkeypatch):
    assert at_once(world, fleet, tmp_path, monkeypatch, False) <= 2


def test_idle_cores_are_read_from_the_kernel(tmp_path):
    path = tmp_path / "stat"
    path.write_text("cpu  100 0 100 700 100 0 0 0 0 0\n")
    cores = fan_out.Cores(str(path))
    assert not cores.spare(), "no time has passed"
    path.write_text("cpu  160 0 130 705 105 0 0 0 0 0\n")
    assert not cores.spare()
    path.write_text("cpu  200 0 150 730 120 0 0 0 0 0\n")
    assert cores.spare()
    assert fan_out.Cores(str(tmp_path / "none")).spare(), "where nobody can tell"


def test_a_host_key_that_changed_is_never_accepted(world, fleet, keys, tmp_path):
    hosts = world("one")
    # ansible-test switches it off for everybody.
    hosts["one"]["ansible_host_key_checking"] = True
    (tmp_path / "known_hosts").write_text(ssh_stub.known_hosts_line("[127.*]:%d" % fleet.port, keys["stranger"][1]))
    answers = ask(hosts, tmp_path)
    assert answers["one"]["unreachable"] and "host key" in answers["one"]["msg"].lower() and not fleet.commands


SUDO = """#!/bin/sh
while [ "$1" != /bin/sh ]; do [ "$1" != -p ] || prompt=$2; shift; done
[ -z "$prompt" ] || { printf '%s' "$prompt" >&2; read -r given; [ "$given" = hunter2 ] || { echo "Sorry, try again." >&2; exit 1; }; }
AS_ROOT=yes exec "$@"
"""


@pytest.mark.parametrize("password, fine", [(None, True), ("hunter2", True), ("wrong", False)])
@pytest.mark.parametrize("connection", ["ssh", "local"])
def test_privileges_are_raised_as_the_task_says(world, fleet, tmp_path, connection, password, fine):
    if connection == "local" and password == "hunter2" and os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.skip("hangs in a worker of pytest-xdist, for a reason that was not found; it runs without workers on the working core")
    (tmp_path / "sudo").write_text(SUDO)
    (tmp_path / "sudo").chmod(0o755)
    hosts = world("one")
    hosts["one"].update(ansible_connection=connection, ansible_become_exe=str(tmp_path / "sudo"), ansible_become_user="stronger")
    if password:
        hosts["one"]["ansible_become_password"] = password
    # Proof that it went through it: a Python that only root finds.
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$AS_ROOT" ] && exec %s "$@"\necho not root >&2\nexit 5\n' % sys.executable)
    (tmp_path / "python").chmod(0o755)
    hosts["one"]["ansible_python_interpreter"] = str(tmp_path / "python")
    assert ask(hosts, tmp_path)["one"]["module_stderr"].strip() == "not root"
    answer = ask(hosts, tmp_path, become=True)["one"]
    assert (heard({"one": answer}) == {"one": "one"}) is fine, answer
    assert fine or "hunter2" not in json.dumps(answer)
    assert not [command for command in fleet.commands if "hunter2" in command]
    hosts["one"]["ansible_become_user"] = "ops" if connection == "ssh" else getpass.getuser()
    assert ask(hosts, tmp_path, become=True)["one"]["module_stderr"].strip() == "not root", "whoever has logged in as that user is that user"
    hosts["one"].update(ansible_become=False, ansible_become_user="stronger")
    assert ask(hosts, tmp_path, become=True)["one"]["module_stderr"].strip() == "not root", "a host's own word counts more"


def test_the_controller_itself_may_be_a_host(world, fleet, tmp_path):
    hosts = world("one", "two")
    for values in hosts.values():
        values["ansible_connection"] = "local"
    assert heard(ask(hosts, tmp_path)) == {"one": "one", "two": "two"} and not fleet.commands


@pytest.mark.parametrize("python", [sys.executable, "auto"])
def test_a_connection_that_carries_no_standard_input_gets_a_file(world, tmp_path, python):
    (tmp_path / "plugins").mkdir()
    ssh_action.add_connections(tmp_path / "plugins")
    hosts = world("one", "two", "broken")
    for values in hosts.values():
        values.update(ansible_connection="handheld", ansible_python_interpreter=python, ansible_remote_tmp=str(tmp_path / "remote"))
    hosts["broken"]["ansible_python_interpreter"] = "/no/such/python"
    answers = ask(hosts, tmp_path)
    assert heard(answers) == {"one": "one", "two": "two"}, answers
    assert answers["broken"]["failed"] and "/no/such/python" in answers["broken"]["msg"]
    assert list((tmp_path / "remote").iterdir()) == [], "nothing of it stays"


def test_a_plugin_that_breaks_on_one_host_takes_no_thread_with_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr(fan_out, "WIDTH", 1)
    hosts, asked = world("one", "two"), fan_out.Host.ask

    def breaks(self, text):
        if self.name == "one":
            raise KeyError("a defect")
        return asked(self, text)

    monkeypatch.setattr(fan_out.Host, "ask", breaks)
    answers = ask(hosts, tmp_path)
    assert answers["one"]["failed"] and answers["one"]["msg"] == "KeyError: 'a defect'" and heard(answers) == {"two": "two"}


def test_nobody_is_nobody(tmp_path):
    assert ask(ssh_action.HostVars(), tmp_path) == {}


@pytest.mark.parametrize("given, alive", [({}, True), ({"ansible_ssh_extra_args": "-o ServerAliveInterval=5"}, False),
                                          ({"ansible_ssh_common_args": "-o ServerAliveInterval=5"}, False)])
def test_a_link_that_died_silently_is_noticed_unless_the_user_has_said_how(world, given, alive):
    hosts = world("one")
    hosts["one"].update(given)
    made = fan_out.Host(ssh_action.make(), "one", hosts)
    assert (fan_out.ALIVE in (made.connection.get_option("ssh_extra_args") or "")) is alive
