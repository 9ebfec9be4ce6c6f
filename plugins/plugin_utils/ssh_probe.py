# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks up to a host with paramiko, step by step, and notes how far it came. Accepts and changes nothing.

What OpenSSH itself would do is asked from ``ssh -G``; ``module_utils.reachability`` says what the notes mean.
"""

from __future__ import annotations

import getpass
import logging
import os
import pathlib
import queue
import shlex
import socket
import subprocess
import tempfile
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import known_hosts, reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.ssh_target import ProbeError

PARAMIKO_ERROR = None
try:
    import paramiko
except ImportError as error:
    paramiko, PARAMIKO_ERROR = None, error

# So many hosts are asked at a time; most of the time is spent waiting.
WIDTH = 64
# And so many through proxies, which may all lead over one jump host: sshd's MaxStartups drops some beyond ten.
PROXIES = threading.BoundedSemaphore(8)
LOG = "vllm_ascend.fleet.reach"
PARAMIKO_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256")


def require_paramiko():
    """:raises ProbeError: when paramiko is missing."""
    if paramiko is None:
        raise ProbeError("paramiko is not installed beside ansible-core (%s): pip install -r requirements.txt" % PARAMIKO_ERROR)


def probe_all(targets, deadline_s):
    """Probe hosts at once.

    :param list targets: as of ``ssh_target.resolve``. :param float deadline_s: for each of them.
    :returns: {host: facts}. A host that hangs where no deadline can be set (a resolver, an agent) is left behind with what is known.
    :raises ProbeError: when paramiko is missing.
    """
    require_paramiko()
    ended, running, waiting, found = queue.Queue(), {}, list(reversed(targets)), {}

    def work(target, facts):
        probe(target, deadline_s, facts)
        ended.put(target["host"])

    while waiting or running:
        while waiting and len(running) < WIDTH:
            target = waiting.pop()
            facts = {"host": target["host"]}
            running[target["host"]] = (time.monotonic() + deadline_s + 1, facts)
            threading.Thread(target=work, args=(target, facts), daemon=True).start()
        first = min(end + facts.get("queued", 0) for end, facts in running.values())
        try:
            done = [ended.get(timeout=min(1.0, max(0.01, first - time.monotonic())))]
        except queue.Empty:
            done = [host for host, (end, facts) in running.items() if end + facts.get("queued", 0) <= time.monotonic()]
            for host in done:
                running[host][1].update(late=running[host][1].get("step", "name"), deadline_s=deadline_s)
        for host in done:
            if host in running:
                found[host] = dict(running.pop(host)[1])
    return found


def probe(target, deadline_s, facts=None):
    """Walk up to one host.

    :returns: facts for ``reachability.judge``; as far as it came, never an exception of the network.
    """
    facts = {} if facts is None else facts
    facts.update(host=target["host"], deadline_s=deadline_s, step="name")
    if target.get("handed_over"):
        facts["handed_over"] = target["handed_over"]
        return facts
    walk = _Walk(target, facts, time.monotonic() + deadline_s)
    try:
        walk.run()
    except (socket.timeout, TimeoutError):
        facts["late"] = facts["step"]
    except (paramiko.SSHException, OSError, EOFError) as error:
        facts["error"] = _words(error)
        if time.monotonic() >= walk.end:
            facts["late"] = facts["step"]
    finally:
        walk.close()
    return facts


def _words(error):
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return " ".join(text.split())[:200]


class _Proxy:
    """A ProxyCommand at work. paramiko's own spins when the command ends, and keeps what it said to itself."""

    def __init__(self, command):
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()
        with theirs:
            # OpenSSH gives it to a shell as well.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", "exec " + command], stdin=theirs, stdout=theirs, stderr=self._errors, start_new_session=True)

    def says(self):
        """The last words of the command, after it has ended."""
        self.stop()
        self._errors.seek(0)
        return " ".join(self._errors.read(4096).decode("utf-8", "replace").split())[-200:]

    def stop(self):
        """End it, the kind way first."""
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()


