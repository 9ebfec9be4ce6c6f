# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of instances, gathered on their host, and the prover at work on all of them at once. This file does I/O."""

from __future__ import annotations

import glob
import http.client
import json
import os
import socket
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import attestation
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import causes
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import smoke
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey_sources
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

TOOL_S = 30.0
HTTP_S = 10.0
CHIPS_S = 5.0
TAIL = 20


class Watcher:
    """Asks systemd about all units at once, and npu-smi about all chips, and keeps the answers for a while."""

    def __init__(self, systemctl, units, npu_smi=None, kept=None):
        self.command = [systemctl, "show", "--no-pager", "--property=" + ",".join(release.SHOW)] + units
        self.lock = threading.Lock()
        self.asked, self.shown, self.error = None, {}, None
        self.npu_smi, self.looked, self.seen = npu_smi, None, None
        self.tables = (kept or {}).get("tables")
        if kept and kept["units"].get("text"):
            self.asked, self.shown = kept["units"]["read_at"], release.parse_show(kept["units"]["text"])

    def unit(self, name, fresh=False):
        """Properties of a unit; {"error": ...} when systemd does not answer."""
        with self.lock:
            if fresh or self.asked is None or time.monotonic() - self.asked >= domain.WATCH_S:
                result = container_cli.run(self.command, TOOL_S)
                self.shown = release.parse_show(result["stdout"]) if result["rc"] == 0 else {}
                self.error = None if result["rc"] == 0 else "systemctl show: " + (container_cli.last_line(result["stderr"]) or "no answer")
                self.asked = time.monotonic()
            return self.shown.get(name) or {"error": self.error or "systemd does not know %s" % name}

    def sockets(self, port):
        """Inodes of the sockets that listen on a port; a survey that has just read the tables spares the kernel the work."""
        known = self.tables
        if known and time.monotonic() - known["read_at"] < domain.WATCH_S:
            found = [inode for text in known["texts"] for inode in domain.listeners(text, port)]
            if found:
                return found
        found = []
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                with open(table) as stream:
                    found += domain.listeners(stream.read(), port)
            except FileNotFoundError:
                continue
        return found

    def chips(self):
        """What npu-smi says of all chips, see endpoint.judge_chips; one call serves the instances that ask at about the same time."""
        with self.lock:
            if self.looked is None or time.monotonic() - self.looked >= CHIPS_S:
                started = time.monotonic()
                path = survey_sources.find_tool("npu-smi", self.npu_smi) or "npu-smi"
                done = container_cli.run([path, "info"], TOOL_S)
                info = survey.npu_smi_result(
                    path, done["rc"], done["timed_out"], time.monotonic() - started, done["stdout"], done["stderr"], None)["info"]
                chips = survey.join_chips(info, glob.glob("/dev/davinci*"))[1]
                self.seen = {"health": dict((chip["device"], chip["health"]) for chip in chips if chip["device"]),
                             "error": "npu-smi: %s" % info.get("reason", info["kind"]) if info.get("error") else None}
                self.looked = time.monotonic()
            return self.seen


class Deadline:
    """Cuts a connection after a time, whatever it is doing; a socket's own timeout starts anew with every byte."""

    def __init__(self, connection, seconds):
        # http.client lets go of its socket when the server announces a close, so it is kept here.
        self.sock = connection.sock
        self.hit = False
        self.timer = threading.Timer(seconds, self._cut)
        self.timer.daemon = True

    def _cut(self):
        self.hit = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Closed already: then nobody waits for it either.
            return

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *unused):
        self.timer.cancel()


