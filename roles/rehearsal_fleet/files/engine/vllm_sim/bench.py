# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`vllm bench serve` and `vllm bench throughput` as 0.18.0 has them: real requests and real times of a server that computes nothing.

The ways in which the true tool misleads are there as well: it ends with 0 when every request failed, counts an answer without tokens as a success,
takes the proxies of its environment for its own host, and offline ignores --input-len and --output-len for random prompts.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import math
import os
import random
import threading
import time
import urllib.parse
import urllib.request

from . import checks, faults, flags, log, settings

WORDS = ("river stone light green paper music table window garden market silver number letter forest summer winter bridge engine island valley").split()
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
NAMES = (("ttft", "TTFT", "Time to First Token"), ("tpot", "TPOT", "Time per Output Token (excl. 1st token)"), ("itl", "ITL", "Inter-token Latency"),
         ("e2el", "E2EL", "End-to-end Latency"))
PATHS = {"openai-chat": "chat/completions", "openai": "completions", "vllm": "completions"}
SEATS = 256


def main(words):
    """The command behind `vllm bench`; returns the exit code."""
    if not words or words[0] not in ("serve", "throughput"):
        raise SystemExit("vllm bench: the rehearsal engine knows `serve` and `throughput`")
    return serve(words[1:]) if words[0] == "serve" else throughput(words[1:])


def _tokenizer(name):
    """A tokenizer comes from a folder; a plain name is taken for a repository, which no host can reach."""
    if not os.path.isdir(name):
        raise OSError("%s is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf this is a private "
                      "repository, make sure to pass a token having permission to this repo" % name)


def prompts(seed, count, length, prefix_length):
    """So many texts of so many tokens each, the same for the same seed; a token is a word here."""
    draw = random.Random(seed)
    prefix = [draw.choice(WORDS) for _number in range(prefix_length)]
    return [" ".join(prefix + [draw.choice(WORDS) for _word in range(length)]) for _number in range(count)]


class Outcome:
    """What became of one request."""

    def __init__(self, prompt_len):
        self.prompt_len, self.success, self.error, self.text = prompt_len, False, "", ""
        self.start_time, self.ttft, self.latency, self.itl, self.tokens = 0.0, 0.0, 0.0, [], 0


