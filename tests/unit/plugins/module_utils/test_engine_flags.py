# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table is written from a parser as vLLM builds it, and read back by what checks arguments."""

from __future__ import annotations

import argparse
import json

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments, engine_flags

# It runs beside vLLM, which needs a later Python than hosts have.
pytestmark = pytest.mark.skipif(not hasattr(argparse, "BooleanOptionalAction"), reason="Python 3.9 or later")


def optional_type(inner):
    def _optional_type(text):
        return None if text == "None" else inner(text)
    return _optional_type


def parse_dataclass(text):
    return json.loads(text)


class Structured:
    """A configuration object, as the defaults of vLLM's structured flags are."""


class LoRAParserAction(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        return None


def parser():
    made = argparse.ArgumentParser()
    made.add_argument("model_tag", nargs="?")
    made.add_argument("--headless", action="store_true")
    group = made.add_argument_group("ModelConfig")
    group.add_argument("--max-model-len", type=optional_type(int), default=None)
    group.add_argument("--max-num-seqs", "-mns", type=int)
    group.add_argument("--dtype", type=str, default="auto", choices=["auto", "float16"])
    group.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=None)
    group.add_argument("--served-model-name", type=optional_type(str), nargs="+")
    group.add_argument("--middleware", action="append", default=[])
    group.add_argument("--lora-modules", nargs="+", action=LoRAParserAction)
    group.add_argument("--compilation-config", "-cc", type=optional_type(parse_dataclass), default=Structured())
    group.add_argument("--internal", help=argparse.SUPPRESS)
    return made


def rows():
    text = engine_flags.table(parser(), "0.99.0")
    return text, {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines() if not line.startswith("#")}


def test_each_kind_of_flag_has_its_word():
    _text, found = rows()
    assert found["model_tag (positional)"][0] == "value nargs=?"
    assert found["--headless"] == ["switch", "", "False", "", "options"]
    assert found["--max-model-len"] == ["value", "int?", "None", "", "ModelConfig"]
    assert found["--dtype"] == ["value", "str", "'auto'", "auto,float16", "ModelConfig"]
    assert found["--enable-prefix-caching, --no-enable-prefix-caching"][0] == "bool (has --no- form)"
    assert found["--served-model-name"][:2] == ["value nargs=+", "str?"]
    assert found["--middleware"][0] == "append" and found["--lora-modules"][0] == "list (LoRA)"
    assert found["--compilation-config, -cc"][:3] == ["value", "json", "(structured)"]
    assert "--internal" not in found and not any("--help" in name for name in found)


def test_what_checks_arguments_reads_the_table():
    flags = arguments.parse_flag_table(rows()[0])
    assert flags["enable-prefix-caching"]["kind"] == "bool" and flags["middleware"]["kind"] == flags["lora-modules"]["kind"] == "list"
    assert arguments.check({"max-num-seqs": 4, "dtype": "float16", "headless": True}, flags, "0.99.0") == []
    problems = arguments.check({"max-num-seq": 4, "dtype": "float12"}, flags, "0.99.0")
    assert "max-num-seqs" in problems[0] and "float12" in problems[1]