def ask(address, port, path, body=None, seconds=HTTP_S, headers=None):
    """GET, or POST of a JSON body: (HTTP status or None, text or what went wrong)."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    late = "no answer within %.0f s" % seconds
    try:
        connection.connect()
        with Deadline(connection, seconds) as deadline:
            if body is None:
                connection.request("GET", path, headers=headers or {})
            else:
                connection.request("POST", path, json.dumps(body), dict(headers or {}, **{"Content-Type": "application/json"}))
            answer = connection.getresponse()
            text = answer.read(domain.ANSWER_LIMIT).decode("utf-8", "replace")
        return (None, late) if deadline.hit else (answer.status, text)
    except socket.timeout:
        return None, late
    except (OSError, http.client.HTTPException) as error:
        return None, "no proper answer: %s: %s" % (type(error).__name__, error)
    finally:
        connection.close()


class Probes:
    """The evidence of one instance: HTTP, /proc, systemd, the engine, the journal."""

    def __init__(self, instance, params, watcher, engine):
        self.instance, self.params, self.watcher, self.engine = instance, params, watcher, engine
        self.key = params["api_keys"].get(instance["name"]) or (read_key(instance["name"]) if instance.get("secret") else None)
        self.known = None
        self.since = self.begun()

    def begun(self):
        """Second of the epoch since when the journal matters: earlier lines tell of releases that are gone."""
        started = int(self.unit().get("InactiveExitTimestampMonotonic") or 0) / 1e6
        return int(time.time() - (time.monotonic() - started if started else 0)) - 1

    def unit(self):
        return self.watcher.unit(self.instance["unit"])

    def refresh(self):
        self.watcher.unit(self.instance["unit"], fresh=True)

    def connect(self):
        try:
            socket.create_connection((self.params["address"], self.instance["port"]), timeout=2).close()
        except OSError:
            return False
        return True

    def owners(self):
        """Who listens on the port; looked up again only when the sockets or the container change."""
        inodes = self.watcher.sockets(self.instance["port"])
        if not inodes:
            return {"ours": [], "foreign": [], "error": "no listener in /proc/net/tcp on port %s" % self.instance["port"]}
        data, error = self.container()
        why = container_cli.paused(data or {})
        if why:
            return {"ours": [], "foreign": [], "error": None, "paused": why}
        pid = ((data or {}).get("State") or {}).get("Pid") or None
        mark = (sorted(inodes), pid)
        if self.known is None or self.known[0] != mark:
            self.known = (mark, self._owners(inodes, pid, error))
        return self.known[1]

    def _owners(self, inodes, ancestor, error):
        holders, parents = scan_processes(set(inodes))
        answer = {"ours": [], "foreign": [], "error": error}
        for inode in inodes:
            pids = holders.get(inode)
            if not pids:
                answer["error"] = "the process behind socket %s on port %s is not visible to us" % (inode, self.instance["port"])
                return dict(answer, ours=[])
            for pid in pids:
                ours = bool(ancestor) and domain.descends(pid, ancestor, parents)
                answer["ours" if ours else "foreign"].append(describe(pid))
        return answer

    def container(self):
        """(what the engine says of the container or None, what went wrong)."""
        data = (self.params.get("containers") or {}).get(self.instance["container"])
        if data is None:
            # The survey of a look has asked already; docker's command line costs what a fifth of a survey does.
            result = self.engine.run(["container", "inspect", self.instance["container"]], check=False)
            try:
                data = json.loads(result["stdout"])[0]
            except (ValueError, IndexError):
                return None, "container %s: %s" % (self.instance["container"], container_cli.last_line(result["stderr"]) or "not found")
        labels = (data.get("Config") or {}).get("Labels") or {}
        if labels.get(release.INSTANCE_LABEL) != self.instance["name"]:
            return None, "container %s is not ours" % self.instance["container"]
        wanted = self.instance.get("release")
        wanted = wanted.get("id") if isinstance(wanted, dict) else wanted
        if wanted and labels.get(release.RELEASE_LABEL, wanted) != wanted:
            return None, "container %s is of release %s, not %s" % (self.instance["container"], labels[release.RELEASE_LABEL], wanted)
        return data, None

    def attestation(self):
        """Evidence on the patched files, see attestation.judge."""
        data, error = self.container()
        return attestation.read(data, self.engine, not self.params["quick"] or self.params.get("smoke")) if data else {"error": error}

    def ask(self, path, body=None, seconds=HTTP_S):
        """GET, or POST of a JSON body: (HTTP status or None, text or what went wrong)."""
        return ask(self.params["address"], self.instance["port"], path, body, seconds, self.headers())

    def headers(self):
        return {"Authorization": "Bearer " + self.key} if self.key else {}

    def health(self):
        return self.ask("/health")

    def head(self):
        """/health of the group that this instance computes for, at its head."""
        return ask(self.instance["group"]["address"], self.instance["port"], "/health")

    def given_up(self):
        """Why it needs no proof any more, or None: the word of who follows the change."""
        return self.params["given_up"]() if self.params.get("given_up") else None

    def models(self):
        return self.ask("/v1/models")

    def tool_call(self):
        """One chat completion that should end in a call."""
        body = dict(domain.TOOL_QUESTION, model=self.instance["served_model_name"])
        return self.ask("/v1/chat/completions", body, self.params["first_token_s"] + 2 * self.params["gap_s"])

    def chips(self):
        return self.watcher.chips()

    def complete(self, path="/v1/chat/completions", body=None):
        """One streamed completion, the gate's own question by default; see endpoint.judge_completion."""
        body = json.dumps(body or {
            "model": self.instance["served_model_name"], "messages": [{"role": "user", "content": domain.QUESTION}],
            "max_tokens": domain.MAX_TOKENS, "temperature": 0, "seed": 0, "stream": True})
        outcome = {"status": None, "error": None, "stream": domain.Stream(), "first_token_s": None, "elapsed_s": 0.0}
        started, first, gap = time.monotonic(), self.params["first_token_s"], self.params["gap_s"]
        connection = http.client.HTTPConnection(self.params["address"], self.instance["port"], timeout=first)
        try:
            connection.connect()
            # The loop below minds first token and gaps; this ends what it cannot see, such as a header that never ends.
            with Deadline(connection, first + 2 * gap) as deadline:
                connection.request("POST", path, body, dict(self.headers(), **{"Content-Type": "application/json"}))
                self._receive(connection.getresponse(), deadline.sock, started, outcome)
            if deadline.hit:
                outcome["error"] = "the answer took longer than %g s" % (first + 2 * gap)
        except socket.timeout:
            outcome["error"] = "no first token within %g s" % first if outcome["first_token_s"] is None else "no token for %g s" % gap
        except (OSError, http.client.HTTPException) as error:
            outcome["error"] = "no proper answer: %s: %s" % (type(error).__name__, error)
        finally:
            outcome["elapsed_s"] = time.monotonic() - started
            connection.close()
        return outcome

    def _receive(self, answer, sock, started, outcome):
        outcome["status"] = answer.status
        if answer.status != 200:
            text = answer.read(4096).decode("utf-8", "replace")
            outcome["error"] = domain.error_of(text) or domain.shorten(text)
            return
        stream, last = outcome["stream"], started
        while not stream.done and not stream.error:
            limit = self.params["first_token_s" if outcome["first_token_s"] is None else "gap_s"]
            left = limit - (time.monotonic() - last)
            if left <= 0:
                raise socket.timeout()
            sock.settimeout(left)
            data = answer.read1(65536)
            if not data:
                stream.end()
                return
            before = len(stream.text)
            stream.feed(data)
            if len(stream.text) > before:
                last = time.monotonic()
                if outcome["first_token_s"] is None:
                    outcome["first_token_s"] = last - started

    def journal(self, lines=300):
        """Last lines of the unit's journal, with what systemd says of it."""
        result = container_cli.run([self.params["journalctl"], "--unit", self.instance["unit"], "--since", "@%d" % self.since,
                                    "--lines", str(lines), "--output", "cat", "--no-pager", "--quiet"], TOOL_S)
        return result["stdout"].splitlines() if result["rc"] == 0 else []


