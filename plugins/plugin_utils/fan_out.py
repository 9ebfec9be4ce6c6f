# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One program on many hosts at once, from one task. Each host is reached by Ansible's own connection plugin, as a task of its own would.

A task costs the controller a forked worker for each host; a thread that waits for ssh costs next to nothing. Controller only.
"""

from __future__ import annotations

import os
import queue
import threading
import time

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.loader import become_loader, connection_loader

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import lean, program, ssh_target

# So many at a time at most.
WIDTH = 64
# And so many for each core of the controller whatever it does; more only while cores are idle. Key exchanges that share busy cores end late
# all together, and then sshd, sudo and Ansible's own connection run into their deadlines.
WIDTH_OF_A_CORE = 8
IDLE_SHARE = 0.2
LOOK_S = 0.1
# These run their command as a child process and keep no state between threads. Hosts behind any other are asked one after the other.
PARALLEL = ("ssh", "local")
# A link that died silently is noticed within a minute.
ALIVE = "-o ServerAliveInterval=15 -o ServerAliveCountMax=4"
GRACE_S = 30.0


class Host:
    """How Ansible would reach one host."""

    def __init__(self, action, name, hostvars):
        self.name = name
        values = ssh_target.variables(hostvars, name)
        task, play_context = action._task, action._play_context.copy()
        keys = task.dump_attrs()
        keys["timeout"] = play_context.timeout
        keys.pop("retries", None)
        if play_context.password:
            keys["password"] = play_context.password
        play_context.remote_addr = values.get("ansible_host", name)
        kind = str(values.get("ansible_connection", task.connection or "ssh"))
        self.kind = "ssh" if kind == "smart" else kind.rpartition(".")[2]
        connection = connection_loader.get("ssh" if kind == "smart" else kind, play_context, os.devnull, ansible_playbook_pid=str(os.getppid()))
        if connection is None:
            raise AnsibleError(f"the connection plugin '{kind}' was not found")
        become = self._become(values, task)
        connection.set_become_plugin(become)
        connection.set_options(task_keys=keys, var_options=dict(chosen(values, "connection", connection._load_name), _extras={}))
        shell = connection._shell
        shell.set_options(task_keys=keys, var_options=chosen(values, "shell", shell._load_name))
        if become:
            if play_context.become_pass:
                keys["become_pass"] = play_context.become_pass
            become.set_options(task_keys=keys, var_options=chosen(values, "become", become._load_name))
        if self.kind == "ssh":
            # One look needs no master of its own, which costs as much again as half a key exchange; one that is there is used.
            connection.set_option("ssh_args", "-o ControlMaster=no " + (connection.get_option("ssh_args") or ""))
            given = connection.get_option("ssh_extra_args") or ""
            if "ServerAliveInterval" not in given + (connection.get_option("ssh_args") or "") + (connection.get_option("ssh_common_args") or ""):
                connection.set_option("ssh_extra_args", f"{given} {ALIVE}".strip())
        python = str(values.get("ansible_python_interpreter") or constants.config.get_config_value("INTERPRETER_PYTHON", variables=values) or "auto")
        self.play_context = play_context
        # As Ansible decides: whoever is root already needs no sudo, which costs a login of its own.
        wanted, user = option(become, "become_user"), option(connection, "remote_user") or getattr(connection, "default_user", play_context.remote_user)
        self.escalates = bool(become) and (constants.BECOME_ALLOW_SAME_USER or wanted != user or not wanted)
        self.connection, self.python = connection, None if python.startswith("auto") else python
        self.fallbacks = constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=values)

    @staticmethod
    def _become(values, task):
        given = values.get("ansible_become")
        if not (task.become if given is None else ssh_target.is_true(given)):
            return None
        method = values.get("ansible_become_method") or task.become_method or "sudo"
        become = become_loader.get(method)
        if become is None:
            raise AnsibleError(f"the become plugin '{method}' was not found")
        return become

    def ask(self, text):
        """Run a program. :returns: its answer, or {"unreachable" or "failed": True, "msg"} in the shape of a module's result."""
        connection, command = self.connection, program.command(self.python, self.fallbacks)
        command = "/bin/sh -c " + connection._shell.quote(command)
        if self.escalates:
            command = connection.become.build_become_command(command, connection._shell)
        try:
            rc, out, err = connection.exec_command(command, in_data=text, sudoable=self.escalates)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": str(error)}
        except (AnsibleError, OSError) as error:
            return {"failed": True, "msg": str(error)}
        out, err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        if rc == 255 and self.kind == "ssh":
            return {"unreachable": True, "msg": err.strip() or "ssh ended with 255"}
        return program.answer(rc, out, err)


