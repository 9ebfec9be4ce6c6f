# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus gets of a fleet: scrape targets of its hosts, and the results of gates and benchmarks as text. Pure."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.recovery import installed

NPU_EXPORTER_PORT = 8082
NPU_EXPORTER = re.compile(r"npu[-_]exporter", re.I)


def _address(host, port):
    return "%s:%d" % ("[%s]" % host if ":" in host else host, port)


def host_targets(host, address, survey, npu_exporter_port=None):
    """Scrape targets of one host in the form of Prometheus' file_sd; None when the host could not be read, so that what is known of it stays.

    :param npu_exporter_port: of an exporter that runs outside of containers; one in a container is found.
    """
    if not survey or survey.get("unreachable"):
        return None
    groups = []
    for manifest in spanning.served(installed(survey)):
        groups.append({"targets": [_address(address, manifest["port"])], "labels": {
            "job": "vllm", "host": host, "fleet_instance": manifest["name"], "model": manifest.get("model") or "", "chips": survey.get("family") or "",
            "release": (manifest.get("release") or {}).get("id") or ""}} if manifest.get("port") else None)
    port = npu_exporter_port or exporter_port(survey)
    if port:
        groups.append({"targets": [_address(address, port)], "labels": {"job": "npu-exporter", "host": host, "chips": survey.get("family") or ""}})
    return [group for group in groups if group]


def fleet_targets(surveys, addresses, ports):
    """{"files": {path: targets}, "keep": [path of a host that could not be read]} of a fleet.

    :param dict surveys: {host: survey or None}. :param dict addresses: {host: address}. :param dict ports: {host: port of its npu-exporter or None}.
    """
    result = {"files": {}, "keep": []}
    for host, survey in surveys.items():
        groups = host_targets(host, addresses[host], survey, ports.get(host))
        path = "targets/%s.json" % re.sub(r"[^A-Za-z0-9._-]", "_", host)
        if groups is None:
            result["keep"].append(path)
        else:
            result["files"][path] = groups
    return result


def exporter_port(survey):
    """Port of MindCluster's npu-exporter when it runs as a container, else None."""
    for container in survey.get("containers") or []:
        if NPU_EXPORTER.search("%s %s" % (container.get("name"), container.get("image"))):
            ports = container.get("ports") or []
            return NPU_EXPORTER_PORT if NPU_EXPORTER_PORT in ports or not ports else sorted(ports)[0]
    return None


def _series(name, labels, value):
    pairs = ",".join('%s="%s"' % (key, str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key, text in labels)
    return "%s{%s} %s" % (name, pairs, repr(float(value)))


def _page(families):
    lines = []
    for name, text, series in families:
        if series:
            lines += ["# HELP %s %s" % (name, text), "# TYPE %s gauge" % name] + series
    return "\n".join(lines) + "\n"


def verify_text(content, epoch_s):
    """verify.json as a page for a textfile collector."""
    ready, findings = [], []
    for entry in content["instances"]:
        labels = [("host", entry["host"]), ("fleet_instance", entry["instance"]), ("model", entry["model"] or "")]
        ready.append(_series("vllm_ascend_fleet_instance_ready", labels, entry["ready"]))
        for item in entry["findings"]:
            findings.append(_series("vllm_ascend_fleet_finding", labels + [("rule", item["rule"])], item["status"] == "pass"))
    return _page([
        ("vllm_ascend_fleet_instance_ready", "Whether the last verification passed.", ready),
        ("vllm_ascend_fleet_finding", "Whether a rule passed in the last verification.", findings),
        ("vllm_ascend_fleet_verify_timestamp_seconds", "When instances were verified last.",
         [_series("vllm_ascend_fleet_verify_timestamp_seconds", [("run", content["run_id"])], epoch_s)])])


def benchmark_text(content, epoch_s):
    """benchmark.json as a page for a textfile collector: the last run of each workload that counts."""
    newest = {}
    for record in content["records"]:
        if record["counts_as"] == "kept" and record["status"] == "good":
            newest[(record["host"], record["instance"], record["workload"])] = record
    series = []
    for (host, instance, workload), record in sorted(newest.items()):
        labels = [("host", host), ("fleet_instance", instance), ("model", record["model"] or ""), ("suite", content["suite"]), ("workload", workload)]
        series += [_series("vllm_ascend_fleet_benchmark", labels + [("metric", name)], value) for name, value in sorted(record["metrics"].items())]
    what = [("suite", content["suite"])]
    return _page([
        ("vllm_ascend_fleet_benchmark", "Figures of the last benchmark.", series),
        ("vllm_ascend_fleet_benchmark_pass", "Whether the last benchmark was whole and kept its objectives.",
         [_series("vllm_ascend_fleet_benchmark_pass", what, content["verdict"] == "pass")]),
        ("vllm_ascend_fleet_benchmark_timestamp_seconds", "When a suite was run last.",
         [_series("vllm_ascend_fleet_benchmark_timestamp_seconds", what, epoch_s)])])


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
# What PromQL has of its own.
WORDS = frozenset((
    "sum rate increase irate histogram_quantile avg max min count by without on ignoring group_left group_right and or unless time clamp_min clamp_max "
    "absent delta changes topk bottomk abs round label_replace max_over_time min_over_time avg_over_time le bool offset vector scalar").split())


def metric_names(expression):
    """Names of the series that a PromQL expression uses, histograms without their suffix."""
    plain = _STRINGS.sub("", expression)
    plain = re.sub(r"\{[^}]*\}", "", plain)
    plain = re.sub(r"\[[^\]]*\]", "", plain)
    plain = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", plain)
    names = re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*", plain)
    return sorted(set(re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name not in WORDS))
