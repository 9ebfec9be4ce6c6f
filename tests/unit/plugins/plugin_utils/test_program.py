# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of module_utils runs on any Python that a host may have, and every way of going wrong is an answer."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import program

PYTHONS = sorted(str(path) for path in pathlib.Path("/root/.pyenv/versions").glob("*/bin/python")) or [sys.executable]
LEASE = {"directory": "/nonexistent", "act": "look"}


def run(text, python=sys.executable):
    done = subprocess.run([python, "-"], input=text, capture_output=True, check=False, timeout=60)
    return program.answer(done.returncode, done.stdout.decode(), done.stderr.decode())


def version(python):
    return tuple(map(int, subprocess.run([python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"], capture_output=True, text=True,
                                         check=True).stdout.split()))


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_answers_and_an_old_one_says_that_it_is_old(python):
    answer = run(program.text("lease_host:answer", LEASE), python)
    if version(python) < (3, 7):
        assert answer["kind"] == "python" and "is too old, 3.7 is wanted" in answer["msg"]
    else:
        assert answer["held"] == {} and answer["given"] is True


@pytest.mark.parametrize("entry", ["look:answer", "host_change:begin", "host_change:main", "job_host:answer", "drain_host:answer", "gateway_host:answer"])
def test_every_program_loads_and_says_what_is_wrong_with_its_arguments(entry):
    answer = run(program.text(entry, {}))
    assert answer["failed"] and "failed on the host" in answer["msg"] and "Traceback" in answer["exception"]


def test_what_is_meant_for_the_user_is_told_as_it_is():
    answer = run(program.text("gateway_host:answer", {"act": "set", "servers": [], "state": "ready", "socket": "/nonexistent"}))
    assert answer["msg"].startswith("HAProxy's socket /nonexistent does not answer")


def test_greetings_around_the_answer_are_passed_over():
    done = subprocess.run([sys.executable, "-"], input=program.text("lease_host:answer", LEASE), capture_output=True, check=True)
    assert program.answer(0, "Welcome!\n" + done.stdout.decode() + "bye\n", "")["held"] == {}


def test_no_answer_is_a_failure_that_keeps_what_was_said():
    assert program.answer(127, "out", "sh: python3: not found") == {
        "failed": True, "rc": 127, "msg": "", "module_stdout": "out", "module_stderr": "sh: python3: not found"}
    assert program.answer(0, program.MARK + "broken", "")["failed"]


def test_arguments_travel_whole_and_not_in_an_argument_list():
    text = program.text("lease_host:answer", dict(LEASE, note="a'b\"c$d\n\u4f60"))
    assert b"a'b" not in text and json.dumps(text.decode()) and run(text)["given"]


def test_a_file_comes_behind_those_that_it_imports():
    names = [name for name, _text in program.files("host_change")]
    assert names.index("release_host") < names.index("host_change") and names.index("rule") < names.index("endpoint") and len(set(names)) == len(names)


def test_the_first_python_that_there_is_runs_it():
    command = program.command(None, ["no-such-python", sys.executable])
    done = subprocess.run(["/bin/sh", "-c", command], input=program.text("lease_host:answer", LEASE), capture_output=True, check=True)
    assert program.MARK in done.stdout.decode()
    none = subprocess.run(["/bin/sh", "-c", program.command(None, ["no-such-python"])], input=b"", capture_output=True, text=False, check=False)
    assert none.returncode == 127 and b"no Python was found on this host" in none.stderr