def _connection(url):
    """A connection to a URL; the proxies of the environment count, even for this host."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get("http")
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        through = urllib.parse.urlsplit(proxy if "//" in proxy else "http://" + proxy)
        return http.client.HTTPConnection(through.hostname, through.port or 80), url
    return http.client.HTTPConnection(parts.hostname, parts.port or 80), parts.path


def request(args, url, prompt, prompt_len, output_len):
    """Send one request and read its stream as it comes."""
    outcome = Outcome(prompt_len)
    body = {"model": args.served_model_name or args.model, "stream": True, "stream_options": {"include_usage": True}}
    if args.backend == "openai-chat":
        body.update(messages=[{"role": "user", "content": [{"type": "text", "text": prompt}]}], max_completion_tokens=output_len)
    else:
        body.update(prompt=prompt, max_tokens=output_len)
    if args.ignore_eos:
        body["ignore_eos"] = True
    if args.temperature is not None:
        body["temperature"] = args.temperature
    headers = {"Content-Type": "application/json"}
    if os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = "Bearer " + os.environ["OPENAI_API_KEY"]
    outcome.start_time = last = time.perf_counter()
    connection = None
    try:
        connection, target = _connection(url)
        connection.request("POST", target, json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            outcome.error = answer.reason
            answer.read()
            return outcome
        for line in answer:
            message = line.decode("utf-8").strip()
            if not message or message.startswith(":"):
                continue
            message = message[6:] if message.startswith("data: ") else message
            if message == "[DONE]":
                continue
            data, now = json.loads(message), time.perf_counter()
            if data.get("choices"):
                if outcome.ttft == 0.0:
                    outcome.ttft = now - outcome.start_time
                else:
                    outcome.itl.append(now - last)
                choice = data["choices"][0]
                outcome.text += (choice.get("delta") or choice).get("content" if "delta" in choice else "text") or ""
            elif data.get("usage"):
                outcome.tokens = data["usage"].get("completion_tokens")
            last = now
        outcome.success, outcome.latency = True, last - outcome.start_time
    except (OSError, ValueError, http.client.HTTPException) as error:
        outcome.error = "Traceback (most recent call last):\n%s: %s" % (type(error).__name__, error)
    finally:
        if connection is not None:
            connection.close()
    return outcome


def percentile(values, rank):
    """As numpy has it, between two values on a straight line."""
    ordered = sorted(values) or [0]
    place = (len(ordered) - 1) * rank / 100.0
    low = int(math.floor(place))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _spread(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _peaks(outcomes):
    """Most tokens in a second, and most requests in a second."""
    if not outcomes:
        return 0.0, 0
    begin = min(one.start_time for one in outcomes)
    seconds = int(math.ceil(max(one.start_time + one.latency for one in outcomes) - begin)) + 1
    tokens, requests = [0] * seconds, [0] * seconds
    for one in outcomes:
        now = one.start_time + one.ttft - begin
        for gap in [0.0] + one.itl:
            now += gap
            tokens[min(int(now), seconds - 1)] += 1
        for second in range(int(one.start_time - begin), int(one.start_time + one.latency - begin) + 1):
            requests[second] += 1
    return float(max(tokens)), max(requests)


def _drive(args, url, texts):
    """All requests, as many at a time and as fast as was asked for: (outcomes, seconds)."""
    outcomes, draw = [None] * len(texts), random.Random(args.seed)
    seats = threading.Semaphore(args.max_concurrency or len(texts))

    def one(index):
        with seats:
            outcomes[index] = request(args, url, texts[index], args.random_input_len, args.random_output_len)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(texts))]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
        if args.request_rate < math.inf:
            time.sleep(draw.expovariate(args.request_rate))
    for thread in threads:
        thread.join()
    return outcomes, time.perf_counter() - begin


def serve(words):
    """`vllm bench serve`."""
    parser = argparse.ArgumentParser(prog="vllm bench serve", allow_abbrev=False)
    flags.add_flags(parser, flags.rows("bench-serve-0.18.0.tsv"))
    args = parser.parse_args(words)
    print(args)
    for name, asked in (("dataset", args.dataset_name != "random"), ("backend", args.backend not in PATHS), ("range", args.random_range_ratio),
                        ("ramp-up", args.ramp_up_strategy), ("profile", args.profile), ("plots", args.plot_timeline or args.plot_dataset_stats)):
        if asked:
            raise SystemExit("vllm bench serve: this %s is not part of the rehearsal engine" % name)
    base = args.base_url or "http://%s:%d" % (args.host, args.port)
    if not args.endpoint.endswith(PATHS[args.backend]):
        raise ValueError("%s URL must end with one of: ('%s',)." % (args.backend, PATHS[args.backend]))
    if args.model is None:
        with urllib.request.urlopen(base + "/v1/models") as answer:
            args.model = json.load(answer)["data"][0]["id"]
    args.tokenizer = args.tokenizer or args.model
    _tokenizer(args.tokenizer)
    args.random_input_len = args.random_input_len if args.input_len is None else args.input_len
    args.random_output_len = args.random_output_len if args.output_len is None else args.output_len
    args.ignore_eos = True
    if args.temperature is None:
        print("WARNING: vllm bench serve no longer sets temperature==0 (greedy) in requests by default. The default will be determined on the server "
              "side and can be model/API specific. For the old behavior, include --temperature=0.")
    print("Starting initial single prompt test run...\nSkipping endpoint ready check.\nStarting main benchmark run...")
    texts = prompts(args.seed, args.num_prompts, args.random_input_len, args.random_prefix_len)
    outcomes, seconds = _drive(args, base + args.endpoint, texts)
    result = _result(args, outcomes, seconds)
    if args.save_result or args.append_result:
        _save(args, result)
    return 0


def _result(args, outcomes, seconds):
    good = [one for one in outcomes if one.success]
    failed = [one for one in outcomes if not one.success]
    if failed:
        print("Failed requests during benchmark run detected (capping to 10):")
        for index, one in enumerate(failed[:10]):
            print("Error %d: %s" % (index, one.error))
    total_input, total_output = sum(one.prompt_len for one in good), sum(one.tokens or 0 for one in good)
    peak_tokens, peak_requests = _peaks(good)
    result = {
        "date": datetime.datetime.now().strftime("%Y%m%d-%H%M%S"), "endpoint_type": args.backend, "backend": args.backend, "label": args.label,
        "model_id": args.model, "tokenizer_id": args.tokenizer, "num_prompts": args.num_prompts}
    result.update(item.split("=", 1) for item in args.metadata or ())
    result.update({
        "request_rate": args.request_rate if args.request_rate < math.inf else "inf", "burstiness": args.burstiness,
        "max_concurrency": args.max_concurrency, "duration": seconds, "completed": len(good), "failed": len(failed),
        "total_input_tokens": total_input, "total_output_tokens": total_output, "request_throughput": len(good) / seconds, "request_goodput": None,
        "output_throughput": total_output / seconds, "total_token_throughput": (total_input + total_output) / seconds,
        "input_lens": [one.prompt_len for one in outcomes], "output_lens": [one.tokens or 0 for one in outcomes],
        "ttfts": [one.ttft for one in outcomes], "itls": [one.itl for one in outcomes], "start_times": [one.start_time for one in outcomes],
        "generated_texts": [one.text for one in outcomes], "errors": [one.error for one in outcomes],
        "max_output_tokens_per_s": peak_tokens, "max_concurrent_requests": peak_requests, "rtfx": 0.0})
    print("{s:{c}^{n}}".format(s=" Serving Benchmark Result ", n=50, c="="))
    for title, value in (("Successful requests:", len(good)), ("Failed requests:", len(failed)), ("Maximum request concurrency:", args.max_concurrency),
                         ("Benchmark duration (s):", seconds), ("Total input tokens:", total_input), ("Total generated tokens:", total_output),
                         ("Request throughput (req/s):", result["request_throughput"]),
                         ("Output token throughput (tok/s):", result["output_throughput"]),
                         ("Peak output token throughput (tok/s):", peak_tokens), ("Peak concurrent requests:", float(peak_requests)),
                         ("Total token throughput (tok/s):", result["total_token_throughput"])):
        if value is not None:
            print(("{:<40} {:<10.2f}" if isinstance(value, float) else "{:<40} {:<10}").format(title, value))
    series = {"ttft": [one.ttft for one in good], "itl": [gap for one in good for gap in one.itl], "e2el": [one.latency for one in good],
              "tpot": [(one.latency - one.ttft) / (one.tokens - 1) for one in good if (one.tokens or 0) > 1]}
    ranks = [float(rank) for rank in args.metric_percentiles.split(",")]
    for key, short, title in NAMES:
        if key not in (args.percentile_metrics or "ttft,tpot,itl").split(","):
            continue
        values = [1000 * value for value in series[key]] or [0.0]
        found = [("mean", "Mean", sum(values) / len(values)), ("median", "Median", percentile(values, 50)), ("std", None, _spread(values))]
        found += [("p%s" % _rank(rank), "P%s" % _rank(rank), percentile(values, rank)) for rank in ranks]
        print("{s:{c}^{n}}".format(s=title, n=50, c="-"))
        for name, said, value in found:
            result["%s_%s_ms" % (name, key)] = value
            if said:
                print("{:<40} {:<10.2f}".format("%s %s (ms):" % (said, short), value))
    print("=" * 50, flush=True)
    return result


def _rank(rank):
    return str(int(rank)) if int(rank) == rank else str(rank)


def _save(args, result):
    if not args.save_detailed:
        result = {key: value for key, value in result.items() if key not in DETAILS}
    name = args.result_filename or "%s-%sqps%s-%s-%s.json" % (
        args.label or args.backend, args.request_rate, "" if args.max_concurrency is None else "-concurrency%d" % args.max_concurrency,
        args.model.split("/")[-1], result["date"])
    if args.result_dir:
        os.makedirs(args.result_dir, exist_ok=True)
        name = os.path.join(args.result_dir, name)
    with open(name, "a+" if args.append_result else "w", encoding="utf-8") as stream:
        if args.append_result and stream.tell() != 0:
            stream.write("\n")
        json.dump(result, stream)


def throughput(words):
    """`vllm bench throughput`: an engine of its own on the same chips, then random prompts in batches."""
    parser = argparse.ArgumentParser(prog="vllm bench throughput", allow_abbrev=False)
    flags.add_flags(parser, [row for row in flags.rows() if row[5].endswith("Config") and not row[0].startswith("--seed")])
    flags.add_flags(parser, [row for row in flags.rows("bench-serve-0.18.0.tsv") if row[0].startswith("--random-")])
    for name, kind in (("--dataset-name", str), ("--backend", str), ("--input-len", int), ("--output-len", int), ("--output-json", str)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args(words)
    if args.dataset_name not in (None, "random"):
        raise SystemExit("vllm bench throughput: this dataset is not part of the rehearsal engine")
    if args.input_len is not None:
        print("WARNING: Both --input-len and --random-input-len are specified. The random version (--random-input-len) will be preferred in this run.")
    checks.driver()
    config = checks.model_config(args.model)
    checks.architecture(config)
    length = checks.max_model_len(args, config)
    checks.heads(args, config)
    _engines, chips = checks.world_size(argparse.Namespace(**dict(vars(args), data_parallel_size_local=None)))
    kind, memory = checks.device_type()
    if kind == "_310P":
        checks.limits_of_310p(args, config)
    crash = faults.lever("engine_crash_loop", args.model)
    if crash is not None:
        raise RuntimeError(crash or "NPU error, error code is 507015. [Error]: The aicore execution is abnormal.")
    checks.kv_memory(args, checks.weights_bytes(args.model), chips, memory)
    if args.random_input_len + args.random_output_len > length:
        raise ValueError("Please ensure that max_model_len is greater than the sum of input_len and output_len.")
    log.line("Loading model weights", source="model_runner_v1.py:2592")
    time.sleep(settings.START_S)
    delay = faults.seconds("slow_tokens_s", args.model, settings.TOKEN_S)
    begin = time.perf_counter()
    time.sleep(max(0.001, delay) * args.random_output_len * math.ceil(args.num_prompts / float(args.max_num_seqs or SEATS)))
    seconds = time.perf_counter() - begin
    inputs, outputs = args.num_prompts * args.random_input_len, args.num_prompts * args.random_output_len
    print("Throughput: %.2f requests/s, %.2f total tokens/s, %.2f output tokens/s" % (
        args.num_prompts / seconds, (inputs + outputs) / seconds, outputs / seconds))
    print("Total num prompt tokens:  %d\nTotal num output tokens:  %d" % (inputs, outputs), flush=True)
    if args.output_json:
        with open(args.output_json, "w", encoding="utf-8") as stream:
            json.dump({"elapsed_time": seconds, "num_requests": args.num_prompts, "total_num_tokens": inputs + outputs,
                       "requests_per_second": args.num_prompts / seconds, "tokens_per_second": (inputs + outputs) / seconds}, stream, indent=4)
    return 0
