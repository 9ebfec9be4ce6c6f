#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_gate
short_description: Prove that the instances of a host answer, themselves, rightly and for long enough
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Waits on the host, for all its instances at the same time, until each is proven or cannot be any more.
  - An instance is proven when its unit is active and does not restart, the listener on its port belongs to its container and to
    nobody else, C(/health) is 200, C(/v1/models) names the right model and context length, a streamed completion keeps its
    deadlines, the answer is readable text and the same over several rounds at temperature 0, and all of it holds for a window.
  - An instance that declares parsers for reasoning or tool calls must show that they work, and its NPUs must be healthy in the end.
  - A unit that failed, a crash loop, a foreign process on the port and a wrong model end the wait at once.
  - A deadline is extended while the engine's log shows progress, at most to twice its length.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details: In check mode the module judges once what runs now and never fails, because nothing was started.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  instances:
    description:
      - The instances, as the plan gives them. Read are C(name), C(unit), C(container), C(port), C(served_model_name), C(max_model_len),
        C(ready_timeout_s), C(stability_window_s), C(arguments) and C(devices).
      - C(expected_answer) is a regular expression that the answer to the fixed question must contain; by default any readable text will do.
      - C(sanity=text) switches the judgement of repetition off, for models that babble by nature.
    type: list
    elements: dict
    required: true
  api_keys:
    description: For each instance by name its API key.
    type: dict
    default: {}
  quick:
    description: Judge once, without waiting and without a window.
    type: bool
    default: false
  smoke:
    description:
      - Ask what deployers ask by hand as well, once the instance is proven. A free answer, one answer in three rounds, arithmetic, a fact, Chinese, a plain
        completion, and reasoning and a tool call where they are declared. The answers are returned.
    type: bool
    default: false
  rounds:
    description: How often the question is asked.
    type: int
    default: 3
  first_token_s:
    description: Deadline of the first token of a completion, in seconds.
    type: float
    default: 60
  gap_s:
    description: Longest time between two tokens, in seconds.
    type: float
    default: 30
  address:
    description: Where the instances listen, as seen from their host.
    type: str
    default: 127.0.0.1
  engine:
    description: The container engine; found out when not given.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine's command.
    type: path
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
  journalctl:
    description: The C(journalctl) to use.
    type: str
    default: journalctl
  npu_smi_path:
    description: Path of C(npu-smi), which tells the health of C(devices) in the end; found out when not given.
    type: path
seealso:
  - module: vllm_ascend.fleet.release
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Wait until all models of this host are proven
  vllm_ascend.fleet.endpoint_gate:
    instances: "{{ plan.hosts[inventory_hostname].instances }}"
    api_keys: "{{ fleet_api_keys }}"

- name: Look once
  vllm_ascend.fleet.endpoint_gate:
    quick: true
    instances:
      - name: gemma-4-e2b-it
        port: 8000
        served_model_name: gemma-4-E2B-it
"""

RETURN = r"""
instances:
  description: What was found of each instance, by name.
  returned: always
  type: dict
  contains:
    ready:
      description: Whether the instance is proven.
      type: bool
    elapsed_s:
      description: Time until it was ready, or until the gate gave up, in seconds.
      type: float
    phase:
      description: How far the engine came, by its log.
      type: str
    findings:
      description: One finding for each rule that was asked, in order.
      type: list
      elements: dict
    journal_tail:
      description: Last lines of the unit's journal, without secrets; empty when the instance is proven.
      type: list
      elements: str
    cause:
      description: The known cause that the journal points at, null when there is none.
      type: dict
    answers:
      description: What was answered to each check, without secrets. With O(smoke=true).
      type: list
      elements: dict
  sample:
    gemma-4-e2b-it:
      ready: true
      elapsed_s: 42.1
      phase: ready
      findings: []
      journal_tail: []
      cause: null
elapsed_s:
  description: How long the gate took, in seconds.
  returned: always
  type: float
  sample: 52.4