def read_key(name):
    """The API key in the secret's file of an instance, or None; the server then says that it wants one."""
    try:
        with open("%s/%s.secret" % (release.SECRET_DIRECTORY, name), encoding="utf-8") as stream:
            variables = dict(line.rstrip("\n").split("=", 1) for line in stream if "=" in line)
    except OSError:
        return None
    return variables.get("VLLM_API_KEY")


def scan_processes(inodes):
    """({socket inode: [pid]} of the wanted inodes, {pid: parent pid}) from /proc."""
    holders, parents = {}, {}
    wanted = dict(("socket:[%s]" % inode, inode) for inode in inodes)
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry) as stream:
                parents[int(entry)] = int(stream.read().rsplit(")", 1)[1].split()[1])
            for handle in os.listdir("/proc/%s/fd" % entry):
                try:
                    inode = wanted.get(os.readlink("/proc/%s/fd/%s" % (entry, handle)))
                except (FileNotFoundError, PermissionError):
                    continue
                if inode:
                    holders.setdefault(inode, []).append(int(entry))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It ended while we looked, or is stronger than us; a socket without a visible owner is told as such.
            continue
    return holders, parents


def describe(pid):
    """A process in words, without its arguments, which may hold secrets."""
    words = []
    for name in ("comm", "cgroup"):
        try:
            with open("/proc/%d/%s" % (pid, name)) as stream:
                words.append(stream.read().strip().splitlines()[-1].rsplit("/", 1)[-1])
        except (OSError, IndexError):
            words.append("")
    return "pid %d (%s%s)" % (pid, words[0] or "gone", ", in " + words[1] if words[1] else "")