class _Walk:
    """One attempt; its notes go to facts as they are made."""

    def __init__(self, target, facts, end):
        self.target, self.facts, self.end = target, facts, end
        self.config, self.socket, self.transport, self.proxy = {}, None, None, None

    def left(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise socket.timeout()
        return left

    def run(self):
        self._read_config()
        if self.facts.get("config_error"):
            return
        self._connect()
        if not self.facts.get("banner"):
            return
        self._host_key()
        state, policy = self.facts["host_key"]["state"], self.facts["host_key"]["policy"]
        if state == "known" or state in ("new", "authority") and policy in ("accept-new", "no", "off", "false"):
            # A password is for known hosts only.
            self._login(self.target["password"] if state == "known" else None)
            if self.facts["login"]["by"]:
                self._shell()

    def close(self):
        for thing in (self.transport, self.socket):
            if thing is not None:
                thing.close()
        if self.proxy:
            self.proxy.stop()
            PROXIES.release()

    def option(self, name, default=""):
        return (self.config.get(name) or [default])[0]

    def _read_config(self):
        command = [self.target["ssh"], "-G"] + self.target["arguments"] + [self.target["address"]]
        try:
            run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.left(), check=False)
        except FileNotFoundError:
            self.config = _config_without_ssh(self.target)
        except subprocess.TimeoutExpired as error:
            raise socket.timeout() from error
        else:
            if run.returncode:
                self.facts["config_error"] = "ssh -G %s: %s" % (self.target["address"], " ".join(run.stderr.split())[:200])
                return
            self.config = reachability.parse_config(run.stdout)
        self.user = self.option("user") or getpass.getuser()
        self.facts.update(hostname=self.option("hostname", self.target["address"]), port=int(self.option("port", "22")),
                          become=self.target["become"] and {"method": self.target["become"]["method"], "user": self.target["become"]["user"]},
                          python=self.target["python"])

    def _connect(self):
        proxy = self._proxy()
        if proxy:
            self.facts.update(proxy=proxy, step="port", connected=True)
            # Its turn does not count; until it comes nobody waits for this host.
            began, self.facts["queued"] = time.monotonic(), float("inf")
            PROXIES.acquire()
            self.facts["queued"] = time.monotonic() - began
            self.end += self.facts["queued"]
            try:
                self.proxy = _Proxy(proxy)
            finally:
                if self.proxy is None:
                    PROXIES.release()
            self.socket = self.proxy.socket
        else:
            self.facts["step"] = "name"
            found = socket.getaddrinfo(self.facts["hostname"], self.facts["port"], self._family(), socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(entry[4][0] for entry in found))
            self.facts.update(addresses=addresses, step="port")
            for number, address in enumerate(addresses, 1):
                try:
                    # A host with several addresses gets its share of the time for each.
                    self.socket = socket.create_connection((address, self.facts["port"]), timeout=self.left() / (len(addresses) - number + 1))
                    break
                except OSError as error:
                    self.facts["error"] = "no answer" if isinstance(error, TimeoutError) else _words(error)
            if self.socket is None:
                return
            self.facts.update(connected=True, error=None)
        if not self._speaks_ssh():
            return
        self.transport = paramiko.Transport(self.socket)
        self.transport.daemon = True
        self.transport.set_log_channel(LOG)
        self.transport.banner_timeout = self.transport.handshake_timeout = self.transport.auth_timeout = self.left()
        self._prefer_known_keys()
        try:
            self.transport.start_client(timeout=self.left())
        except (paramiko.SSHException, EOFError) as error:
            self.facts["error"] = _words(error)
        if self.transport.remote_version:
            self.facts["banner"] = self.transport.remote_version

    def _family(self):
        return {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(self.option("addressfamily"), socket.AF_UNSPEC)

    def _proxy(self):
        """The command that carries the connection, or None."""
        command, jump = self.option("proxycommand", "none"), self.option("proxyjump", "none")
        if command != "none":
            parts = {"%h": self.facts["hostname"], "%p": str(self.facts["port"]), "%r": self.user, "%n": self.target["address"], "%%": "%"}
            return "".join(parts.get(piece, piece) for piece in _tokens(command))
        if jump == "none":
            return None
        # As OpenSSH does it, but a jump host that is not known is refused and not recorded.
        *further, last = jump.split(",")
        words = [self.target["ssh"], "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"]
        if "-F" in self.target["arguments"][:-1]:
            words += ["-F", self.target["arguments"][self.target["arguments"].index("-F") + 1]]
        if further:
            words += ["-J", ",".join(further)]
        if not last.startswith("ssh://"):
            last = "ssh://" + last
        host = self.facts["hostname"]
        return shlex.join(words + ["-W", "[%s]:%s" % (host, self.facts["port"]), last])

    def _speaks_ssh(self):
        """Looks at the first bytes and leaves them for paramiko."""
        seen = b""
        while b"SSH-" not in seen:
            self.socket.settimeout(self.left())
            now = self.socket.recv(1024, socket.MSG_PEEK)
            if not now:
                said = self.proxy.says() if self.proxy else ""
                self.facts["error"] = said or "closed before a banner"
                return False
            if now == seen:
                if b"\n" in seen:
                    self.facts["greeting"] = seen.partition(b"\n")[0].decode("utf-8", "replace").strip()
                    return False
                time.sleep(0.02)
            seen = now
        return True

    def _prefer_known_keys(self):
        paths = [os.path.expanduser(_expand(path, self.facts, self.user)) for name in ("userknownhostsfile", "globalknownhostsfile")
                 for path in shlex.split(self.option(name)) if path != "none"]
        entries = []
        for path in paths:
            try:
                entries += known_hosts.parse(pathlib.Path(path).read_text(encoding="utf-8", errors="replace"), path)
            except OSError:
                continue   # OpenSSH reads those that are there
        lookup = known_hosts.names(self.facts["hostname"], self.facts["port"], self.option("hostkeyalias", "none").replace("none", "") or None)
        self.known = (entries, lookup, paths)
        on_record = known_hosts.types(entries, lookup)
        options = self.transport.get_security_options()
        first = [kind for kind in options.key_types if kind in on_record or kind.startswith("rsa-sha2-") and "ssh-rsa" in on_record]
        options.key_types = tuple(first + [kind for kind in options.key_types if kind not in first])

    def _host_key(self):
        self.facts["step"] = "host key"
        if self.facts.get("error") or not self.transport.is_active():
            raise paramiko.SSHException("paramiko and the host agree on no algorithm or break off (%s)" % (self.facts.get("error") or "closed"))
        key = self.transport.get_remote_server_key()
        entries, lookup, paths = self.known
        state, where = known_hosts.judge(entries, lookup, key.get_name(), key.asbytes())
        self.facts["host_key"] = {
            "type": key.get_name(), "fingerprint": known_hosts.fingerprint(key.asbytes()), "state": state, "where": where, "files": paths[:1] or paths,
            "names": lookup, "policy": self.option("stricthostkeychecking", "ask").lower(),
            "command": self.option("knownhostscommand", "none") != "none",
        }

    def _login(self, password):
        self.facts["step"] = "login"
        login = {"user": self.user, "by": None, "tried": [], "allowed": [], "needs_sshpass": self.target["needs_sshpass"], "handed": None,
                 "encrypted": [], "exposed": [], "missing": [], "public": None, "too_many": False}
        self.facts["login"] = login
        try:
            self.transport.auth_none(self.user)
            login["by"] = "no proof at all"
            return
        except paramiko.BadAuthenticationType as error:
            login["allowed"] = list(error.allowed_types)
        for label, attempt in self._attempts(login, password):
            try:
                self.transport.auth_timeout = self.left()
                further = attempt()
            except paramiko.AuthenticationException:
                self.left()   # one that came too late is no refusal
                further = None
            except (paramiko.SSHException, EOFError):
                self.left()
                if not self.transport.is_active():
                    login["tried"].append("%s: the host broke off" % label)
                    login["too_many"] = len(login["tried"]) > 2
                    break
                further = None
            if further == []:
                login["by"] = label
                return
            login["tried"].append("%s: %s" % (label, "refused" if further is None else "accepted, but the host also wants " + ", ".join(further)))
        for name, what in (("gssapi-with-mic", "GSSAPI"), ("hostbased", "host-based login")):
            if name in login["allowed"] and self.option({"hostbased": "hostbasedauthentication"}.get(name, "gssapiauthentication")) == "yes":
                login["handed"] = what
        if self.target["unsupported"]:
            login["handed"] = ", ".join(self.target["unsupported"])
        agent = self.option("identityagent", "SSH_AUTH_SOCK")
        if agent not in ("SSH_AUTH_SOCK", "none", os.environ.get("SSH_AUTH_SOCK")):
            login["handed"] = "the agent %s" % agent

    def _attempts(self, login, password):
        """(what it is, call) in OpenSSH's order: named keys in the agent, other keys of the agent, named keys from files, password."""
        agent_keys = {}
        if self.option("identityagent", "SSH_AUTH_SOCK") != "none" and "publickey" in login["allowed"]:
            agent_keys = {key.asbytes(): key for key in paramiko.Agent().get_keys()}
        files, named = [], {}
        for path in dict.fromkeys(os.path.expanduser(_expand(path, self.facts, self.user)) for path in self.config.get("identityfile") or ()):
            files.append(path)
            named[path] = _public_blob(path)
        chosen = [(path, agent_keys.pop(blob)) for path, blob in named.items() if blob in agent_keys]
        served = [path for path, _key in chosen]
        if "publickey" in login["allowed"] and self.option("pubkeyauthentication", "yes") not in ("no", "false"):
            for path, key in chosen:
                yield "key %s of the agent" % path, lambda key=key: self.transport.auth_publickey(self.user, key)
            for key in agent_keys.values() if self.option("identitiesonly") != "yes" else ():
                yield "agent key %s" % (getattr(key, "comment", "") or key.get_name()), lambda key=key: self.transport.auth_publickey(self.user, key)
            for path in files:
                key = None if path in served else self._load(path, login)
                if key is not None:
                    login["public"] = login["public"] or path + ".pub"
                    yield "key %s" % path, lambda key=key: self.transport.auth_publickey(self.user, key)
        if password and login["needs_sshpass"]:
            login["tried"].append("password: Ansible needs sshpass for it")
        elif password and set(login["allowed"]) & {"password", "keyboard-interactive"}:
            yield "password", lambda: self.transport.auth_password(self.user, password)
        elif password:
            login["tried"].append("password: the host takes none")
        elif self.target["password"]:
            login["tried"].append("password: kept back from a host that is not known")

    def _load(self, path, login):
        named = path == os.path.expanduser(self.target["key_file"] or "")
        try:
            mode = os.stat(path)
            if mode.st_uid == os.getuid() and mode.st_mode & 0o077:
                login["exposed"].append(path)
                login["tried"].append("key %s: mode %04o, others can read it" % (path, mode.st_mode & 0o7777))
                return None
            return paramiko.PKey.from_path(path)
        except FileNotFoundError:
            if named:
                login["missing"].append(path)
                login["tried"].append("key %s: does not exist" % path)
        except (paramiko.PasswordRequiredException, TypeError):
            login["encrypted"].append(path)
            login["tried"].append("key %s: encrypted" % path)
        except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError, OSError) as error:
            login["tried"].append("key %s: unreadable, %s" % (path, _words(error)))
        return None

    def _shell(self):
        self.facts["step"] = "shell"
        become, python = self.target["become"], self.target["python"]
        sudo = shlex.join([become["executable"], "-n", "-u", become["user"], "true"]) if become and become["method"] == "sudo" else None
        out, sent, seen = self._run(_script([python] if python else self.target["pythons"], sudo))
        answers = reachability.read_answers(out)
        if sudo and become["password"] and answers["sudo"] and answers["sudo"][0]:
            self.facts["step"] = "sudo"
            command = shlex.join([become["executable"], "-S", "-p", "", "-u", become["user"], "true"])
            said, _sent, _seen = self._run("r=$(%s 2>&1); echo reach:sudo:$?:$r" % command, become["password"] + "\n")
            answers["sudo"] = reachability.read_answers(said)["sudo"] or answers["sudo"]
        self.facts["shell"] = {"answers": answers, "said": " ".join(out.split())[:200]}
        self.facts["round_trip_s"] = seen - sent
        self.facts["clock_offset_s"] = None if answers["clock"] is None else answers["clock"] - (sent + seen) / 2

    def _run(self, script, given=""):
        """(output and errors, when it was sent, when the first of it came back) of one command."""
        channel = self.transport.open_session(timeout=self.left())
        channel.set_combine_stderr(True)
        sent, seen, chunks = time.time(), None, []
        channel.settimeout(self.left())
        channel.exec_command("/bin/sh -c %s" % shlex.quote(script))
        channel.sendall(given.encode("utf-8"))
        channel.shutdown_write()
        while True:
            channel.settimeout(self.left())
            data = channel.recv(65536)
            seen = seen or time.time()
            if not data or sum(map(len, chunks)) > 1 << 16:
                break
            chunks.append(data)
        channel.close()
        return b"".join(chunks).decode("utf-8", "replace"), sent, seen


