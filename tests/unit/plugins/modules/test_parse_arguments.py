# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine is a script that runs the words behind the image, and vllm is a small argparse program, as the true one is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ansible
import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments
from ansible_collections.vllm_ascend.fleet.plugins.modules import parse_arguments

COLLECTIONS = os.path.abspath(parse_arguments.__file__).partition("%sansible_collections%s" % (os.sep, os.sep))[0]
ANSIBLE = os.path.dirname(os.path.dirname(os.path.abspath(ansible.__file__)))
IMAGE = "registry.example.net:5000/ascend/vllm-ascend@sha256:" + "a" * 64
VLLM = """\
import argparse
parser = argparse.ArgumentParser(prog="vllm")
serve = parser.add_subparsers(dest="command").add_parser("serve")
serve.add_argument("model_tag", nargs="?")
serve.add_argument("--max-model-len", type=int)
serve.add_argument("--dtype", choices=["auto", "half"])
parser.parse_args()
print("SERVING")
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "vllm", "#!%s\n%s" % (sys.executable, VLLM))
    return script(tmp_path / "docker", """#!/bin/sh
echo "$@" >> %(log)s
[ "$1" = rm ] && exit 0
while [ "$1" != %(image)s ]; do shift; done
shift
PATH=%(bin)s:$PATH exec "$@"
""" % {"log": tmp_path / "log", "image": IMAGE, "bin": tmp_path / "bin"})


def run(engine, *line, **parameters):
    instance = {"name": "one", "image_reference": IMAGE, "arguments": ["/m"] + list(line), "environment": {"A": "1"},
                "mounts": [{"source": "/s", "target": "/s", "read_only": True}]}
    given = dict({"instances": [instance], "engine": "docker", "engine_path": engine}, **parameters)
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.vllm_ascend.fleet.plugins.modules.parse_arguments"], check=False,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([COLLECTIONS, ANSIBLE])),
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout.decode())


def test_a_line_that_the_parser_takes_is_not_run(engine, tmp_path):
    result = run(engine, "--max-model-len", "4096")
    assert result["instances"]["one"] == {"status": "pass", "found": None} and result["changed"] is False
    log = (tmp_path / "log").read_text()
    assert "--network none" in log and "--pull never" in log and "--device" not in log and "--privileged" not in log


@pytest.mark.parametrize("line, words", [
    (["--max-model-len", "40x"], "argument --max-model-len: invalid int value: '40x'"),
    (["--dtype", "fp8"], "invalid choice: 'fp8'"),
    (["--device", "ascend", "--max-model-len", "4"], "unrecognized arguments: --device ascend; correct"),
])
def test_what_the_parser_refuses_is_told(engine, line, words):
    result = run(engine, *line)
    assert result["failed"] and words in result["msg"] and "one: " in result["msg"] and arguments.PARSE_ONLY not in result["msg"]


def test_a_parser_that_cannot_be_asked_is_a_warning(tmp_path):
    broken = script(tmp_path / "docker", "#!/bin/sh\necho 'ImportError: libascend_hal.so: cannot open shared object file' >&2; exit 1\n")
    result = run(broken)
    assert "failed" not in result and result["instances"]["one"]["status"] == "unknown"
    assert any("libascend_hal.so" in str(text) for text in result["warnings"])


def test_a_parser_that_hangs_is_removed(tmp_path):
    hanging = script(tmp_path / "docker", "#!/bin/sh\necho \"$@\" >> %s\n[ \"$1\" = rm ] || exec sleep 60\n" % (tmp_path / "log"))
    result = run(hanging, timeout_s=0.5)
    assert result["instances"]["one"]["status"] == "unknown" and "rm --force vllm-ascend-parse-one-" in (tmp_path / "log").read_text()


def test_the_last_word_of_a_crash_is_kept():
    assert arguments.parser_verdict(137, "a\n\nKilled\n") == ("unknown", "Killed")
    assert arguments.parser_verdict(125, "") == ("unknown", "exit 125")


# What vLLM 0.27.1 says, shortened in the middle.
BAD_MODE = """\
  File "/usr/lib/python3.11/argparse.py", line 2534, in _get_value
    result = type_func(arg_string)
  File "/usr/local/lib/python3.11/dist-packages/vllm/config/compilation.py", line 868, in validate_cudagraph_mode_before
    return CUDAGraphMode[value.upper()]
KeyError: 'NONSENSE'
"""
BAD_KEY = """\
usage: vllm serve [model_tag] [options]
vllm serve: error: argument --compilation-config/-cc: 1 validation error for CompilationConfig
cudagraph_modee
  Unexpected keyword argument [type=unexpected_keyword_argument, input_value='NONE', input_type=str]
    For further information visit https://errors.pydantic.dev/2.14/v/unexpected_keyword_argument
"""


def test_an_error_while_a_value_is_read_is_an_objection():
    assert arguments.parser_verdict(1, BAD_MODE) == ("fail", "a value cannot be read: KeyError: 'NONSENSE'")
    elsewhere = BAD_MODE.replace("in _get_value", "in parse_args")
    assert arguments.parser_verdict(1, elsewhere) == ("unknown", "KeyError: 'NONSENSE'")


def test_an_objection_of_several_lines_is_told_whole():
    status, found = arguments.parser_verdict(2, BAD_KEY)
    assert status == "fail"
    assert found.startswith("argument --compilation-config/-cc: 1 validation error for CompilationConfig cudagraph_modee Unexpected keyword")
    assert "further" not in found and "\n" not in found