"""

import glob
import http.client
import json
import os
import socket
import threading
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import causes
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import smoke
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey_sources
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

TOOL_S = 30.0
HTTP_S = 10.0
CHIPS_S = 5.0
TAIL = 20


class Watcher:
    """Asks systemd about all units at once, and npu-smi about all chips, and keeps the answers for a while."""

    def __init__(self, systemctl, units, npu_smi=None):
        self.command = [systemctl, "show", "--no-pager", "--property=" + ",".join(release.SHOW)] + units
        self.lock = threading.Lock()
        self.asked, self.shown, self.error = None, {}, None
        self.npu_smi, self.looked, self.seen = npu_smi, None, None

    def unit(self, name, fresh=False):
        """Properties of a unit; {"error": ...} when systemd does not answer."""
        with self.lock:
            if fresh or self.asked is None or time.monotonic() - self.asked >= domain.WATCH_S:
                result = container_cli.run(self.command, TOOL_S)
                self.shown = release.parse_show(result["stdout"]) if result["rc"] == 0 else {}
                self.error = None if result["rc"] == 0 else "systemctl show: " + (container_cli.last_line(result["stderr"]) or "no answer")
                self.asked = time.monotonic()
            return self.shown.get(name) or {"error": self.error or "systemd does not know %s" % name}

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


class Probes:
    """The evidence of one instance: HTTP, /proc, systemd, the engine, the journal."""

    def __init__(self, instance, params, watcher, engine):
        self.instance, self.params, self.watcher, self.engine = instance, params, watcher, engine
        self.key = params["api_keys"].get(instance["name"])
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
        inodes = []
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                with open(table) as stream:
                    inodes += domain.listeners(stream.read(), self.instance["port"])
            except FileNotFoundError:
                continue
        if not inodes:
            return {"ours": [], "foreign": [], "error": "no listener in /proc/net/tcp on port %s" % self.instance["port"]}
        pid, error = self.container_pid()
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

    def container_pid(self):
        """(pid of the container's first process or None, what went wrong)."""
        result = self.engine.run(["container", "inspect", self.instance["container"]], check=False)
        try:
            data = json.loads(result["stdout"])[0]
        except (ValueError, IndexError):
            return None, "container %s: %s" % (self.instance["container"], container_cli.last_line(result["stderr"]) or "not found")
        if ((data.get("Config") or {}).get("Labels") or {}).get(release.INSTANCE_LABEL) != self.instance["name"]:
            return None, "container %s is not ours" % self.instance["container"]
        return (data.get("State") or {}).get("Pid") or None, None

    def ask(self, path, body=None, seconds=HTTP_S):
        """GET, or POST of a JSON body: (HTTP status or None, text or what went wrong)."""
        connection = http.client.HTTPConnection(self.params["address"], self.instance["port"], timeout=seconds)
        late = "no answer within %.0f s" % seconds
        try:
            connection.connect()
            with Deadline(connection, seconds) as deadline:
                if body is None:
                    connection.request("GET", path, headers=self.headers())
                else:
                    connection.request("POST", path, json.dumps(body), dict(self.headers(), **{"Content-Type": "application/json"}))
                answer = connection.getresponse()
                text = answer.read(domain.ANSWER_LIMIT).decode("utf-8", "replace")
            return (None, late) if deadline.hit else (answer.status, text)
        except socket.timeout:
            return None, late
        except (OSError, http.client.HTTPException) as error:
            return None, "no proper answer: %s: %s" % (type(error).__name__, error)
        finally:
            connection.close()

    def headers(self):
        return {"Authorization": "Bearer " + self.key} if self.key else {}

    def health(self):
        return self.ask("/health")

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
    secrets = [str(key) for key in params["api_keys"].values()]
    probes = Probes(instance, params, watcher, engine)
    prover = domain.Prover(instance, probes, time.monotonic, time.sleep)
    try:
        result = prover.once() if look_only else prover.run()
        if params["smoke"]:
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
        watcher = Watcher(params["systemctl"], [instance["unit"] for instance in instances], params["npu_smi_path"])
        threads = [threading.Thread(target=prove, daemon=True, args=(
            instance, params, watcher, engine, params["quick"] or check_mode, results)) for instance in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    names = [instance["name"] for instance in instances]
    open_ones = [domain.sentence(name, results[name]) for name in names if not results[name]["ready"]]
    return {"changed": False, "instances": results, "elapsed_s": round(time.monotonic() - started, 3)}, open_ones


def main():
    module = AnsibleModule(
        argument_spec=dict(
            instances=dict(type="list", elements="dict", required=True),
            api_keys=dict(type="dict", default={}, no_log=True),
            quick=dict(type="bool", default=False),
            smoke=dict(type="bool", default=False),
            rounds=dict(type="int", default=3),
            first_token_s=dict(type="float", default=60, no_log=False),
            gap_s=dict(type="float", default=30),
            address=dict(type="str", default="127.0.0.1"),
            engine=dict(type="str", choices=["docker", "podman"]),
            engine_path=dict(type="path"),
            systemctl=dict(type="str", default="systemctl"),
            journalctl=dict(type="str", default="journalctl"),
            npu_smi_path=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    try:
        result, open_ones = run(module.params, module.check_mode)
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), **error.result)
    except ValueError as error:
        module.fail_json(msg=str(error))
    if module.check_mode:
        said = "".join("; " + text for text in open_ones)
        module.exit_json(msg="check mode: judged what runs now; nothing was started, so nothing is refused" + said, **result)
    if open_ones:
        more = " (and %d more)" % (len(open_ones) - 1) if len(open_ones) > 1 else ""
        module.fail_json(msg="%d of %d instances not proven: %s%s" % (len(open_ones), len(result["instances"]), open_ones[0], more), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
