# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets and pages for Prometheus."""

from __future__ import annotations

import pytest
from bench_records import record

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import monitoring

SURVEY = {"family": "910b", "instances": {"gemma": {"release": "0" * 12, "manifest": {"model": "gemma-4-E2B-it", "port": 8001}}},
          "containers": [{"name": "web", "image": "nginx", "ports": [80]}]}


def exporter(**container):
    return dict(SURVEY, containers=[dict({"name": "x", "image": "y", "ports": []}, **container)])


def test_every_instance_is_a_target_with_its_labels():
    (group,) = monitoring.host_targets("a2-1", "192.0.2.1", SURVEY)
    assert group == {"targets": ["192.0.2.1:8001"], "labels": {"job": "vllm", "host": "a2-1", "fleet_instance": "gemma", "model": "gemma-4-E2B-it",
                                                               "chips": "910b", "release": "0" * 12}}
    assert monitoring.host_targets("a2-1", "2001:db8::1", SURVEY)[0]["targets"] == ["[2001:db8::1]:8001"]


@pytest.mark.parametrize("survey, port", [
    (SURVEY, None), (exporter(name="npu-exporter"), 8082), (exporter(image="ascendhub/npu-exporter:v7", ports=[9101]), 9101),
    (exporter(name="npu_exporter", ports=[80, 8082]), 8082), ({"instances": {}, "containers": None}, None)])
def test_an_exporter_is_found_in_its_container(survey, port):
    assert monitoring.exporter_port(survey) == port
    jobs = [group["labels"]["job"] for group in monitoring.host_targets("h", "192.0.2.1", survey)]
    assert ("npu-exporter" in jobs) == (port is not None)


def test_an_exporter_outside_of_containers_is_named_by_its_port():
    assert monitoring.host_targets("h", "192.0.2.1", SURVEY, 9999)[1]["targets"] == ["192.0.2.1:9999"]


def test_what_could_not_be_read_stays_as_it_is():
    surveys = {"a": SURVEY, "b/1": {"unreachable": True}, "c": None, "d": {"instances": {}}}
    found = monitoring.fleet_targets(surveys, dict.fromkeys(surveys, "192.0.2.1"), {})
    assert found["keep"] == ["targets/b_1.json", "targets/c.json"] and sorted(found["files"]) == ["targets/a.json", "targets/d.json"]
    assert found["files"]["targets/d.json"] == [] and found["files"]["targets/a.json"][0]["targets"] == ["192.0.2.1:8001"]


def test_verification_as_a_page():
    item = {"rule": "smoke.fact", "status": "fail"}
    page = monitoring.verify_text(
        {"run_id": "r1", "instances": [{"host": "a2-1", "instance": "ge\"m\\ma", "model": None, "ready": False, "findings": [item]}]}, 12.5
    )
    assert 'vllm_ascend_fleet_instance_ready{host="a2-1",fleet_instance="ge\\"m\\\\ma",model=""} 0.0\n' in page
    assert 'rule="smoke.fact"} 0.0' in page and 'vllm_ascend_fleet_verify_timestamp_seconds{run="r1"} 12.5\n' in page
    assert page.count("# TYPE") == 3 and page.endswith("\n")


def test_a_benchmark_as_a_page():
    content = {"suite": "gemma4", "verdict": "fail", "records": [
        record(), record(metrics={"mean_ttft_ms": 99.5}), record(counts_as="warm-up", metrics={"mean_ttft_ms": 1.0}), record(status="failed", workload="x")]}
    page = monitoring.benchmark_text(content, 12.5)
    assert page.count("vllm_ascend_fleet_benchmark{") == 1 and 'workload="1k/1k",metric="mean_ttft_ms"} 99.5' in page
    assert 'vllm_ascend_fleet_benchmark_pass{suite="gemma4"} 0.0' in page


@pytest.mark.parametrize("expression, names", [
    ('up{job="vllm"} == 0', ["up"]),
    ('histogram_quantile(0.99, sum by (host, le) (rate(vllm:time_to_first_token_seconds_bucket{job="vllm",x=~"a.*"}[5m]))) > 10',
     ["vllm:time_to_first_token_seconds"]),
    ("sum by (a) (vllm:num_requests_running) > 0 and sum by (a) (rate(vllm:generation_tokens_total[5m])) == 0",
     ["vllm:generation_tokens_total", "vllm:num_requests_running"])])
def test_names_in_an_expression(expression, names):
    assert monitoring.metric_names(expression) == names
