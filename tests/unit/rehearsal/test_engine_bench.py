# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`vllm bench` of the rehearsal engine: its files hold the keys of the true tool, and it misleads in the same ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_engine_sim import GEMMA3, Box  # noqa: E402  (beside this file, which is no package)

FACTS = {"date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration",
         "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
         "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests", "rtfx"}
DETAILS = {"input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors"}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    made = Box(tmp_path_factory.mktemp("bench"))
    made.model(dict(GEMMA3, max_position_embeddings=2048))
    made.server = made.start("--max-num-seqs", "4", VLLM_API_KEY="sk-test")
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def bench(box, *words, tool="serve", **environment):
    """(exit code, output) of `vllm bench`."""
    _words, env, _port = box.command(**environment)
    done = subprocess.run([sys.executable, "-m", "vllm_sim", "bench", tool, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          check=False, text=True)
    return done.returncode, done.stdout


def run(box, name, *words, key="sk-test", **environment):
    """(exit code, output, what the result file holds)."""
    code, output = bench(box, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", "http://127.0.0.1:%d" % box.server.port,
                         "--model", str(box.root / "model"), "--served-model-name", "m", "--random-input-len", "64", "--random-output-len", "16",
                         "--num-prompts", "6", "--max-concurrency", "3", "--save-result", "--result-dir", str(box.root / "results"), "--result-filename", name,
                         *words, OPENAI_API_KEY=key, **environment)
    return code, output, (box.root / "results" / name).read_text() if (box.root / "results" / name).exists() else None


def test_a_result_holds_the_keys_of_the_true_tool(box):
    code, output, text = run(box, "good.json", "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "0,100")
    data = json.loads(text)
    times = {"%s_%s_ms" % (name, metric) for metric in ("ttft", "tpot", "itl", "e2el") for name in ("mean", "median", "std", "p0", "p100")}
    assert code == 0 and set(data) == FACTS | times and data["request_rate"] == "inf"
    assert (data["completed"], data["failed"], data["total_input_tokens"], data["total_output_tokens"]) == (6, 0, 384, 96)
    assert data["p0_ttft_ms"] <= data["median_ttft_ms"] <= data["p100_ttft_ms"] and data["max_concurrent_requests"] <= 6
    assert abs(data["mean_e2el_ms"] - data["mean_ttft_ms"] - 15 * data["mean_tpot_ms"]) < 0.01 * data["mean_e2el_ms"]
    assert "Successful requests:                     6" in output and "Mean TTFT (ms):" in output


def test_default_percentiles_and_details(box):
    data = json.loads(run(box, "detailed.json", "--save-detailed", "--metadata", "host=a2-1")[2])
    assert DETAILS <= set(data) and len(data["ttfts"]) == 6 and "p99_tpot_ms" in data and "p99_e2el_ms" not in data and data["host"] == "a2-1"


def test_appended_results_are_several_objects(box):
    for _number in range(2):
        text = run(box, "appended.json", "--append-result")[2]
    assert len(text.splitlines()) == 2 and all(json.loads(line)["completed"] == 6 for line in text.splitlines())


@pytest.mark.parametrize("name, key, words", [("key.json", "wrong", ()), ("long.json", "sk-test", ("--random-input-len", "4096"))])
def test_it_ends_well_although_every_request_failed(box, name, key, words):
    code, output, text = run(box, name, *words, key=key)
    data = json.loads(text)
    assert code == 0 and (data["completed"], data["failed"]) == (0, 6) and "Failed requests during benchmark run detected" in output


def test_the_same_seed_meets_a_warm_cache_and_another_does_not(box):
    def hits():
        page = box.server.get("/metrics")[1]
        return [float(line.rsplit(" ", 1)[1]) for name in ("queries", "hits") for line in page.splitlines()
                if line.startswith("vllm:prefix_cache_%s_total" % name)]

    ratios = []
    for number, seed in enumerate(("7", "7", "8")):
        before = hits()
        run(box, "seed%d.json" % number, "--random-input-len", "1280", "--random-output-len", "2", "--seed", seed)
        after = hits()
        ratios.append((after[1] - before[1]) / (after[0] - before[0]))
    assert ratios[1] > 0.9 and ratios[0] < 0.2 and ratios[2] < 0.2


def test_proxies_of_the_environment_count_unless_told(box):
    assert json.loads(run(box, "proxy.json", http_proxy="http://127.0.0.1:9")[2])["failed"] == 6
    assert json.loads(run(box, "no-proxy.json", http_proxy="http://127.0.0.1:9", no_proxy="*")[2])["failed"] == 0


def test_a_name_is_no_tokenizer(box):
    code, output, text = run(box, "name.json", "--tokenizer", "m")
    assert code == 1 and text is None and "m is not a local folder" in output


def test_a_flag_that_nobody_knows_is_refused(box):
    code, output = bench(box, "--skip-initial-test")
    assert code == 2 and "unrecognized arguments: --skip-initial-test" in output


OFFLINE = ("--dataset-name", "random", "--num-prompts", "4", "--max-model-len", "2048")


def test_offline_ignores_the_plain_lengths(box):
    path = box.root / "offline.json"
    code, output = bench(box, "--model", str(box.root / "model"), *OFFLINE, "--input-len", "256", "--output-len", "64", "--output-json", str(path),
                         "--tensor-parallel-size", "2", "--compilation-config", '{"cudagraph_mode": "FULL_DECODE_ONLY"}', tool="throughput")
    assert code == 0 and "Total num prompt tokens:  4096\nTotal num output tokens:  512" in output and "Throughput: " in output
    assert set(json.loads(path.read_text())) == {"elapsed_time", "num_requests", "total_num_tokens", "requests_per_second", "tokens_per_second"}


@pytest.mark.parametrize("words, said", [(("--tensor-parallel-size", "4"), "must be less than or equal to the number of visible devices (2)"),
                                         (("--random-input-len", "4096"), "max_model_len is greater"), (("--port", "8000"), "unrecognized arguments: --port")])
def test_offline_refuses_what_the_engine_refuses(box, words, said):
    code, output = bench(box, "--model", str(box.root / "model"), *OFFLINE, *words, tool="throughput")
    assert code != 0 and said in output


def test_other_benchmarks_are_not_there(box):
    code, output = bench(box, tool="latency")
    assert code == 1 and "knows `serve` and `throughput`" in output