def prove(instance, params, watcher, engine, look_only, results):
    """Prove one instance and put the result into ``results``; runs in a thread of its own."""
    probes = Probes(instance, params, watcher, engine)
    secrets = [str(key) for key in params["api_keys"].values()] + ([probes.key] if probes.key else [])
    prover = domain.Prover(instance, probes, time.monotonic, time.sleep)
    params.get("provers", {})[instance["name"]] = prover
    try:
        result = prover.once() if look_only else prover.run()
        if params.get("smoke") and not spanning.is_member(instance):
            result["answers"] = []
            if result["ready"]:
                found, result["answers"] = smoke.run(instance, probes, lambda text: domain.redact(text, secrets))
                result["findings"] += found
                result["ready"] = all(item["status"] == "pass" for item in found)
        lines = [] if result["ready"] else probes.journal()
    except Exception as error:  # pylint: disable=broad-except
        # A fault of ours in one thread must be told as such, and must not hide the other instances' results.
        lines = []
        result = prover.result(False)
        result["findings"].append(finding(
            "endpoint", "unknown", "the gate itself failed: %s: %s" % (type(error).__name__, error), "a verdict", "endpoint_gate",
            "report this as a defect", instance=instance["name"]))
    found = " ".join(str(item["found"]) for item in result["findings"] if item["status"] != "pass")
    result["cause"] = None if result["ready"] else causes.match("\n".join(lines[-100:] + [found]))
    result["journal_tail"] = [domain.redact(line, secrets) for line in lines[-TAIL:]]
    for item in result["findings"]:
        item["found"] = domain.redact(item["found"], secrets)
    results[instance["name"]] = result


def run(params, check_mode):
    """Prove all instances; returns (result, [sentence on each that is not proven])."""
    started = time.monotonic()
    defaults = dict((key, params[key]) for key in ("rounds", "first_token_s", "gap_s"))
    defaults.update(ready_timeout_s=900, stability_window_s=10)
    instances = [domain.complete_instance(instance, defaults) for instance in params["instances"]]
    results = {}
    if instances:
        engine = container_cli.Engine(*container_cli.find_engine(params["engine"], params["engine_path"]))
        watcher = Watcher(params["systemctl"], [instance["unit"] for instance in instances], params["npu_smi_path"], params.get("kept"))
        threads = [threading.Thread(target=prove, daemon=True, args=(
            instance, params, watcher, engine, params["quick"] or check_mode, results)) for instance in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    names = [instance["name"] for instance in instances]
    open_ones = [domain.sentence(name, results[name]) for name in names if not results[name]["ready"]]
    return {"changed": False, "instances": results, "elapsed_s": round(time.monotonic() - started, 3)}, open_ones
