# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a suite of the catalogue and an installed instance to the commands that measure it, and from what they left to records. Pure."""

from __future__ import annotations

import hashlib
import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments as flags
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

MARK = "vllm-ascend-fleet-result"
TOOLS = {"serve": "vllm bench serve", "throughput": "vllm bench throughput"}
SUITE_KEYS = {
    "name": str, "title": str, "source": str, "models": list, "runs": int, "kept_from": int, "labelled": bool, "timeout_s": int,
    "arguments": dict, "workloads": list, "concurrency": list, "prompts_per_slot": int, "notes": list,
}
WORKLOAD_KEYS = {"name": str, "tool": str, "runs": int, "arguments": dict}
# They say where to, how to print and what else to keep; two runs that differ in them measure the same.
IMMATERIAL = frozenset((
    "base-url", "host", "port", "model", "served-model-name", "tokenizer", "tokenizer-mode", "trust-remote-code", "header", "label", "metadata",
    "disable-tqdm", "percentile-metrics", "metric-percentiles", "request-id-prefix", "ready-check-timeout-sec", "insecure", "save-result",
    "save-detailed", "append-result", "result-dir", "result-filename", "plot-timeline", "timeline-itl-thresholds", "plot-dataset-stats",
    "output-json", "goodput"))
# What 0.18.0 does when nothing is said, where it matters to figures; None is the server's own setting.
DEFAULTS = {
    "serve": {"backend": "openai", "endpoint": "/v1/completions", "dataset-name": "random", "random-input-len": 1024, "random-output-len": 128,
              "random-range-ratio": 0.0, "random-prefix-len": 0, "num-prompts": 1000, "max-concurrency": None, "request-rate": "inf",
              "burstiness": 1.0, "seed": 0, "temperature": None, "num-warmups": 0, "ignore-eos": False},
    "throughput": {"backend": "vllm", "dataset-name": "random", "random-input-len": 1024, "random-output-len": 128, "random-range-ratio": 0.0,
                   "random-prefix-len": 0, "num-prompts": 1000, "seed": 0},
}
# Flags of `vllm bench throughput` that are neither the engine's nor of the random prompts.
OFFLINE_FLAGS = ("backend", "dataset-name", "dataset-path", "input-len", "output-len", "n", "num-prompts", "seed", "async-engine",
                 "disable-frontend-multiprocessing", "disable-detokenize", "prefix-len")
OPENAI_BACKENDS = ("vllm", "openai", "openai-chat")

# Prints the tool's result between two marks, so that one command is all the traffic, and leaves its own pid for whoever has to end it.
# The client trusts the proxies of its environment even for its own host.
IN_CONTAINER = """\
folder=$1; file=$2; shift 2
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/lib" NO_PROXY='*' no_proxy='*'
rm -rf "$folder"; mkdir -p "$folder" || exit 1
"$@" </dev/null &
echo $! >"$folder/pid"; wait $!; code=$?
if [ -e "$file" ]; then echo; echo '<%(mark)s>'; cat "$file"; echo; echo '</%(mark)s>'; fi
rm -rf "$folder"; exit $code""" % {"mark": MARK}


class BenchmarkError(Exception):
    """A suite, an instance or a wish that cannot be measured, in one line."""


