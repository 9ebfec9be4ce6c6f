# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to the real engines of the tier's host as a client does, and looks at the host as an operator does."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request

from fleet_operator import ADDRESSES, INVENTORY, ROOT, BIN, on

HOST = "a2-1"
PORTS = {"tiny-gemma-3": 8000, "tiny-gemma-4": 8001}
NEVER_ENDING = {"messages": [{"role": "user", "content": "Go on."}], "ignore_eos": True, "temperature": 0, "stream": True}


def image():
    """The local name of the engine's image."""
    shown = subprocess.run([BIN / "ansible", "localhost", "-i", INVENTORY, "-m", "ansible.builtin.debug", "-a", "var=rehearsal_fleet_engine_images",
                            "-o"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return json.loads(shown.partition("=>")[2])["rehearsal_fleet_engine_images"][0]["tag"]


def bring_models():
    """Copy the models that the image's build made to where a host keeps its weights."""
    packed = subprocess.run(["docker", "run", "--rm", "--network", "none", "--entrypoint", "tar", image(), "-C", "/opt/rehearsal/models", "-c", "."],
                            stdout=subprocess.PIPE, check=True).stdout
    # The stand-ins that the simulated host has for what its inventory asks for go.
    on(HOST, "rm -rf /models/* && tar -C /models -x", given=packed)


def request(model, path, body=None, key=None, timeout=60):
    """An open answer of the engine that serves a model; an error status is an answer too."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    data = None if body is None else json.dumps(dict(body, model=model)).encode()
    call = urllib.request.Request(f"http://{ADDRESSES[HOST]}:{PORTS[model]}{path}", data, headers)
    try:
        return urllib.request.urlopen(call, timeout=timeout)
    except urllib.error.HTTPError as error:
        return error


def ask(model, content, key=None, **options):
    """(status, answer) of one chat completion."""
    body = dict({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 32}, **options)
    with request(model, "/v1/chat/completions", body, key) as answer:
        return answer.status, json.load(answer)


class Stream(threading.Thread):
    """A completion of so many tokens, read in the background."""

    def __init__(self, model, tokens):
        super().__init__(daemon=True)
        self.model, self.tokens, self.text = model, tokens, ""
        self.begun = threading.Event()

    def run(self):
        with request(self.model, "/v1/chat/completions", dict(NEVER_ENDING, max_tokens=self.tokens), timeout=120) as answer:
            for line in answer:
                self.text += line.decode()
                self.begun.set()

    @property
    def events(self):
        """How many pieces of the answer have come."""
        return self.text.count('"delta"')

    @property
    def whole(self):
        """Whether it ended as it should, with its last token and the mark of the end."""
        return '"finish_reason":"length"' in self.text and self.text.rstrip().endswith("data: [DONE]")


def streams(model, number, tokens):
    """So many streams that have begun, or wait in the engine's queue."""
    begun = [Stream(model, tokens) for _each in range(number)]
    for stream in begun:
        stream.start()
    assert begun[0].begun.wait(30), "no stream begins"
    return begun


def load(model):
    """(running, waiting) of an engine by its own metrics, over all its ranks."""
    with request(model, "/metrics") as answer:
        text = answer.read().decode()
    return tuple(sum(float(value) for value in re.findall(r"^vllm:num_requests_%s\{[^}]*\} (\S+)$" % kind, text, re.MULTILINE))
                 for kind in ("running", "waiting"))


def until(condition, seconds, what):
    """Wait until a condition is true, and return what it gave; the tier's tests never sleep for a fixed time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def unit(name, *properties):
    """Properties of an instance's unit."""
    shown = on(HOST, "systemctl show --property=%s vllm-ascend-%s" % (",".join(properties), name))
    return dict(line.split("=", 1) for line in shown.strip().splitlines())


def journal(name, lines=200):
    """The last lines of an instance's journal."""
    return on(HOST, f"journalctl --no-pager --unit vllm-ascend-{name} --lines {lines} --output cat")


def inside(name, command):
    """Run a shell command in an instance's container; its output."""
    return on(HOST, "docker exec vllm-ascend-%s sh -c '%s'" % (name, command))
