# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The suites against the seeds' own command lines, and the published figures against the seeds' own tables, digit for digit."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_plan, comparison
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue

FIXTURES = pathlib.Path(__file__).parents[3] / "fixtures" / "published"
LOADED = catalogue.load_benchmarks()
MODELS = catalogue.load()["models"]


def manifest(model, weights, **more):
    return dict({"name": bench_plan.re.sub(r"[^a-z0-9.]+", "-", model.lower()), "model": model, "served_model_name": model, "port": 8000,
                 "container": "vllm-ascend-x", "unit": "vllm-ascend-x.service", "engine": "docker", "arguments": [weights, "--port", "8000"],
                 "image_reference": "r:5000/ascend/vllm-ascend@sha256:" + "a" * 64, "devices": ["/dev/davinci0"],
                 "release": {"id": "0" * 12}}, **more)


def steps(suite, made, unit_text=None, **options):
    return bench_plan.steps(LOADED["suites"][suite], made, dict({"repeats": 1}, **options), LOADED["table"], LOADED["engine_flags"], unit_text)


def flags(words):
    """{flag: value or True} of a command line from `vllm` on."""
    words = words[words.index("bench") + 2:]
    found = {}
    for index, word in enumerate(words):
        if word.startswith("--"):
            value = words[index + 1] if index + 1 < len(words) and not words[index + 1].startswith("--") else True
            found[word] = value
    return found


def example(name):
    """The command of a fixture."""
    return shlex.split((FIXTURES / name).read_text(encoding="utf-8").replace("\\\n", " "))


def test_gemma4_is_the_delivery_to_the_last_flag():
    made = manifest("gemma-4-E4B-it", "/home/model_gemma4/gemma-4-E4B-it")
    ours = flags(steps("gemma4", made)[5]["argv"])
    theirs = flags(example("gemma4-command.txt"))
    for where in ("--result-dir",):
        ours.pop(where), theirs.pop(where)
    assert ours.pop("--result-filename") == "run2.json" and theirs.pop("--result-filename") == "round2.json"
    assert ours == theirs


def test_gemma4_runs_each_workload_twice_in_a_row_and_keeps_the_second():
    made = steps("gemma4", manifest("gemma-4-E2B-it", "/models/gemma-4-E2B-it"))
    assert [(s["workload"], s["run"], s["kept"], s["protocol"]["run"]) for s in made] == [
        (name, run, run == 2, "warm" if run == 2 else "first") for name in ("1k/1k", "16k/1k", "64k/1k") for run in (1, 2)]
    more = steps("gemma4", manifest("gemma-4-E2B-it", "/models/gemma-4-E2B-it"), repeats=3, workloads=["16k/1k"])
    assert [(s["run"], s["runs"], s["kept"]) for s in more] == [(1, 4, False), (2, 4, True), (3, 4, True), (4, 4, True)]
    assert len({bench_plan.protocol_id(s["protocol"]) for s in more if s["kept"]}) == 1
    assert len({flags(s["argv"])["--seed"] for s in more}) == 1, "the same prompts, or the cache would be cold"


def test_qwen3_online_is_the_guide():
    made = manifest("Qwen3-32B", "/root/models/qwen3-32B", served_model_name="qwen3-32b")
    ours, theirs = flags(steps("qwen3", made, workloads=["256/128 at 1"])[0]["argv"]), flags(example("qwen3-command.txt"))
    for ours_alone in ("--save-result", "--result-dir", "--result-filename", "--port"):
        ours.pop(ours_alone)
    assert ours == theirs


def test_deepseek_is_the_pull_request_without_what_is_gone():
    made = manifest("DeepSeek-R1-W8A8", "/DeepSeek-R1-W8A8", served_model_name="auto", port=8006)
    (step,) = steps("deepseek_ab", made)
    ours, theirs = flags(step["argv"]), flags(example("deepseek-command.txt"))
    assert ours.pop("--base-url") == "http://127.0.0.1:8006" and theirs.pop("--port") == "8006"
    assert theirs.pop("--skip-initial-test") is True
    ours.pop("--result-dir"), ours.pop("--result-filename")
    assert ours == theirs and step["protocol"]["request-rate"] == 1.0


UNIT = '''[Service]
ExecStart=/usr/bin/docker run \\
  --rm --init --pull never --name vllm-ascend-x --log-driver none \\
  --label vllm-ascend-fleet.instance=x --label vllm-ascend-fleet.release=000000000000 \\
  --network host --shm-size 10g --device /dev/davinci0 --mount "type=bind,source=/models/a b,target=/models/a b,readonly" \\
  r:5000/ascend/vllm-ascend@sha256:%s \\
  /bin/sh -c "export LD_LIBRARY_PATH=\\"$${LD_LIBRARY_PATH}\\"; exec \\"$$@\\"" sh \\
  vllm serve /models/x
ExecStop=-/usr/bin/docker stop
''' % ("a" * 64)


