# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what `vllm bench serve` and `vllm bench throughput` of 0.18.0 leave behind, and says whether it is a measurement. Pure."""

from __future__ import annotations

import json
import math
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import vllm_metrics

# What --save-detailed adds: one entry for each request.
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
# Numbers of a result that were asked for, not measured.
SETTINGS = ("num_prompts", "request_rate", "burstiness", "max_concurrency", "ramp_up_start_rps", "ramp_up_end_rps")
COUNTS = ("completed", "failed", "total_input_tokens", "total_output_tokens")

COUNTERS = (("finished", vllm_metrics.FINISHED), ("cache_queries", "vllm:prefix_cache_queries_total"), ("cache_hits", "vllm:prefix_cache_hits_total"),
            ("running", vllm_metrics.RUNNING), ("waiting", vllm_metrics.WAITING))

_THROUGHPUT = re.compile(r"^Throughput: ([\d.]+) requests/s, ([\d.]+) total tokens/s, ([\d.]+) output tokens/s", re.M)
_TOKENS = re.compile(r"^Total num (prompt|output) tokens:\s+(\d+)", re.M)


class ResultError(Exception):
    """A result file that cannot be read, in one line."""


def parse(text):
    """The one JSON object of a result file.

    :raises ResultError: for an empty, cut off, foreign or repeated one.
    """
    text = (text or "").strip().lstrip("\ufeff")
    if not text:
        raise ResultError("the result file is empty: the benchmark ended before it wrote")
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            if found:
                raise ResultError("the result file holds a whole JSON object and then something else: %s" % _what(error))
            raise ResultError("the result file is cut off or not JSON: %s" % _what(error))
        found.append(value)
        while position < len(text) and text[position].isspace():
            position += 1
    if len(found) > 1:
        raise ResultError("the result file holds %d JSON objects, as --append-result writes them; one run needs one file" % len(found))
    if not isinstance(found[0], dict):
        raise ResultError("the result file holds no object but %s; a *.pytorch.json is not the result" % (
            "a list" if isinstance(found[0], list) else json.dumps(found[0])[:40]))
    return found[0]


def _what(error):
    return " ".join(str(error).split())[:120]


def read(tool, text, output="", wanted=None):
    """What one run measured.

    :param str tool: "serve" or "throughput".
    :param text: of the result file.
    :param str output: what the tool printed; throughput counts tokens only there.
    :param dict wanted: "num_prompts" and "output_len" of the run, where known.
    :returns: {"metrics": {name: number}, "counts": {name: number}, "problems": [why it is no measurement], "notes": [what is odd]}.
    """
    result = {"metrics": {}, "counts": {}, "problems": [], "notes": []}
    try:
        data = parse(text)
    except ResultError as error:
        result["problems"].append(str(error))
        return result
    (_serve if tool == "serve" else _throughput)(data, output, wanted or {}, result)
    return result


def _numbers(data, result):
    """The finite numbers of an object; NaN and infinity are JSON to Python's writer and measure nothing."""
    numbers = {}
    for name, value in data.items():
        if name in DETAILS or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if math.isfinite(value):
            numbers[name] = value
        elif name not in SETTINGS:
            result["notes"].append("%s is %s and was left out" % (name, value))
    return numbers


