# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark's playbook and the performance gate of a rollout do alike: the job of a host, and records of what it left. Controller only."""

from __future__ import annotations

import os
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_plan, bench_result, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import program

# A result of yesterday is not continued.
MAX_AGE_S = 24 * 3600


def start(job, steps, directory, fresh=False):
    """Arguments of bench_runner.begin for a host.

    :param str directory: the fleet's state directory on the host.
    """
    return {"id": job, "state_directory": directory, "fresh": fresh, "program": program.text("bench_runner:main", {}).decode("ascii"),
            "plan": bench_plan.runner_plan(steps, os.path.basename(steps[0]["argv"][0]), MAX_AGE_S)}


def outcome(steps, left, job, ended):
    """{"state", "reason"} of a host from what its job left."""
    bad = [one for one in left if one["problems"]]
    if job.get("state") != "succeeded":
        return {"state": "incomplete" if left else "failed", "reason": ended.get("msg") or "the job %s: %s" % (
            job.get("state") or "is out of sight", job.get("reason") or "no reason given")}
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        title = next(step["title"] for step in steps if step["key"] == bad[0]["key"])
        return {"state": "incomplete", "reason": f"{title}: {bad[0]['problems'][0]}{more}; run the same again to measure what is missing"}
    return {"state": "measured", "reason": None}


def records(host, steps, left, survey, context, directory, warn):
    """The records of a host, its tool's own results put beside the report.

    :param list left: what its job left. :param dict context: "run", "suite", "label", "catalogue".
    :param warn: is called with a line when a result could not be written.
    """
    manifests = {manifest["name"]: manifest for manifest in recovery.installed(survey)}
    platform = next((name for name, entry in sorted(context["catalogue"]["platforms"].items()) if survey.get("family") in entry["families"]), None)
    by_key, made = {step["key"]: step for step in steps}, []
    for one in left:
        step = by_key.get(one["key"])
        if step is None:
            continue
        found = bench_result.read(step["tool"], one.get("text"), one.get("output") or "", step["wanted"])
        made.append(bench_plan.record(step, one, found, {
            "run": context["run"], "host": host, "suite": context["suite"], "label": context["label"], "platform": platform,
            "manifest": manifests.get(step["instance"]) or {"name": step["instance"]}, "driver": (survey.get("driver") or {}).get("version"),
            "source": _keep(directory, host, step, one, warn)}))
    return made


def _keep(directory, host, step, one, warn):
    """Put the tool's own result beside the report; its name there, or None when it left none."""
    if not one.get("text"):
        return None
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in (step["instance"], step["workload"], f"run{step['run']}")) + ".json"
    path = directory / "benchmark" / host / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one["text"].strip() + "\n", encoding="utf-8")
    except OSError as error:
        warn(f"{path} was not written: {error}")
        return None
    return str(path.relative_to(directory))
