#!/usr/bin/env python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A survey's CPU time on its host, and how long the plan of a large fleet takes from saved surveys.

As a program: `planning_speed.py <survey.json> <hosts>` plans and judges so many hosts like that one, four instances each.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import ground

sys.path.insert(0, str(ground.ROOT / "collections"))
HOSTS = 500
RUNS = 7
# On the host: the program comes on standard input; what npu-smi needs by itself is no part of the survey's bill.
TIMES = """
import json, resource, subprocess, sys
text = sys.stdin.buffer.read()
def used(argv, given):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout.decode()
surveys, tools = [], []
for number in range(%d):
    seconds, answer = used([sys.executable, "-"], text)
    surveys.append(seconds)
    tools.append(used(["npu-smi", "info"], b"")[0])
print(json.dumps({"survey_cpu_s": surveys, "npu_smi_cpu_s": tools, "answer": answer}))
"""


def on_the_host(prove):
    """:returns: ({"survey_cpu_s", "npu_smi_cpu_s"}: medians, the survey)."""
    from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import looking, program

    asked = {"survey": dict(looking.SURVEY, ports=[8000, 8001], paths=["/models"]), "prove": "all" if prove else None, "load": False, "smoke": False}
    found = json.loads(ground.call("docker", "exec", "-i", ground.CONTAINER, "python3", "-c", TIMES % RUNS, given=program.text("look:answer", asked)))
    answer = program.answer(0, found.pop("answer"), "")
    return {key: round(statistics.median(values), 4) for key, values in found.items()}, answer["survey"]


def plan(survey, hosts):
    """:returns: what planning and judging so many hosts took, as a run of plan.yml does it between survey and table."""
    from ansible_collections.vllm_ascend.fleet.plugins.module_utils import plan_text
    from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.planning import Planning

    variables = {"npu-%03d" % number: {
        "fleet_name": "bench", "fleet_registry": {"address": "registry.rehearsal:5000", "username": "fleet"},
        "fleet_patch_directory": str(ground.ROOT / "roles" / "rehearsal_fleet" / "files" / "patches"),
        "fleet_images_lock": str(ground.STATE / "images.lock.yml")} for number in range(hosts)}
    surveys = {host: json.loads(survey) for host in variables}
    started = time.monotonic()
    planning = Planning(variables, None, "gemma4")
    planning.build()
    made = planning.build(surveys)
    planned = time.monotonic()
    plan_text.differences(made, surveys)
    planning.judge(made, surveys)
    return {"hosts": hosts, "instances": sum(len(entry["instances"]) for entry in made["hosts"].values()),
            "plan_s": round(planned - started, 3), "judge_s": round(time.monotonic() - planned, 3)}


def measure():
    """:returns: CPU time of a survey on its host, and seconds of a plan, the median of three runs."""
    costs, survey = on_the_host(False)
    path = ground.WORK / "survey.json"
    path.write_text(json.dumps(survey), encoding="utf-8")
    runs = [json.loads(ground.call(sys.executable, __file__, path, HOSTS)) for _number in range(3)]
    middle = dict(runs[0], **{key: statistics.median(each[key] for each in runs) for key in ("plan_s", "judge_s")})
    return dict(costs, proof_cpu_s=on_the_host(True)[0]["survey_cpu_s"], **middle)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as stream:
        print(json.dumps(plan(stream.read(), int(sys.argv[2]))))