def check_suite(suite, table, engine_flags):
    """Problems of one suite of the catalogue, one line each.

    :param dict table: flag table of `vllm bench serve`.
    :param dict engine_flags: flag table of `vllm serve`, for offline workloads.
    """
    problems, names = _keys("suite '%s'" % suite.get("name"), suite, SUITE_KEYS), []
    if problems:
        return problems
    for workload in suite.get("workloads") or []:
        if not isinstance(workload, dict) or not isinstance(workload.get("name"), str):
            problems.append("suite '%s': a workload has no name" % suite.get("name"))
            continue
        where = "suite '%s', workload '%s'" % (suite.get("name"), workload["name"])
        problems += _keys(where, workload, WORKLOAD_KEYS)
        if workload["name"] in names:
            problems.append("%s: there are two of that name" % where)
        names.append(workload["name"])
        if workload.get("tool", "serve") not in TOOLS:
            problems.append("%s: unknown tool '%s'%s" % (where, workload["tool"], did_you_mean(workload["tool"], TOOLS)))
            continue
        known = offline_table(table, engine_flags) if workload.get("tool") == "throughput" else table
        problems += ["%s: %s" % (where, problem) for problem in _check_flags(_arguments(suite, workload), known)]
    if suite.get("concurrency"):
        problems += ["suite '%s': %s" % (suite.get("name"), problem) for problem in _check_flags(suite.get("arguments") or {}, table)]
    elif not suite.get("workloads"):
        problems.append("suite '%s' has neither workloads nor concurrency" % suite.get("name"))
    if not 1 <= suite.get("kept_from", 1) <= suite.get("runs", 1):
        problems.append("suite '%s': kept_from must be between 1 and runs" % suite.get("name"))
    return problems


def _keys(where, given, known):
    problems = []
    for key, value in given.items():
        if key.startswith("_"):
            continue
        if key not in known:
            problems.append("%s: unknown key '%s'%s" % (where, key, did_you_mean(key, known)))
        elif not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
            problems.append("%s: key '%s' has the wrong type %s" % (where, key, type(value).__name__))
    return problems


def _check_flags(given, table):
    # Placeholders are filled in later and may stand for a number.
    plain = dict((name, value) for name, value in given.items() if not (isinstance(value, str) and value.startswith("{")))
    problems = ["argument '%s' does not exist in vLLM 0.18.0%s" % (name, did_you_mean(name, table)) for name in given if name not in table]
    for name, value in plain.items():
        problems += ["argument '%s': %s" % (name, problem) for problem in
                     (flags.value_problems(name, value, table[name]) if name in table and value is not None else ())]
    return problems


def offline_table(table, engine_flags):
    """Flags of `vllm bench throughput`: its own, those of random prompts, and the engine's."""
    own = dict((name, table.get(name, {"kind": "value", "type": "str", "choices": [], "group": ""})) for name in OFFLINE_FLAGS)
    own.update((name, entry) for name, entry in table.items() if name.startswith("random-"))
    # Other choices than online.
    own["backend"] = {"kind": "value", "type": "str", "choices": ["vllm", "vllm-chat"], "group": ""}
    return dict(engine_only(engine_flags), model={"kind": "value", "type": "str", "choices": [], "group": ""}, **own)


def engine_only(engine_flags):
    """The flags of `vllm serve` that are the engine's, not the server's."""
    return dict((name, entry) for name, entry in engine_flags.items() if entry.get("group", "").endswith("Config"))


def _arguments(suite, workload):
    """The flags of a workload; those of the suite are for the online tool."""
    shared = suite.get("arguments") or {} if workload.get("tool", "serve") == "serve" else {}
    merged = dict(shared, **(workload.get("arguments") or {}))
    return dict((name, value) for name, value in merged.items() if value is not None)


def workloads(suite, wanted=(), concurrency=()):
    """The workloads of a suite, those of a sweep made from its numbers.

    :param wanted: names; empty for all.
    :param concurrency: numbers that take the place of the suite's.
    :raises BenchmarkError: for a name or a number that cannot be.
    """
    result = [dict(workload, tool=workload.get("tool", "serve"), arguments=_arguments(suite, workload)) for workload in suite.get("workloads") or []]
    if concurrency and not suite.get("concurrency"):
        raise BenchmarkError("suite '%s' is no sweep, concurrency is for one such as suite=sweep" % suite["name"])
    for number in concurrency or suite.get("concurrency") or ():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise BenchmarkError("concurrency %r is no whole number above 0" % (number,))
        given = dict(suite.get("arguments") or {})
        given.update({"max-concurrency": number, "num-prompts": number * suite.get("prompts_per_slot", 8), "seed": given.get("seed", 0) + number})
        result.append({"name": "concurrency %d" % number, "tool": "serve", "arguments": given})
    names = [workload["name"] for workload in result]
    for name in wanted:
        if name not in names:
            raise BenchmarkError("suite '%s' has no workload '%s'%s; it has %s" % (
                suite["name"], name, did_you_mean(name, names) or "", ", ".join(names)))
    # What stops the instance comes last.
    return sorted((w for w in result if not wanted or w["name"] in wanted), key=lambda w: w["tool"] != "serve")


