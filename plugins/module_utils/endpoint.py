# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an instance answer, itself, rightly and for long enough? Judgement of evidence, and the loop that asks for it. Pure."""

from __future__ import annotations

import json
import re
import unicodedata

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import attestation
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.spanning import is_member

POLL_S = 0.1
JOURNAL_S = 2.0
WATCH_S = 1.0
# A unit that is down for a moment is being restarted by a job of systemd's; longer, and somebody stopped it.
DOWN_GRACE_S = 3.0
# Without a new mark of progress for so long, a load past its deadline is stuck.
STALL_S = 120.0
# So many full looks in a row may fail once the server listens; a dead engine behind a living /health fails all of them.
ATTEMPTS = 3
RETRY_S = 2.0
CRASHES = 2
QUESTION = "What is the capital of France? Answer with one word."
MAX_TOKENS = 32
ANSWER_LIMIT = 1 << 20

# id: (expected, where that comes from, remedy)
RULES = {
    "endpoint.unit_active": ("the unit is active", "systemd", "systemctl status {unit}; journalctl -u {unit}"),
    "endpoint.restarts_steady": ("at most one restart while it is proven", "systemd, NRestarts", "journalctl -u {unit}"),
    "endpoint.listener_ours": (
        "a process of container {container} listens on port {port}, and nobody else does",
        "vLLM shares its port silently (SO_REUSEPORT)",
        "stop the other process or give the instance another port; ss -ltnp sport = :{port}"),
    "endpoint.unpaused": (
        "container {container} is not paused", "the container engine", "it is waited for and nothing is done against it; who pauses tells why: "
        "container-manager status, docker events --since 1h --filter event=pause"),
    "endpoint.group": (
        "HTTP 200 from /health of the group at {head}: all its ranks have joined", "vLLM 0.18.0: the head serves when every rank has come",
        "look at the head: journalctl -u {unit} on {head}"),
    "endpoint.health": ("HTTP 200 from /health", "vLLM 0.18.0: 503 after the engine died", "journalctl -u {unit}; restart the instance"),
    "endpoint.model": (
        "model '{served_model_name}'{length}", "the plan", "find out which release runs: cat the manifest of current; deploy again"),
    "endpoint.completion": (
        "a streamed chat completion, first token within {first_token_s} s, no gap above {gap_s} s, ended properly",
        "vLLM 0.18.0 keeps /health at 200 with a hung engine", "journalctl -u {unit}; restart the instance"),
    "endpoint.sane": (
        "readable text, the same in {rounds} rounds at temperature 0{answer}", "an unpatched Gemma 4 is healthy and talks nonsense",
        "check that the image carries the patch set and that the weights are complete"),
    "endpoint.reasoning": (
        "no marks of reasoning within the answer itself", "the instance declares a reasoning parser",
        "check that the argument reasoning-parser fits the model"),
    "endpoint.attested": (
        "the files of patch set {patch_set[name]} as its image was built, and vllm imported from there",
        "the image's record of its patched files, whose hash is a label", "restart the instance, which makes its container anew from the image: "
        "playbooks/restart.yml -e model={name}; when it fails again, remove the image from the host and deploy"),
    "endpoint.tool_call": (
        "a call of the function get_weather that is parsed as such", "the instance declares a tool call parser",
        "check that the argument tool-call-parser fits the model and its chat template; journalctl -u {unit}"),
    "endpoint.chips": ("health OK of each of its NPUs after all that", "npu-smi info", "npu-smi info; take the NPU out of use"),
    "endpoint.stable": ("everything holds for {stability_window_s} s in one piece", "the plan", "journalctl -u {unit}"),
}
ORDER = tuple(RULES)
# Asked once, not with every look, and not of what shall only answer: an instance without a window.
ONCE = ("endpoint.attested", "endpoint.tool_call", "endpoint.chips")
TOOL_QUESTION = {
    "messages": [{"role": "user", "content": "What is the weather in Paris? Call the function get_weather to find out."}],
    "tools": [{"type": "function", "function": {
        "name": "get_weather", "description": "Tells the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}],
    # Models that think first would need many tokens before the call; templates that know no such switch ignore it.
    "tool_choice": "auto", "max_tokens": 256, "temperature": 0, "seed": 0, "chat_template_kwargs": {"enable_thinking": False}}

# The last mark seen tells the phase. Source: log lines of vLLM 0.18.0; the first one also appears when systemd starts over.
PHASES = (
    ("starting", re.compile(r"^Start(?:ing|ed) (?:vllm|vLLM)-|Scheduled restart job|vLLM API server version|Initializing a V1 LLM engine")),
    ("weights", re.compile(r"Starting to load model|Loading \S+ checkpoint shards|Loading (?:model )?weights|Model loading took")),
    ("compile", re.compile(r"torch\.compile|Dynamo bytecode|Compiling (?:a |the )?graph|Compilation finished", re.I)),
    ("kv_cache", re.compile(r"Available KV cache memory|KV cache size|Maximum concurrency for|# \w+ blocks", re.I)),
    ("warm_up", re.compile(r"Capturing \S+ graphs|Graph capturing|capture sizes|warm(?:ing)?[ -]?up", re.I)),
    ("ready", re.compile(r"Application startup complete")),
)
_SECRETS = re.compile(
    r"((?:api[_-]?key|token|passw(?:or)?d|secret|authorization)['\"]?\s*[:=]\s*(?:bearer\s+)?)"
    r"(\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^\s,;)}]+)", re.I)


_REASONING_MARKS = re.compile(r"</?think>|<\|?channel\|?>|\[/?THINK\]", re.I)


def redact(text, secrets=()):
    """Take known secrets, and what looks like one, out of a text."""
    for secret in sorted((str(s) for s in secrets if s), key=len, reverse=True):
        text = text.replace(secret, "********")
    return _SECRETS.sub(r"\1********", text)


def redact_data(data, secrets=(), name=""):
    """:func:`redact` for each text within lists and dictionaries, so that JSON stays JSON; ``name`` is the key that ``data`` stands under."""
    if isinstance(data, dict):
        return dict((key, redact_data(value, secrets, str(key))) for key, value in data.items())
    if isinstance(data, list):
        return [redact_data(value, secrets, name) for value in data]
    return redact("%s=%s" % (name, data), secrets)[len(name) + 1:] if isinstance(data, str) else data


def shorten(text, limit=120):
    """One line of at most ``limit`` characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[:limit - 3] + "..."


def phase(lines):
    """(phase, last line that marks progress or None) of an engine that starts, from its log."""
    current, mark = "starting", None
    for line in lines:
        for name, pattern in PHASES:
            if pattern.search(line):
                current, mark = name, line
    return current, mark


def listeners(text, port):
    """Socket inodes that listen on a port, from the text of /proc/net/tcp or tcp6."""
    inodes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
            inodes.append(fields[9])
    return inodes


def descends(pid, ancestor, parents):
    """Whether ``ancestor`` is ``pid`` or stands above it in {pid: parent pid}."""
    seen = set()
    while pid and pid not in seen:
        if pid == ancestor:
            return True
        seen.add(pid)
        pid = parents.get(pid)
    return False


class Stream:
    """Reads a streamed completion as its bytes arrive."""

    def __init__(self):
        self.text, self.content, self.reasoning, self.model, self.finish_reason, self.error = "", "", "", None, None, None
        self.done, self.size = False, 0
        self._rest = b""

    def feed(self, data):
        """Take some bytes; ``error`` is set when they are no proper stream."""
        self.size += len(data)
        if self.size > ANSWER_LIMIT:
            self.error = "the answer does not end: more than %d bytes" % ANSWER_LIMIT
        self._rest += data
        while b"\n" in self._rest and not self.error:
            line, self._rest = self._rest.split(b"\n", 1)
            self._line(line.decode("utf-8", "replace").strip())

    def end(self):
        """The server has closed: what is left is a line too."""
        if not self.error:
            self._line(self._rest.decode("utf-8", "replace").strip())

    def _line(self, line):
        if not line or line.startswith(":") or self.done:
            return
        if not line.startswith("data:"):
            self.error = error_of(line) or "not a stream of events: %s" % shorten(line)
            return
        payload = line[5:].strip()
        if payload == "[DONE]":
            self.done = True
            return
        try:
            event = json.loads(payload)
            choices = event["choices"] if "error" not in event else None
        except (ValueError, KeyError, TypeError):
            self.error = "not a completion: %s" % shorten(payload)
            return
        if choices is None:
            self.error = error_of(payload)
            return
        if self.model not in (None, event.get("model")):
            self.error = "the answer comes from model '%s' and model '%s'" % (self.model, event.get("model"))
        self.model = event.get("model")
        for choice in choices:
            delta = choice.get("delta") or choice
            self.text += "".join(delta.get(key) or "" for key in ("reasoning", "reasoning_content", "content", "text"))
            self.content += "".join(delta.get(key) or "" for key in ("content", "text"))
            self.reasoning += "".join(delta.get(key) or "" for key in ("reasoning", "reasoning_content"))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


def error_of(body):
    """The message of an error body, or None when the body is none."""
    try:
        data = json.loads(body)
    except ValueError:
        return None
    error = data.get("error") if isinstance(data, dict) else None
    if error is None:
        return None
    return "error: %s" % shorten(error.get("message") if isinstance(error, dict) else error)


def judge_unit(unit):
    """(status, found, final) of a unit's properties; ``final`` when waiting cannot help."""
    if not unit.get("ActiveState"):
        return "unknown", unit.get("error") or "systemd did not say", False
    state = unit["ActiveState"]
    found = "%s (%s)" % (state, unit.get("SubState"))
    if unit.get("Result") not in (None, "", "success"):
        found += ", result %s, last exit status %s" % (unit["Result"], unit.get("ExecMainStatus"))
    if state == "active":
        return "pass", found, False
    return "fail", found, state == "failed" or unit.get("LoadState") in ("not-found", "masked")


def judge_models(status, body, served_model_name, max_model_len):
    """(status, found, final) of the answer of /v1/models."""
    if status != 200:
        return "fail", "HTTP %s%s" % (status, ", the API key is not accepted" if status == 401 else ": " + shorten(body)), status == 401
    try:
        models = dict((entry["id"], entry.get("max_model_len")) for entry in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        return "fail", "not a list of models: %s" % shorten(body), False
    if served_model_name not in models:
        return "fail", "model %s" % (", ".join("'%s'" % name for name in sorted(models)) or "none"), True
    length = models[served_model_name]
    found = "model '%s', context length %s" % (served_model_name, length)
    if max_model_len is not None and length != max_model_len:
        return "fail", found, True
    return "pass", found, False


def judge_completion(outcome, served_model_name):
    """(status, found) of one completion: {"status", "error", "stream": Stream, "first_token_s", "elapsed_s"}."""
    stream = outcome["stream"]
    if outcome["status"] not in (None, 200):
        return "fail", "HTTP %s: %s" % (outcome["status"], stream.error or outcome["error"] or "no text")
    if outcome["error"] or stream.error:
        return "fail", outcome["error"] or stream.error
    if not stream.done or not stream.finish_reason:
        return "fail", "the stream ended early after %d characters" % len(stream.text)
    if stream.model != served_model_name:
        return "fail", "the answer comes from model '%s'" % stream.model
    if outcome["first_token_s"] is None:
        return "fail", "the stream held no token"
    return "pass", "first token after %.2f s, %d characters in %.2f s" % (outcome["first_token_s"], len(stream.text), outcome["elapsed_s"])


def judge_text(texts, sanity="full", answer=None):
    """(status, found) of the answers to one question asked several times.

    :param str sanity: "full", or "text" for models that are expected to babble (tiny random weights): no judgement of repetition.
    :param answer: regular expression that the answer must contain, or None.
    """
    text = texts[0]
    if len(set(texts)) > 1:
        other = [t for t in texts if t != text][0]
        return "fail", "the rounds differ: '%s' and '%s'" % (shorten(text, 50), shorten(other, 50))
    if not text.strip():
        return "fail", "an empty answer"
    strange = sum(1 for c in text if c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") and c not in "\n\r\t"))
    if strange * 5 > len(text):
        return "fail", "no text: %d of %d characters are not readable" % (strange, len(text))
    if sanity == "full" and repeats(text):
        return "fail", "it repeats itself: '%s'" % shorten(text, 60)
    if answer and not re.search(answer, text, re.I):
        return "fail", "a wrong answer: '%s'" % shorten(text, 60)
    return "pass", "'%s'" % shorten(text, 60)


def judge_reasoning(contents):
    """(status, found) of the answers' content proper: what the model thought belongs into a field of its own."""
    for text in contents:
        mark = _REASONING_MARKS.search(text)
        if mark:
            return "fail", "'%s' in the answer '%s'" % (mark.group(0), shorten(text, 60))
    return "pass", "none"


def judge_tool_call(status, body):
    """(status, found) of the answer to TOOL_QUESTION."""
    if status != 200:
        return "fail", "HTTP %s: %s" % (status, error_of(body) or shorten(body)) if status else body
    try:
        message = json.loads(body)["choices"][0]["message"]
        calls = [call["function"] for call in message.get("tool_calls") or ()]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "fail", error_of(body) or "not a completion: %s" % shorten(body)
    if not calls:
        return "fail", "no call but the text '%s'" % shorten(message.get("content") or "", 80)
    words = "%s %s" % (calls[0].get("name"), shorten(calls[0].get("arguments"), 60))
    try:
        city = json.loads(calls[0]["arguments"])["city"]
    except (ValueError, KeyError, TypeError):
        return "fail", "a call without proper arguments: %s" % words
    return "pass" if calls[0].get("name") == "get_weather" and isinstance(city, str) and city else "fail", "a call: %s" % words


def judge_chips(seen, devices):
    """(status, found) of the health of an instance's devices; seen: {"health": {device: word}, "error": None or a sentence}."""
    sick = ["%s health %s" % (device, seen["health"][device]) for device in devices if seen["health"].get(device) not in (None, "OK")]
    if sick:
        return "fail", ", ".join(sick)
    missing = [device for device in devices if seen["health"].get(device) is None]
    if missing:
        return "unknown", seen["error"] or "npu-smi does not tell the health of %s" % ", ".join(missing)
    return "pass", ", ".join("%s OK" % device for device in devices)


def repeats(text):
    """Whether a text falls into a loop: one to four words, or one to eight characters, over and over to its end."""
    words = text.split()
    for sequence, longest, least in ((words, 4, 8), (text.strip(), 8, 24)):
        for period in range(1, longest + 1):
            run = 0
            while run + period < len(sequence) and sequence[-1 - run] == sequence[-1 - run - period]:
                run += 1
            if run + period >= max(least, 3 * period):
                return True
    return False


class Prover:
    """Proves one instance. All I/O is in ``probes``, all time in ``clock`` and ``sleep``.

    :param dict instance: name, unit, container, port, served_model_name, max_model_len, ready_timeout_s, stability_window_s; and
        first_token_s, gap_s, rounds, sanity, expected_answer as :func:`complete_instance` fills them in.
    A member of a group over several hosts has no port: its unit must be well, and its group answer at the head.

    :param probes: unit() -> properties, refresh() asks systemd at once, connect() -> bool, owners() -> {"ours", "foreign": [description],
        "error", "paused": by whom or None},
        health() -> (HTTP status or None, text), models() and head() (/health of the group's head) -> the same, given_up() -> why or None,
        complete() -> see judge_completion, attestation() -> see attestation.judge, tool_call() -> (HTTP status or None, text), chips() -> see
        judge_chips, journal() -> [line].
    """

    def __init__(self, instance, probes, clock, sleep):
        self.instance, self.probes, self.clock, self.sleep = instance, probes, clock, sleep
        self.findings = {}
        self.started = clock()
        self.base = None
        self.phase, self.mark, self.marked, self.read = "starting", None, self.started, None
        self.down_since = None
        self.open = False
        # For whoever watches meanwhile.
        self.proven = False

    def say(self, rule, status, found, remedy=None):
        """Record what a rule found; returns whether it passed."""
        values = dict(self.instance, length="", answer="", head=((self.instance.get("group") or {}).get("members") or [""])[0])
        if values["max_model_len"] is not None:
            values["length"] = " with context length %s" % values["max_model_len"]
        if values["expected_answer"]:
            values["answer"] = " and containing %s" % values["expected_answer"]
        expected, source, usual = RULES[rule]
        self.findings[rule] = finding(
            rule, status, found, expected.format(**values), source, (remedy or usual).format(**values) if status != "pass" else "",
            instance=self.instance["name"])
        return status == "pass"

    def look(self, rounds):
        """Ask every rule once, in order, until one does not pass: (passed, whether waiting cannot help)."""
        self.open = False
        for rule in ORDER[2:]:
            if rule not in ONCE:
                self.findings.pop(rule, None)
        passed, final = self.look_unit()
        if not passed:
            return False, final
        why = self.probes.given_up() if self.instance.get("group") else None
        if why:
            return self.say("endpoint.group", "fail", why), True
        if is_member(self.instance):
            status, text = self.probes.head()
            return self.say("endpoint.group", "pass" if status == 200 else "fail", "HTTP %s" % status if status else text), False
        passed, final = self.look_listener()
        if not passed:
            return False, final
        status, text = self.probes.health()
        if not self.say("endpoint.health", "pass" if status == 200 else "fail", "HTTP %s" % status if status else text):
            return False, False
        status, body = self.probes.models()
        verdict, found, final = judge_models(status, body, self.instance["served_model_name"], self.instance["max_model_len"])
        if not self.say("endpoint.model", verdict, found):
            return False, final
        return self.look_answers(rounds), False

    def look_unit(self):
        """The unit and its restarts: (passed, final)."""
        unit = self.probes.unit()
        verdict, found, final = judge_unit(unit)
        if unit.get("Job") not in (None, "", "0"):
            # Systemd is about to start it, once what it stands on is back: the daemon of the container engine restarts.
            self.down_since, final = None, False
        elif unit.get("ActiveState") == "inactive":
            self.down_since = self.clock() if self.down_since is None else self.down_since
            final = final or self.clock() - self.down_since >= DOWN_GRACE_S
        else:
            self.down_since = None
        passed = self.say("endpoint.unit_active", verdict, found)
        restarts = int(unit.get("NRestarts") or 0)
        # A unit that was started anew by a job counts from 0 again.
        self.base = restarts if self.base is None or restarts < self.base else self.base
        crashes = restarts - self.base
        steady = crashes < CRASHES
        self.say("endpoint.restarts_steady", "pass" if steady else "fail", "%d restart(s) since the gate began" % crashes + (
            "" if steady else ", last exit status %s" % unit.get("ExecMainStatus")))
        return passed and steady, final or not steady

    def look_listener(self):
        """Who has the port: (passed, final)."""
        rule = "endpoint.listener_ours"
        if not self.probes.connect():
            if self.read is None:
                self.read_journal()
            found = "nothing listens on port %s, phase %s" % (self.instance["port"], self.phase)
            return self.say(rule, "fail", found, "journalctl -u {unit}"), False
        self.open = True
        owners = self.probes.owners()
        if owners.get("paused"):
            # Its port takes connections all the same, and no answer counts against it.
            self.open = False
            self.findings.pop(rule, None)
            return self.say("endpoint.unpaused", "fail", owners["paused"]), False
        if owners["foreign"]:
            return self.say(rule, "fail", "also " * bool(owners["ours"]) + "port %s belongs to %s" % (
                self.instance["port"], ", ".join(owners["foreign"]))), True
        if not owners["ours"]:
            return self.say(rule, "unknown", owners["error"] or "the owner of the port could not be found"), False
        return self.say(rule, "pass", ", ".join(owners["ours"])), False

    def look_answers(self, rounds):
        """Completions and what they say; returns whether both pass."""
        streams = []
        for dummy in range(rounds):
            outcome = self.probes.complete()
            verdict, found = judge_completion(outcome, self.instance["served_model_name"])
            if not self.say("endpoint.completion", verdict, found):
                return False
            streams.append(outcome["stream"])
        texts = [stream.text for stream in streams]
        if not self.say("endpoint.sane", *judge_text(texts, self.instance["sanity"], self.instance["expected_answer"])):
            return False
        if not declares(self.instance, "--reasoning-parser"):
            return True
        return self.say("endpoint.reasoning", *judge_reasoning([stream.content for stream in streams]))

    def look_files(self):
        """Whether the patched files are still those of the image: (passed, final)."""
        if not self.instance["patch_set"]:
            return True, False
        status, found = attestation.judge(self.probes.attestation(), self.instance["patch_set"]["id"])
        return self.say("endpoint.attested", status, found), status == "fail"

    def look_tools(self):
        """Whether a tool call is parsed, for an instance that declares to; a model that babbles by nature is not asked."""
        if (
            is_member(self.instance)
            or self.instance["stability_window_s"] <= 0
            or self.instance["sanity"] != "full"
            or not declares(self.instance, "--enable-auto-tool-choice")
        ):
            return True
        return self.say("endpoint.tool_call", *judge_tool_call(*self.probes.tool_call()))

    def look_chips(self):
        """Whether the NPUs of the instance are healthy still: (passed, final)."""
        if not self.instance["devices"]:
            return True, False
        status, found = judge_chips(self.probes.chips(), self.instance["devices"])
        return self.say("endpoint.chips", status, found), status == "fail"

    def once(self):
        """Judge what runs at this moment."""
        passed, dummy = self.look(1)
        # Also of what does not answer: a changed file may be why.
        attested, dummy = self.look_files() if self.open else (True, False)
        if not (passed and attested) and self.read is None:
            self.read_journal()
        return self.result(passed and attested)

    def run(self):
        """Wait until the instance is ready and has stayed so, or until it cannot become so any more."""
        attempts = failures = 0
        while True:
            passed, final = self.look(self.instance["rounds"])
            answers = self.open
            if passed:
                passed, final = self.look_files()
            if passed and self.look_tools():
                ready = self.clock() - self.started
                held, final, seen = self.hold()
                if held:
                    self.say("endpoint.stable", "pass", "held for %s s%s" % (
                        self.instance["stability_window_s"], " after %d failure(s)" % failures if failures else ""))
                    return self.result(True, ready)
                failures += 1
                final = final or failures >= ATTEMPTS
                self.say("endpoint.stable", "fail", "%d failure(s) within the window, the last: %s" % (failures, seen))
                if final:
                    return self.result(False)
                attempts = 0
            else:
                attempts = attempts + 1 if answers else 0
            if final or attempts >= ATTEMPTS:
                return self.result(False)
            if self.late():
                return self.result(False)
            self.sleep(RETRY_S if answers else WATCH_S if is_member(self.instance) else POLL_S)

    def hold(self):
        """Watch a ready instance for its window: (held, final, what failed)."""
        until = self.clock() + self.instance["stability_window_s"]
        before = self.probes.unit().get("InvocationID")
        if self.instance["stability_window_s"] <= 0:
            return True, False, None
        while self.clock() < until:
            self.sleep(min(WATCH_S, max(until - self.clock(), 0.01)))
            passed, final = self.look(1)
            if not passed:
                return False, final, self.first_failure()
        self.probes.refresh()
        passed, final = self.look_unit()
        if passed and self.probes.unit().get("InvocationID") != before:
            return False, False, "the unit was started anew"
        if passed:
            passed, final = self.look_chips()
        return passed, final, None if passed else self.first_failure()

    def first_failure(self):
        """The rule that does not pass, in words."""
        for rule in ORDER:
            item = self.findings.get(rule)
            if item and item["status"] != "pass":
                return "%s: %s" % (rule, item["found"])
        return None

    def read_journal(self):
        """Learn the phase, and when it last moved."""
        lines = self.probes.journal()
        current, mark = phase(lines)
        if (current, mark) != (self.phase, self.mark):
            self.phase, self.mark, self.marked = current, mark, self.clock()
        self.read = self.clock()

    def late(self):
        """Whether the deadline has passed: extended while the log shows progress, at most to twice its length."""
        if self.read is None or self.clock() - self.read >= JOURNAL_S:
            self.read_journal()
        spent, limit = self.clock() - self.started, self.instance["ready_timeout_s"]
        if spent < limit or (spent < 2 * limit and self.clock() - self.marked < min(STALL_S, limit)):
            return False
        for rule in reversed(ORDER):
            item = self.findings.get(rule)
            if item and item["status"] != "pass":
                item["found"] = "%s, after %.0f s of %.0f s, phase %s without progress for %.0f s" % (
                    item["found"], spent, limit, self.phase, self.clock() - self.marked)
                break
        return True

    def result(self, ready, elapsed=None):
        """What the gate says of this instance."""
        self.proven = ready
        return {"ready": ready, "elapsed_s": round(self.clock() - self.started if elapsed is None else elapsed, 3),
                "phase": "ready" if ready else self.phase, "findings": [self.findings[rule] for rule in ORDER if rule in self.findings]}


def waiting(provers):
    """How far a proof is, in words; provers: {instance: (phase, proven)}."""
    late = ["%s in phase %s" % (name, phase) for name, (phase, proven) in sorted(provers.items()) if not proven]
    done = len(provers) - len(late)
    return "%d of %d proven%s" % (done, len(provers), "; " + ", ".join(late) if late else "")


def declares(instance, flag):
    """Whether an instance is started with a flag."""
    return flag in instance["arguments"]


def complete_instance(instance, defaults):
    """An instance with every key that the prover reads; raises ValueError naming the one that is missing."""
    filled = dict(defaults, max_model_len=None, sanity="full", expected_answer=None, arguments=[], devices=[], patch_set=None)
    filled.update((key, value) for key, value in instance.items() if value is not None)
    for key in ("name", "port", "served_model_name"):
        if key not in filled:
            raise ValueError("instance %s has no %s" % (instance.get("name", "without a name"), key))
    filled.setdefault("unit", "vllm-ascend-%s.service" % filled["name"])
    filled.setdefault("container", "vllm-ascend-%s" % filled["name"])
    return filled


# How systemd speaks of a unit in the unit's own journal.
_SYSTEMD = re.compile(r"(Start(ing|ed)|Stopp(ing|ed)|Failed to start|Scheduled restart|Reload) |[\w@.-]+\.service: ")


def sentence(name, result):
    """One line on an instance that is not proven: rule, found, expected, likely cause, remedy."""
    bad = [item for item in result["findings"] if item["status"] != "pass"]
    # A window that broke is told by what broke it, and a crash loop says more than the state it was caught in.
    bad.sort(key=lambda item: item["rule"] != "endpoint.restarts_steady")
    item = (bad or [{"rule": "endpoint", "found": "no evidence", "expected": "an answer", "remedy": "look at the host"}])[0]
    line = "%s: %s: %s; expected %s" % (name, item["rule"], item["found"], item["expected"])
    if result.get("cause"):
        return "%s; likely cause: %s; remedy: %s" % (line, result["cause"]["text"], result["cause"]["remedy"])
    words = last_words(result.get("journal_tail") or ())
    return "%s; %sremedy: %s" % (line, "its log ends with: %s; " % words if words else "", item["remedy"])


def last_words(lines):
    """The last line of a journal that the program itself said, shortened; None when only systemd speaks."""
    own = [line for line in lines if line.strip() and not _SYSTEMD.match(line)]
    return shorten(own[-1].strip()) if own else None