def _script(pythons, sudo):
    """What one round trip asks; the clock comes first because the rest takes time."""
    code = "import sys; print(\\\"%d.%d.%d\\\" % sys.version_info[:3])"
    lines = ["echo reach:shell:", "echo reach:clock:$(date +%s.%N)", "set -f",
             "for p in %s; do v=$($p -c \"%s\" 2>&1); r=$?; echo reach:python:$r:$p:$v; [ $r = 0 ] && break; done" % (
                 " ".join(map(shlex.quote, pythons)), code)]
    if sudo:
        lines.append("r=$(%s 2>&1); echo reach:sudo:$?:$r" % sudo)
    return "; ".join(lines)


def _tokens(text):
    """``nc %h %p`` -> ["nc ", "%h", " ", "%p"]"""
    pieces, at = [], 0
    while at < len(text):
        step = 2 if text[at] == "%" else max(1, (text + "%").index("%", at) - at)
        pieces.append(text[at:at + step])
        at += step
    return pieces


def _expand(path, facts, user):
    parts = {"%d": os.path.expanduser("~"), "%h": facts["hostname"], "%p": str(facts["port"]), "%r": user, "%u": getpass.getuser(), "%%": "%"}
    return "".join(parts.get(piece, piece) for piece in _tokens(path))