def test_offline_is_the_instances_own_engine_in_a_container_of_another_name():
    line = ["/models/qwen3-0.6B", "--port", "8000", "--served-model-name", "q", "--enforce-eager", "--dtype", "float16", "--tensor-parallel-size", "4",
            "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--no-enable-prefix-caching", "--seed", "7", "--shutdown-timeout", "20",
            "--compilation-config", '{"a":1}']
    made = steps("qwen3", manifest("Qwen3-0.6B", line[0], arguments=line), UNIT, workloads=["offline"])
    words = made[0]["argv"]
    assert [s["run"] for s in made] == [1, 2, 3] and words[:3] == ["/usr/bin/docker", "run", "--rm"]
    assert words[words.index("--name") + 1] == "fleet-offline-qwen3-0.6b" and "type=bind,source=/models/a b,target=/models/a b,readonly" in words
    assert not any("vllm-ascend-fleet.instance" in word or "vllm-ascend-fleet.release" in word for word in words)
    given = flags(words)
    assert given["--random-input-len"] == "1024" and given["--random-output-len"] == "128" and "--input-len" not in given
    assert {"--enforce-eager", "--dtype", "--tensor-parallel-size", "--no-enable-prefix-caching", "--compilation-config"} <= set(given)
    assert not {"--port", "--enable-auto-tool-choice", "--tool-call-parser", "--shutdown-timeout", "--seed"} & set(given)
    assert made[0]["kill"] == ["/usr/bin/docker", "stop", "--time", "20", "fleet-offline-qwen3-0.6b"] and made[0]["unit"] == "vllm-ascend-x.service"
    with pytest.raises(bench_plan.BenchmarkError, match="its unit does not start"):
        steps("qwen3", manifest("Qwen3-0.6B", line[0]), "", workloads=["offline"])


def test_repeats_of_equal_runs_draw_other_prompts():
    made = steps("qwen3", manifest("Qwen3-0.6B", "/models/qwen3-0.6B"), repeats=3, workloads=["256/128 at 8"])
    assert [flags(s["argv"]).get("--seed") for s in made] == [None, "1000", "2000"]
    assert len({bench_plan.protocol_id(s["protocol"]) for s in made}) == 1 and all(s["kept"] for s in made)


def test_a_sweep_has_a_step_for_each_number():
    made = steps("sweep", manifest("any", "/models/any"), concurrency=[4, 1])
    assert [(s["workload"], flags(s["argv"])["--num-prompts"], flags(s["argv"])["--max-concurrency"]) for s in made] == [
        ("concurrency 4", "32", "4"), ("concurrency 1", "8", "1")]
    for wrong in ([0], [2.5]):
        with pytest.raises(bench_plan.BenchmarkError, match="whole number above 0"):
            steps("sweep", manifest("any", "/models/any"), concurrency=wrong)
    with pytest.raises(bench_plan.BenchmarkError, match="suite 'gemma4' is no sweep"):
        steps("gemma4", manifest("any", "/models/any"), concurrency=[1])
    with pytest.raises(bench_plan.BenchmarkError, match="no workload '1k'; it has 1k/1k, 16k/1k, 64k/1k"):
        steps("gemma4", manifest("any", "/models/any"), workloads=["1k"])


def test_no_key_stands_in_a_command():
    (step,) = steps("gemma4", manifest("gemma-4-E2B-it", "/m", secret=True), workloads=["1k/1k"])[:1]
    assert step["argv"][step["argv"].index("--env") + 1] == "OPENAI_API_KEY"


PRINTED = {"Benchmark duration (s)": "duration", "Request throughput (req/s)": "request_throughput", "Output token throughput (tok/s)": "output_throughput",
           "Peak output token throughput (tok/s)": "max_output_tokens_per_s", "Total token throughput (tok/s)": "total_token_throughput",
           "Benchmark duration": "duration", "Total Token throughput (tok/s)": "total_token_throughput"}
PRINTED.update({f"{label} {name} (ms)": f"{stat}_{name.lower()}_ms" for name in ("TTFT", "TPOT", "ITL")
                for label, stat in (("Mean", "mean"), ("Median", "median"), ("P50", "p50"), ("P90", "p90"), ("P99", "p99"))})


def rows_of(model, workload, reference):
    return [row for row in reference["rows"] if (row["model"], row["workload"]) == (model, workload)]


def reference(name):
    (found,) = [one for one in LOADED["references"] if one["name"] == name]
    return found