def serves(suite, manifest):
    """Whether a suite is about an instance."""
    return not suite.get("models") or manifest.get("model") in suite["models"]


def protocol(workload, run, runs, kept_from, tokenizer):
    """Everything that two measurements must have in common to be compared; flags under their own names.

    :param int run: which of how many in a row, from 1.
    :param str tokenizer: name of the folder that it came from.
    """
    tool = workload["tool"]
    found = dict(DEFAULTS[tool], **dict((name, value) for name, value in workload["arguments"].items() if name not in IMMATERIAL))
    if tool == "serve":
        for short, long in (("input-len", "random-input-len"), ("output-len", "random-output-len")):
            if found.pop(short, None) is not None:
                found[long] = workload["arguments"][short]
        if found["dataset-name"] in ("random", "random-mm") and found["backend"] in OPENAI_BACKENDS:
            found["ignore-eos"] = True
    else:
        # The defaults of the random flags win over these two.
        found.pop("input-len", None)
        found.pop("output-len", None)
    found.update(tool=TOOLS[tool], tokenizer=tokenizer, run="any" if kept_from == 1 else "first" if run == 1 else "warm")
    if found.get("request-rate") is not None:
        found["request-rate"] = "inf" if str(found["request-rate"]) in ("inf", "Infinity") else float(found["request-rate"])
    return found