def _public_blob(path):
    """The public half of a key in wire form, from the file beside it; None when there is none."""
    try:
        return paramiko.pkey.PublicBlob.from_file(path + ".pub").key_blob
    except (OSError, ValueError, paramiko.SSHException):
        return None


def _config_without_ssh(target):
    """As ``ssh -G``, of paramiko's reader and the options of the command line; for controllers without OpenSSH."""
    given, arguments = {}, target["arguments"]
    for flag, text in zip(arguments, arguments[1:]):
        key, _sign, value = text.partition("=")
        if flag == "-o" and value:
            given.setdefault(key.strip().lower(), []).append(value.strip().strip('"'))
    path = os.path.expanduser("~/.ssh/config")
    looked_up = paramiko.SSHConfig.from_path(path).lookup(target["address"]) if os.path.exists(path) else {}
    made = {key: value if isinstance(value, list) else [value] for key, value in looked_up.items()}
    made.update({key: values if key == "identityfile" else values[:1] for key, values in given.items()})
    made.setdefault("hostname", [target["address"]])
    made.setdefault("userknownhostsfile", ["~/.ssh/known_hosts"])
    made.setdefault("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts"])
    made.setdefault("identityfile", ["~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"])
    return made


logging.getLogger(LOG).addHandler(logging.NullHandler())
logging.getLogger(LOG).propagate = False