def markdown_tables(text):
    """[(model, [[cells]])] of the delivery's page: two tables a model, as they stand."""
    found, model = [], None
    for line in text.splitlines():
        heading = re.match(r"(gemma-4-\S+?-it)\|", line)
        if heading:
            model = heading.group(1)
        if "序列长度" in line:
            found.append((model, []))
        cells = re.match(r"(\d+k/1k) \|(.*)\|$", line)
        if cells:
            found[-1][1].append([cells.group(1)] + [cell.strip() for cell in cells.group(2).split("|")])
    return found


def record(model, workload, suite, metrics):
    """A measurement of ours in the protocol of a suite."""
    one = LOADED["suites"][suite]
    protocol = comparison.reference_protocol(one, {"model": model, "workload": workload}, MODELS)
    return {"host": "a2-1", "instance": "i", "model": model, "platform": None, "suite": suite, "workload": workload, "run_id": "r", "counts_as": "kept",
            "status": "good", "disturbed": False, "problems": [], "notes": [], "round": 2, "protocol": protocol,
            "protocol_id": bench_plan.protocol_id(protocol), "metrics": metrics}


def test_the_tables_of_gemma4_come_out_digit_for_digit_and_none_is_picked():
    tables = markdown_tables((FIXTURES / "gemma4-tables.md").read_text(encoding="utf-8"))
    assert len(tables) == 8 and sum(len(rows) for _model, rows in tables) == 24
    metrics = ("duration", "output_throughput", "total_token_throughput", "mean_ttft_ms", "mean_tpot_ms")
    for index, (model, rows) in enumerate(tables):
        for workload, *cells in rows:
            ours = record(model, workload, "gemma4", dict.fromkeys(metrics, 10.0))
            made = comparison.against_reference([ours], LOADED["references"], LOADED["suites"], MODELS)
            assert {row["table"] for row in made} == {"table 1", "table 2"} and not any(row["confirmed"] for row in made)
            of_table = {row["metric"]: row["there"] for row in made if row["table"] == "table %d" % (index % 2 + 1)}
            assert of_table == {metric: [cell] for metric, cell in zip(metrics, cells)}
            assert {row["verdict"] for row in made} == {"cannot tell"}, "one measurement against one figure"


def test_the_odd_row_is_no_floor():
    odd = [row for row in reference("gemma4-v0.18.0rc1")["rows"] if not row.get("floor", True)]
    assert [(row["model"], row["table"], row["workload"]) for row in odd] == [("gemma-4-E2B-it", "table 2", "64k/1k")]
    made = comparison.against_reference([record("gemma-4-E2B-it", "64k/1k", "gemma4", {"duration": 20.0})], LOADED["references"], LOADED["suites"], MODELS)
    assert {(row["table"], row["baseline"]) for row in made} == {("table 1", True), ("table 2", False)}


def test_the_printouts_of_qwen3_come_out_digit_for_digit():
    blocks = (FIXTURES / "qwen3-printouts.txt").read_text(encoding="utf-8").split("============ Serving Benchmark Result ============")[1:]
    places = [("Qwen3-0.6B", "256/128 at 1"), ("Qwen3-0.6B", "256/128 at 8"), ("Qwen3-32B", "256/128 at 1"), ("Qwen3-32B", "256/128 at 8")]
    assert len(blocks) == len(places)
    for place, block in zip(places, blocks):
        printed = dict(re.findall(r"^([A-Z][^:]+):\s+([\d.]+)", block, re.M))
        (row,) = rows_of(*place, reference("qwen3-atlas-300i-duo"))
        assert row["metrics"] == {PRINTED[label]: value for label, value in printed.items() if label in PRINTED}


def test_the_offline_lines_of_qwen3_come_out_digit_for_digit():
    lines = re.findall(r"Throughput: ([\d.]+) requests/s, ([\d.]+) total tokens/s, ([\d.]+) output tokens/s",
                       (FIXTURES / "qwen3-printouts.txt").read_text(encoding="utf-8"))
    rows = [row for row in reference("qwen3-atlas-300i-duo")["rows"] if row["workload"] == "offline"]
    assert len(lines) == 8 and [tuple(row["metrics"].values()) for row in rows] == lines


def test_several_published_runs_have_a_spread_of_their_own():
    ours = [record("Qwen3-0.6B-TP1", "offline", "qwen3", {"output_throughput": value}) for value in (209.5, 209.6, 209.4)]
    for one in ours:
        one["protocol"] = dict(one["protocol"], run="any")
    (row,) = [row for row in comparison.against_reference(ours, LOADED["references"], LOADED["suites"], MODELS) if row["metric"] == "output_throughput"]
    assert row["there"] == ["209.75", "209.32"] and row["verdict"] == "equal" and row["low"] < 1 < row["high"] and row["confirmed"]