def protocol_id(found):
    """12 hexadecimal digits that stand for a protocol."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode("utf-8")).hexdigest()[:12]


def steps(suite, manifest, options, table, engine_flags, unit_text=None):
    """The commands that measure one instance, in order.

    :param dict manifest: of the instance, as recovery.installed gives it.
    :param dict options: "workloads": [name], "concurrency": [int], "repeats": int, "timeout_s": int or None.
    :param str unit_text: the instance's unit; needed for offline workloads.
    :returns: a list of {"key", "chain", "title", "tool", "argv", "kill", "container", "unit", "port", "timeout_s", "wanted", "secret",
        "instance", "workload", "run", "runs", "kept", "protocol"}.
    :raises BenchmarkError: when the instance cannot be measured so.
    """
    result = []
    weights = weights_of(manifest)
    values = {"base_url": "http://127.0.0.1:%d" % manifest["port"], "port": manifest["port"], "weights": weights,
              "served_model_name": manifest["served_model_name"]}
    kept_from = suite.get("kept_from", 1)
    for workload in workloads(suite, options.get("workloads") or (), options.get("concurrency") or ()):
        runs = workload.get("runs", suite.get("runs", 1))
        runs = runs + options.get("repeats", 1) - 1 if kept_from > 1 else runs * options.get("repeats", 1)
        for run in range(1, runs + 1):
            given = dict((name, values[value[1:-1]] if isinstance(value, str) and value[1:-1] in values and value[0] + value[-1] == "{}" else value)
                         for name, value in workload["arguments"].items())
            if kept_from == 1 and workload["tool"] == "serve":
                # Other prompts of the same kind, or the prefix cache would answer the second time.
                given["seed"] = given.get("seed", 0) + (run - 1) * 1000 if run > 1 or "seed" in given else None
            step = {
                "key": "%s|%s|%d" % (manifest["name"], workload["name"], run), "chain": "%s|%s" % (manifest["name"], workload["name"]),
                "title": "%s %s run %d of %d" % (manifest["name"], workload["name"], run, runs), "tool": workload["tool"],
                "instance": manifest["name"], "workload": workload["name"], "run": run, "runs": runs, "kept": run >= kept_from,
                "timeout_s": options.get("timeout_s") or suite.get("timeout_s", 3600), "secret": bool(manifest.get("secret")),
                "wanted": wanted(workload), "tokenizer_file": weights + "/tokenizer.json",
                "protocol": protocol(workload, run, runs, kept_from, weights.rsplit("/", 1)[-1])}
            line = flags.render(given, table if workload["tool"] == "serve" else offline_table(table, engine_flags))
            step.update(_online(manifest, step, line) if workload["tool"] == "serve" else _offline(manifest, step, line, engine_flags, unit_text))
            result.append(step)
    return result


def wanted(workload):
    """What a run must come to, where the prompts are random and their lengths fixed."""
    found = dict(DEFAULTS[workload["tool"]], **workload["arguments"])
    lengths = {}
    if found["dataset-name"] == "random" and not float(found.get("random-range-ratio") or 0):
        lengths = {"input_len": found["random-input-len"], "output_len": found["random-output-len"]}
        if workload["tool"] == "serve":
            lengths = {"input_len": found.get("input-len", found["random-input-len"]), "output_len": found.get("output-len", found["random-output-len"])}
    return dict(lengths, num_prompts=found["num-prompts"])


def weights_of(manifest):
    """Path of the weights inside the container: the positional argument."""
    line = manifest.get("arguments") or []
    if not line or line[0].startswith("-"):
        raise BenchmarkError("%s: its manifest names no weights; deploy it again" % manifest["name"])
    return line[0].rstrip("/")


def place_of(step):
    """A folder inside the container."""
    return "/tmp/vllm-ascend-fleet-benchmark-" + hashlib.sha256(step["key"].encode("utf-8")).hexdigest()[:12]


def _online(manifest, step, line):
    engine, place = manifest.get("engine") or "docker", place_of(step)
    file = place + "/run%d.json" % step["run"]
    argv = [engine, "exec", "--workdir", "/workspace"] + (["--env", "OPENAI_API_KEY"] if step["secret"] else [])
    argv += [manifest["container"], "/bin/sh", "-c", IN_CONTAINER, "sh", place, file, "vllm", "bench", "serve"] + line
    argv += ["--save-result", "--result-dir", place, "--result-filename", file.rsplit("/", 1)[1]]
    kill = [engine, "exec", manifest["container"], "/bin/sh", "-c", 'kill -TERM "$(cat "$1/pid")"', "sh", place]
    return {"argv": argv, "kill": kill, "container": manifest["container"], "unit": None,
            "port": manifest["port"]}


def _offline(manifest, step, line, engine_flags, unit_text):
    """A throw-away container like the instance's own, with another command; the instance has to give up its NPUs for it."""
    start = exec_start(unit_text or "")
    if manifest.get("image_reference") not in start:
        raise BenchmarkError("%s: its unit does not start %s; deploy it again" % (manifest["name"], manifest.get("image_reference") or "its image"))
    options = start[:start.index(manifest["image_reference"])]
    container, place = "fleet-offline-" + manifest["name"], place_of(step)
    for index in range(1, len(options)):
        if options[index - 1] == "--name":
            options[index] = container
        elif options[index - 1] == "--label":
            # It is no instance; who looks for one must not find it.
            options[index] = "vllm-ascend-fleet.job=" + container
    file = place + "/run%d.json" % step["run"]
    argv = options + [manifest["image_reference"], "/bin/sh", "-c", IN_CONTAINER, "sh", place, file, "vllm", "bench", "throughput"] + line
    argv += engine_arguments(manifest["arguments"][1:], engine_flags) + ["--output-json", file]
    return {"argv": argv, "kill": [options[0], "stop", "--time", "20", container], "container": container, "unit": manifest["unit"], "port": None}


def engine_arguments(line, engine_flags):
    """Of an instance's own command line what is the engine's, so that offline and online measure the same engine."""
    engine, kept, keep = engine_only(engine_flags), [], False
    for word in line:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].partition(".")[0]
            keep = name in engine or (name.startswith("no-") and name[3:] in engine)
            # The prompts have a seed of their own.
            keep = keep and name != "seed"
        if keep:
            kept.append(word)
    return kept


