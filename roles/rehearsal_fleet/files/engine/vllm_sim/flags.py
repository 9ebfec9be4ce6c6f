# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of `vllm serve` 0.18.0, built from the catalogue's flag table with the habits of vLLM's own parser."""

from __future__ import annotations

import argparse
import json
import os
import re

GRAPH_MODES = ("NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
# Typed as text in the table, parsed as JSON by vLLM.
JSON_FLAGS = ("--speculative-config", "--kv-transfer-config", "--kv-events-config", "--ec-transfer-config",
              "--weight-transfer-config", "--mm-processor-kwargs", "--default-mm-loras")
CONFIG_FLAGS = JSON_FLAGS[:5] + ("--compilation-config", "--attention-config", "--kernel-config", "--eplb-config",
                                 "--structured-outputs-config", "--profiler-config", "--additional-config")


def human_readable_int(text):
    """'25.6k' is 25600, '1K' is 1024, '7' is 7; raises ValueError or ArgumentTypeError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip())
    if not match:
        return int(text)
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 1000 ** power)
    try:
        return int(number) * 1024 ** power
    except ValueError:
        raise argparse.ArgumentTypeError("Decimals are not allowed with binary suffixes like %s. Did you mean to use %s%s instead?"
                                         % (suffix, number, suffix.lower()))


def human_readable_int_or_auto(text):
    """As human_readable_int; 'auto' and '-1' mean: what fits."""
    return -1 if text.strip().lower() in ("-1", "auto") else human_readable_int(text)


def json_value(text):
    """JSON of any kind."""
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError("Value %s cannot be converted to <function loads>." % text)


def json_object(text):
    """A JSON object; anything else is refused as vLLM's configuration classes do."""
    value = json_value(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("Value %s cannot be converted to a configuration: an object is needed." % text)
    mode = value.get("cudagraph_mode")
    if mode is not None and str(mode).upper() not in GRAPH_MODES:
        raise argparse.ArgumentTypeError("Invalid cudagraph_mode: %s. Valid options: %s" % (mode, ", ".join(GRAPH_MODES)))
    return value


def object_or_text(text):
    """JSON when it looks like an object, else the text itself."""
    return json_value(text) if re.match(r"(?s)^\s*{.*}\s*$", text) else text


TYPES = {"int": int, "float": float, "human_readable_int": human_readable_int, "human_readable_int_or_auto": human_readable_int_or_auto,
         "loads": json_value, "json": json_object, "union_dict_and_str": object_or_text, "_parse_type": json_value}


def rows(table="vllm-0.18.0.tsv"):
    """The rows of a flag table: beside this file in the image, in the collection's catalogue in a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(here, table)
    path = beside if os.path.exists(beside) else os.path.join(here, *[os.pardir] * 5, "catalogue", "engine_flags", table)
    with open(path, encoding="utf-8") as handle:
        for text in handle:
            if not text.startswith("#"):
                yield (text.rstrip("\n").split("\t") + [""] * 6)[:6]


def _default(text, kind):
    if kind.startswith("bool") or kind == "switch":
        return {"True": True, "None": None}.get(text, False)
    if text in ("None", "", "(structured)") or text.startswith(("<", "KernelConfig", "set(")):
        return None
    try:
        return json.loads(text.replace("'", '"'))
    except ValueError:
        return text


def add_serve_flags(parser):
    """Add every flag of `vllm serve` to an argparse parser."""
    add_flags(parser, rows())


def add_flags(parser, table):
    """Add rows of a table to an argparse parser."""
    groups = {}
    for spellings, kind, kind_of_value, default, choices, group in table:
        if spellings.startswith("model_tag"):
            parser.add_argument("model_tag", nargs="?")
            continue
        names = [name.strip() for name in spellings.split(",")]
        target = groups.setdefault(group, parser if group == "options" else parser.add_argument_group(group))
        keywords = {"default": _default(default, kind)}
        if kind == "switch":
            keywords["action"] = "store_true"
        elif kind.startswith("bool"):
            names = [name for name in names if not name.startswith("--no-")]
            keywords["action"] = argparse.BooleanOptionalAction
        else:
            if kind.startswith("value nargs="):
                keywords["nargs"] = int(kind[-1]) if kind[-1].isdigit() else kind[-1]
            elif kind.startswith("list"):
                keywords["nargs"] = "+"
            elif kind == "append":
                keywords["action"] = "append"
            keywords["type"] = json_object if names[0] in CONFIG_FLAGS else json_value if names[0] in JSON_FLAGS else TYPES.get(kind_of_value, str)
            if names[0] == "--cudagraph-capture-sizes":
                keywords["type"] = int
            if choices and names[0] != "--collect-detailed-traces":
                keywords["choices"] = [int(one) if kind_of_value == "int" else one for one in choices.split(",")]
        target.add_argument(*names, **keywords)


def _config_file(path):
    if not path.endswith((".yaml", ".yml")):
        raise ValueError("Config file must be of a yaml/yml type.                              %s supplied" % path.rsplit(".", 1)[-1])
    try:
        import yaml
    except ImportError:
        raise RuntimeError("the rehearsal engine reads --config only with PyYAML, which comes with the patch set's Python packages")
    with open(path, encoding="utf-8") as handle:
        content = yaml.safe_load(handle) or {}
    words = []
    for key, value in content.items():
        if isinstance(value, bool):
            words += ["--" + key] if value else []
        elif isinstance(value, list):
            words += ["--" + key] + [str(one) for one in value]
        else:
            words += ["--" + key, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def _merge(target, update):
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def normalise(words, warn):
    """Turn what vLLM accepts into what argparse understands.

    words: the arguments after the program's name; warn: called with a sentence. Returns the new list. Raises ValueError.
    """
    if words[:1] != ["serve"]:
        return words
    words = list(words)
    for index, word in enumerate(words):
        if word == "--model" or word.startswith("--model="):
            warn("With `vllm serve`, you should provide the model as a positional argument or in a config file instead of via "
                 "the `--model` option. The `--model` option will be removed in v0.13.")
            taken = 2 if word == "--model" else 1
            model = word[len("--model="):] if taken == 1 else words[index + 1] if index + 1 < len(words) else ""
            words = ["serve", model] + words[1:index] + words[index + taken:]
            break
    if (words[1:2] and words[1].startswith("-") and not any(re.match(r"--config(=|$)", word) for word in words)
            and any(re.match(r"--served[-_]model[-_]name(=|$)", word) for word in words)):
        raise ValueError("`model` should be provided as the first positional argument when using `vllm serve`. "
                         "i.e. `vllm serve <model> --<arg> <value>`.")
    if "--config" in words:
        index = words.index("--config")
        extra = _config_file(words[index + 1]) if index + 1 < len(words) else []
        head = 2 if words[1:2] and not words[1].startswith("-") else 1
        words = words[:head] + extra + words[head:index] + words[index + 2:]

    plain, nested, skip = [], {}, False
    for index, word in enumerate(words):
        if skip:
            skip = False
            continue
        if word.startswith("-O") and word not in ("-O",):
            plain += ["--optimization-level", word[2:].lstrip("=")]
            continue
        if word == "-O":
            plain.append("--optimization-level")
            continue
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            head, dot, tail = name.partition(".")
            name = head.replace("_", "-") + dot + tail
        if name.startswith("-") and "." in name and not re.match(r"-\d*\.\d", name):
            if not equals:
                value, skip = words[index + 1] if index + 1 < len(words) else "", True
            if name.endswith("+"):
                name, value = name[:-1], json.dumps(value.split(","))
            keys = name.split(".")
            try:
                value = json.loads(value)
            except ValueError:
                pass
            for key in reversed(keys[1:]):
                value = {key: value}
            _merge(nested.setdefault(keys[0], {}), value)
        else:
            plain.append(name + equals + value)
    for name, value in nested.items():
        plain += [name, json.dumps(value)]
    return plain


def defaults():
    """Every flag's default, to tell what a user set."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_serve_flags(parser)
    return vars(parser.parse_args([]))