def test_deepseeks_two_columns_come_out_digit_for_digit_with_their_difference():
    blocks = (FIXTURES / "deepseek-printouts.txt").read_text(encoding="utf-8").split("============ Serving Benchmark Result ============")[1:]
    sides = []
    for name, block in zip(("before", "after"), blocks):
        printed = {PRINTED[label]: value for label, value in re.findall(r"^([A-Z][^:]+?)(?: \(s\))?: ([\d.]+)", block, re.M) if label in PRINTED}
        (row,) = [row for row in rows_of("DeepSeek-R1-W8A8", "4k/1.5k at 24", reference("deepseek-r1-w8a8-multistream-mla")) if row["table"] == name]
        assert row["metrics"] == printed
        sides.append(record("DeepSeek-R1-W8A8", "4k/1.5k at 24", "deepseek_ab", {metric: float(text) for metric, text in row["metrics"].items()}))
    made = comparison.before_after(sides[:1], sides[1:])
    shown = {row["metric"]: ("%.2f" % row["before"], "%.2f" % row["after"], "%.2f" % row["difference"]) for row in made["rows"]}
    assert shown["output_throughput"] == ("320.47", "324.02", "3.55") and shown["mean_ttft_ms"] == ("942.70", "1019.25", "76.55")
    assert made["verdict"] == "cannot_tell" and len(made["rows"]) == len(sides[0]["metrics"])


def test_another_tool_is_shown_and_refused():
    ours = record("gemma-3-270m-it", "200/200 at 8", "gemma3", {"duration": 300.0, "output_throughput": 70.0})
    made = comparison.against_reference([ours], LOADED["references"], LOADED["suites"], MODELS)
    assert made and {row["verdict"] for row in made} == {"not compared"}
    assert all("tool: vllm bench serve here, a script of the source's own there" in row["why"] for row in made)


def test_what_is_not_to_be_trusted_is_never_a_baseline():
    (article,) = [one for one in LOADED["references"] if one["trust"] == "low"]
    trusted_suite = dict(article, suite="gemma4", rows=[dict(article["rows"][0], model="gemma-4-E2B-it", workload="1k/1k")])
    ours = record("gemma-4-E2B-it", "1k/1k", "gemma4", {"output_throughput": 70.0, "mean_tpot_ms": 9.0})
    made = comparison.against_reference([ours], [trusted_suite], LOADED["suites"], MODELS)
    assert {(row["verdict"], row["baseline"]) for row in made} == {("not compared", False)} and "not to be trusted" in made[0]["why"]


@pytest.mark.parametrize("change, words", [
    ({"kept_from": 3}, "kept_from must be between 1 and runs"),
    ({"runs": "2"}, "key 'runs' has the wrong type str"),
    ({"argumnets": {}}, "unknown key 'argumnets'; did you mean 'arguments'?"),
    ({"workloads": []}, "neither workloads nor concurrency"),
    ({"workloads": [{"name": "a", "tool": "thruput"}]}, "unknown tool 'thruput'"),
    ({"workloads": [{"name": "a"}, {"name": "a"}]}, "there are two of that name"),
    ({"workloads": [{"name": "a", "arguments": {"num-promps": 1}}]}, "argument 'num-promps' does not exist in vLLM 0.18.0; did you mean 'num-prompts'?"),
    ({"workloads": [{"name": "a", "arguments": {"num-prompts": "ten"}}]}, "takes a whole number, not 'ten'"),
    ({"workloads": [{"name": "a", "tool": "throughput", "arguments": {"max-concurrency": 1}}]}, "argument 'max-concurrency' does not exist"),
])
def test_a_suite_that_cannot_be_is_told(change, words):
    suite = dict(LOADED["suites"]["gemma4"], **change)
    assert any(words in problem for problem in bench_plan.check_suite(suite, LOADED["table"], LOADED["engine_flags"]))


@pytest.mark.parametrize("folder, text, words", [
    ("benchmarks", "name: x\n", "lacks the key 'title'"),
    ("references", "name: x\ntrust: maybe\ntables: []\nrows: []\n", "trust is high or low"),
    ("references", "name: x\nsuite: gemma5\ntrust: low\ntables: []\nrows: []\n", "unknown suite 'gemma5'; did you mean 'gemma4'"),
    ("references", "name: x\ntrust: low\ntables: []\nrows: [{table: t}]\n", "names the table 't'"),
    ("references", "name: x\ntrust: low\ntables: [{name: t}]\nrows: [{table: t, model: m, metrics: {duration: 1.50}}]\n", "must be a number in quotes"),
])
def test_a_file_that_cannot_be_is_told(tmp_path, folder, text, words):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "x.yml").write_text(text)
    with pytest.raises(catalogue.CatalogueError, match=words):
        catalogue.load_benchmarks([tmp_path])