def _serve(data, dummy, wanted, result):
    numbers = _numbers(data, result)
    result["counts"] = dict((name, int(numbers[name])) for name in COUNTS if name in numbers)
    asked = wanted.get("num_prompts", numbers.get("num_prompts"))
    completed, failed = numbers.get("completed"), numbers.get("failed")
    if completed is None or "duration" not in numbers:
        result["problems"].append("the result lacks %s: not a result of vllm bench serve" % ("'completed'" if completed is None else "'duration'"))
        return
    if failed:
        said = [" ".join(str(one).split()) for one in data.get("errors") or [] if one]
        result["problems"].append("%d of %d requests failed although the tool ended with 0%s" % (
            failed, asked if asked is not None else failed + completed, ": " + said[0][-200:] if said else ""))
    if asked is not None and completed != asked and not failed:
        result["problems"].append("%d of %d requests completed" % (completed, asked))
    if result["problems"]:
        return
    output_len, total = wanted.get("output_len"), numbers.get("total_output_tokens")
    if output_len and total is not None and total != output_len * completed:
        result["problems"].append("%d tokens came instead of %d: the answers are not of the length that was asked for" % (
            total, output_len * completed))
    if output_len and output_len > 1 and not numbers.get("mean_ttft_ms", 1):
        result["problems"].append("the time to the first token is 0: the server streamed no token")
    result["metrics"] = dict((name, value) for name, value in numbers.items() if name not in SETTINGS + COUNTS and not name.startswith("spec_decode"))


def _throughput(data, output, wanted, result):
    numbers = _numbers(data, result)
    missing = [name for name in ("elapsed_time", "num_requests", "total_num_tokens", "requests_per_second", "tokens_per_second") if name not in numbers]
    if missing:
        result["problems"].append("the result lacks '%s': not a result of vllm bench throughput" % missing[0])
        return
    tokens = dict((kind, int(count)) for kind, count in _TOKENS.findall(output or ""))
    result["counts"] = {"completed": int(numbers["num_requests"])}
    if "prompt" in tokens and "output" in tokens:
        result["counts"].update(total_input_tokens=tokens["prompt"], total_output_tokens=tokens["output"])
    asked = wanted.get("num_prompts")
    if asked is not None and numbers["num_requests"] != asked:
        result["problems"].append("%d of %d requests completed" % (numbers["num_requests"], asked))
        return
    for kind, key in (("prompt", "input_len"), ("output", "output_len")):
        expected = wanted.get(key, 0) * numbers["num_requests"]
        # Some tokenizers put a token before each prompt; lengths that did not take effect are far off.
        if expected and kind in tokens and abs(tokens[kind] - expected) > 0.02 * expected:
            result["problems"].append("%d %s tokens instead of %d: the lengths that were asked for did not take effect" % (
                tokens[kind], kind, expected))
            return
    result["metrics"] = {"duration": numbers["elapsed_time"], "request_throughput": numbers["requests_per_second"],
                         "total_token_throughput": numbers["tokens_per_second"]}
    if "output" in tokens and numbers["elapsed_time"] > 0:
        result["metrics"]["output_throughput"] = tokens["output"] / numbers["elapsed_time"]
    elif _THROUGHPUT.search(output or ""):
        result["metrics"]["output_throughput"] = float(_THROUGHPUT.search(output).group(3))
    else:
        result["notes"].append("the tool did not print its output tokens, so there is no output throughput")


def counters(text):
    """What a benchmark needs of vLLM's /metrics page, summed over engines; {} when there is nothing of it."""
    found = vllm_metrics.parse(text or "")
    return dict((name, sum(found[series])) for name, series in COUNTERS if found.get(series))


def between(before, after, completed):
    """What happened on the server while one run went on.

    :param dict before, after: of :func:`counters`.
    :param completed: requests of the run itself.
    :returns: {"other_requests": finished for others | None, "busy_before": running or waiting before it began | None,
        "cache_hit_ratio": prompt tokens that came from the prefix cache, 0 to 1 | None}.
    """
    result = {"other_requests": None, "busy_before": None, "cache_hit_ratio": None}
    if "finished" in before and "finished" in after and completed is not None:
        result["other_requests"] = max(0, int(round(after["finished"] - before["finished"] - completed)))
    if "running" in before:
        result["busy_before"] = int(round(before["running"] + before.get("waiting", 0.0)))
    queries = after.get("cache_queries", 0.0) - before.get("cache_queries", 0.0)
    if "cache_queries" in before and queries > 0:
        result["cache_hit_ratio"] = round((after.get("cache_hits", 0.0) - before.get("cache_hits", 0.0)) / queries, 4)
    return result