def exec_start(unit_text):
    """The words of a unit's ExecStart, as release_files wrote them."""
    match = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", unit_text, re.M)
    words = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', match.group(1).replace("\\\n", " ") if match else ""):
        word = plain or _UNESCAPE.sub(lambda hit: chr(int(hit.group(2), 16)) if hit.group(2) else _ESCAPED.get(hit.group(1), hit.group(1)), quoted)
        words.append(word.replace("%%", "%").replace("$$", "$"))
    return words


_UNESCAPE = re.compile(r"\\(x([0-9a-f]{2})|.)", re.S)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def job_id(suite, label=None):
    """The job of a suite on a host; what it measures stands in its plan, so that what was finished is found again."""
    return "benchmark-" + re.sub(r"[^a-z0-9]+", "-", suite["name"].lower()).strip("-") + ("-" + label if label else "")


def runner_plan(all_steps, engine, max_age_s):
    """What the runner on the host gets; it needs no more of a step than this."""
    keys = ("key", "chain", "title", "tool", "argv", "kill", "container", "unit", "port", "timeout_s", "wanted", "secret",
            "tokenizer_file", "instance")
    return {"schema": 1, "engine": engine, "max_age_s": max_age_s, "mark": MARK, "output_limit": 1 << 25,
            "steps": [dict((key, step[key]) for key in keys) for step in all_steps]}


def record(step, left, found, context):
    """One measurement as it travels; see "Benchmark record" in docs/architecture.md.

    :param dict step: of :func:`steps`.
    :param dict left: what the runner left of it.
    :param dict found: what bench_result.read made of that.
    :param dict context: "run", "host", "suite", "label", "manifest", "platform", "driver", "source".
    """
    manifest = context["manifest"]
    problems = list(left.get("problems") or []) or found["problems"]
    server = left.get("server") or {}
    notes = list(found["notes"])
    if server.get("other_requests"):
        notes.append("%d requests of others were answered meanwhile" % server["other_requests"])
    if server.get("busy_before"):
        notes.append("%d requests ran or waited before it began" % server["busy_before"])
    identity = json.dumps([context["host"], step["key"], context["suite"], context.get("label"), left.get("started_epoch_s")])
    return {
        "schema": 1, "id": hashlib.sha256(identity.encode("utf-8")).hexdigest()[:16], "run_id": context["run"],
        "epoch_s": left.get("started_epoch_s"), "host": context["host"], "instance": manifest["name"], "model": manifest.get("model"),
        "served_model_name": manifest.get("served_model_name"), "platform": context.get("platform"), "driver": context.get("driver"),
        "release": (manifest.get("release") or {}).get("id"), "image": (manifest.get("image_reference") or "").partition("@")[0] or None,
        "image_digest": (manifest.get("image_reference") or "").partition("@")[2] or None,
        "patch_set": (manifest.get("patch_set") or {}).get("id"), "devices": len(manifest.get("devices") or ()),
        "suite": context["suite"], "workload": step["workload"], "label": context.get("label"), "round": step["run"], "rounds": step["runs"],
        "counts_as": "kept" if step["kept"] else "warm-up", "protocol": dict(step["protocol"]), "protocol_id": protocol_id(step["protocol"]),
        "tokenizer_sha256": left.get("tokenizer_sha256"), "cache_hit_ratio": server.get("cache_hit_ratio"),
        "disturbed": bool(server.get("other_requests") or server.get("busy_before")),
        "status": "failed" if problems else "good", "problems": problems, "notes": notes,
        "metrics": {} if problems else found["metrics"], "counts": found["counts"],
        "elapsed_s": round((left.get("ended_epoch_s") or left.get("started_epoch_s") or 0) - (left.get("started_epoch_s") or 0), 1),
        "command": [word for word in step["argv"] if word != IN_CONTAINER], "source": context.get("source")}
