# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of C(vllm serve): a YAML dictionary in, a checked command line out."""

from __future__ import annotations

import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

# Accepted by older releases and still copied around; source: the parser of vLLM 0.18.0 and upstream removals.
REMOVED_FLAGS = {
    "device": "vLLM 0.18.0 finds the platform by itself; leave it out",
    "swap-space": "removed from vLLM; leave it out",
    "disable-log-requests": "removed from vLLM; request logging is off unless enable-log-requests is true",
    "model": "the model is positional and set from the weights path; set weights instead",
    "api-key": "would show the key in the process list and the log; set fleet_api_key, which travels in a file",
    "port": "set the instance's port instead",
    "served-model-name": "set the instance's served_model_name instead",
    "shutdown-timeout": "set the instance's shutdown_timeout_s instead",
    "fail-on-environ-validation": "makes every VLLM_ASCEND_* variable fatal on this platform; leave it out",
}

# Keys that vllm-ascend 0.18.0 reads; it ignores all others without a word. Source: vllm_ascend/ascend_config.py of 0.18.0.
ADDITIONAL_CONFIG_KEYS = frozenset((
    "xlite_graph_config", "weight_prefetch_config", "finegrained_tp_config", "ascend_compilation_config", "ascend_fusion_config",
    "eplb_config", "refresh", "dump_config_path", "enable_async_exponential", "enable_shared_expert_dp",
    "multistream_overlap_shared_expert", "multistream_overlap_gate", "recompute_scheduler_enable", "enable_cpu_binding",
    "SLO_limits_for_dynamic_batch", "pa_shape_list", "enable_kv_nz", "layer_sharding", "enable_sparse_c8",
    "enable_mc2_hierarchy_comm",
))


# A flag that no parser knows, put behind all others: argparse refuses a line only after it has read all of it, and before the program begins.
PARSE_ONLY = "--vllm-ascend-fleet-parse-only"
_PARSER_SAYS = re.compile(r"^[\w ./-]+: error: (.*)$", re.M)
# What some flags read, such as the name of a graph mode, fails with an error that argparse does not turn into words of its own.
_READING_A_VALUE = re.compile(r'File "[^"]*argparse\.py", line \d+, in _get_value\n')


def parser_verdict(rc, stderr):
    """What the engine's own parser made of a command line that ends in PARSE_ONLY.

    :returns: ("pass", None), ("fail", its objection), or ("unknown", the last it said) when it did not come to parsing.
    """
    said = _PARSER_SAYS.findall(stderr)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if rc == 1 and not said and _READING_A_VALUE.search(stderr):
        return "fail", "a value cannot be read: " + lines[-1][:200]
    if rc != 2 or not said:
        return "unknown", lines[-1][:200] if lines else "exit %s" % rc
    head, unknown, rest = said[-1].partition("unrecognized arguments: ")
    if not unknown or head:
        # A configuration's objections follow on lines of their own.
        told = [line for line in stderr[stderr.rindex(said[-1]):].splitlines() if "further information" not in line]
        return "fail", " ".join(" ".join(told).split())[:400]
    words = [word for word in rest.split() if word != PARSE_ONLY]
    return ("fail", "unrecognized arguments: " + " ".join(words)) if words else ("pass", None)


def parse_flag_table(text):
    """Read the tab-separated flag table of one vLLM version.

    Returns {flag without dashes: {"kind": "value" | "switch" | "bool" | "list", "type": str, "choices": [str], "group": configuration class or
    "Frontend"}}; every spelling is a key.
    """
    flags = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.startswith("--"):
            continue
        cells = line.split("\t") + [""] * 6
        kind = cells[1]
        if kind.startswith("bool"):
            kind = "bool"
        elif kind.startswith("list") or kind.endswith("nargs=+") or kind == "append":
            kind = "list"
        elif kind.startswith("value"):
            kind = "value"
        entry = {"kind": kind, "type": cells[2], "choices": [c for c in cells[4].split(",") if c], "group": cells[5]}
        for spelling in cells[0].split(","):
            spelling = spelling.strip()
            if spelling.startswith("--") and not (kind == "bool" and spelling.startswith("--no-")):
                flags[spelling[2:]] = entry
    return flags


def check(arguments, flags, version):
    """Compare arguments with the flag table of a vLLM version.

    :param dict arguments: flag without dashes -> value (None leaves the flag out).
    :param dict flags: what parse_flag_table returned.
    :param str version: the vLLM version the table belongs to, for the messages.
    :returns: a list of one-line problems, empty when the command line is sound.
    """
    problems = []
    for raw, value in arguments.items():
        name = _canonical(raw)
        base = name.split(".", 1)[0]
        if base in REMOVED_FLAGS:
            problems.append("argument '%s': %s" % (raw, REMOVED_FLAGS[base]))
            continue
        entry = flags.get(base)
        if entry is None:
            problems.append("argument '%s' does not exist in vLLM %s%s" % (raw, version, did_you_mean(name, flags)))
        elif value is not None:
            problems.extend("argument '%s': %s" % (raw, p) for p in value_problems(name, value, entry))
    return problems


def value_problems(name, value, entry):
    """What is wrong with a flag's value, as half sentences."""
    kind = entry["kind"]
    if kind in ("bool", "switch"):
        if not isinstance(value, bool):
            return ["takes true or false, not %r" % (value,)]
        return []
    if isinstance(value, bool):
        return ["takes a value, not true or false"]
    if entry["type"] == "int" and "." not in name and not (isinstance(value, int) or str(value).lstrip("-").isdigit()):
        return ["takes a whole number, not %r" % (value,)]
    if entry["choices"] and isinstance(value, str) and value not in entry["choices"]:
        return ["takes one of %s, not '%s'" % (", ".join(entry["choices"]), value)]
    if name == "additional-config" and isinstance(value, dict):
        return ["key '%s' is ignored by vllm-ascend%s" % (key, did_you_mean(key, ADDITIONAL_CONFIG_KEYS))
                for key in value if key not in ADDITIONAL_CONFIG_KEYS]
    return []


def render(arguments, flags):
    """Turn checked arguments into the list that follows C(vllm serve MODEL).

    true gives --flag, false gives --no-flag where the parser has it (else nothing), a dictionary becomes compact JSON,
    a list becomes several values for a list flag and JSON otherwise, None leaves the flag out. The order is the dictionary's.
    Where no table tells, true and false are taken for a flag that has both forms; the engine's own parser is asked before anything stops.
    """
    line = []
    for raw, value in arguments.items():
        name = _canonical(raw)
        entry = flags.get(name.split(".", 1)[0], {"kind": "value" if flags or not isinstance(value, bool) else "bool"})
        if value is None:
            continue
        if isinstance(value, bool) and entry["kind"] in ("bool", "switch"):
            if value:
                line.append("--" + name)
            elif entry["kind"] == "bool":
                line.append("--no-" + name)
        elif isinstance(value, list) and entry["kind"] == "list":
            line.append("--" + name)
            line.extend(_text(item) for item in value)
        else:
            line.extend(["--" + name, _text(value)])
    return line


def _canonical(name):
    head, dot, rest = name.lstrip("-").partition(".")
    return head.replace("_", "-") + dot + rest


def canonical(arguments):
    """The same arguments with one spelling for each flag (dashes, no leading ones), so that overrides meet what they override."""
    return dict((_canonical(name), value) for name, value in arguments.items())


def _text(value):
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)