def option(plugin, name):
    """An option of a plugin, None of one that does not know it."""
    try:
        return plugin.get_option(name)
    except (AttributeError, KeyError):
        return None


def chosen(values, kind, name):
    """Those of a host's variables that a plugin takes options from."""
    return {key: values[key] for key in ssh_target.plugin_variables(kind, name) if key in values}


class Cores:
    """Whether this machine has had cores to spare since it was last asked; yes where nobody can tell."""

    def __init__(self, path="/proc/stat"):
        self.path, self.before = path, None
        self.spare()

    def spare(self):
        """See above."""
        try:
            with open(self.path, encoding="ascii") as stream:
                ticks = [int(word) for word in stream.readline().split()[1:9]]
        except (OSError, ValueError):
            return True
        now, before = (sum(ticks), ticks[3] + ticks[4]), self.before
        self.before = now
        return before is not None and now[0] > before[0] and (now[1] - before[1]) / (now[0] - before[0]) >= IDLE_SHARE


def timed(call, *args):
    """An answer with the beginning and the end of its round trip by the controller's clock: in between the host read its own."""
    started = time.time()
    try:
        answer = call(*args)
    except Exception as error:  # pylint: disable=broad-except
        # A connection plugin that breaks on one host must not take the thread that others wait for.
        answer = {"failed": True, "msg": "%s: %s" % (type(error).__name__, error)}
    return dict(answer, asked_epoch_s=[started, time.time()])


def ask(action, requests, entry, hostvars, deadline_s):
    """Run one function of module_utils on many hosts at once.

    :param action: the action plugin that asks; its task's keywords (become, remote_user) hold for all hosts.
    :param dict requests: {host: arguments of the function}.
    :param str entry: as of ``program.text``.
    :param float deadline_s: in which the function ends by its own account.
    :returns: {host: answer}. Never raises for what is wrong with one host.
    """
    hosts, answers, waiting, ended, running = {}, {}, queue.Queue(), queue.Queue(), {}

    def work():
        while True:
            name = waiting.get()
            if name is None:
                return
            running[name] = time.monotonic()
            ended.put((name, timed(hosts[name].ask, program.text(entry, requests[name]))))

    # Parsing is not safe in several threads at once, see github.com/python/cpython/issues/106905; what it gives is kept.
    program.text(entry, {})
    left, threads, cores, looked = 0, 0, Cores(), time.monotonic()
    least = WIDTH_OF_A_CORE * (os.cpu_count() or 1)
    for name in requests:
        try:
            hosts[name] = Host(action, name, hostvars)
        except AnsibleError as error:
            answers[name] = {"failed": True, "msg": " ".join(str(error).split())}
            continue
        if hosts[name].kind in PARALLEL and hosts[name].connection.has_pipelining:
            waiting.put(name)
            left += 1
            # The first are asked while Ansible still finds out how to reach the last.
            if threads < min(WIDTH, least):
                threading.Thread(target=work, daemon=True).start()
                threads += 1
    while left:
        if time.monotonic() - looked >= LOOK_S:
            looked = time.monotonic()
            if threads >= least and cores.spare():
                least = min(WIDTH, threads + WIDTH_OF_A_CORE)
        while threads < min(WIDTH, least) and not waiting.empty():
            threading.Thread(target=work, daemon=True).start()
            threads += 1
        try:
            name, found = ended.get(timeout=1.0 if waiting.empty() else LOOK_S)
        except queue.Empty:
            now, late = time.monotonic(), [name for name, begun in list(running.items()) if name not in answers]
            for name in [name for name in late if now - running[name] > deadline_s + GRACE_S]:
                answers[name] = {"unreachable": True, "msg": "timed out: no answer within %.0f s" % (deadline_s + GRACE_S)}
                left -= 1
                # Its thread is lost to a host that hangs; another one takes its place.
                threading.Thread(target=work, daemon=True).start()
            continue
        if name not in answers:
            answers[name] = found
            left -= 1
    for _number in range(threads):
        waiting.put(None)
    for name, host in hosts.items():
        if name not in answers:
            answers[name] = _one(action, host, requests[name], entry, hostvars)
    return answers


def _one(action, host, arguments, entry, hostvars):
    """A host whose connection nobody has promised to work in threads."""
    if host.connection.has_pipelining:
        return timed(host.ask, program.text(entry, arguments))
    bound = type(action)(task=action._task, connection=host.connection, play_context=host.play_context, loader=action._loader,
                         templar=action._templar, shared_loader_obj=action._shared_loader_obj)
    try:
        return timed(lean.execute, bound, entry, arguments, hostvars[host.name])
    except AnsibleConnectionFailure as error:
        return {"unreachable": True, "msg": str(error)}
    except AnsibleError as error:
        return {"failed": True, "msg": " ".join(str(error).split())}
