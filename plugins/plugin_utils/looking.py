# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at many hosts at once; every way of not getting an answer becomes a survey that says so. Runs on the controller."""

from __future__ import annotations

import time

from ansible.errors import AnsibleError

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, reaching, ssh_target, workspace

REACH_DEADLINE_S = 10
# Of what is asked beside npu-smi, whose deadline the request names: the engine, systemd, one answer of each instance.
LOOK_S = 120.0
# Some ten answers of each instance, one of them of 512 tokens; each has a deadline of its own.
SMOKE_S = 1200.0
SURVEY = {"ports": [], "paths": [], "weights": [], "state_directory": "/var/lib/vllm-ascend-fleet", "unit_prefix": "vllm-ascend-", "engine": "auto",
          "engine_path": None, "npu_smi_path": None, "timeout_s": 60, "deep": False, "texts": False, "nonce": None}


def look(action, task_vars, hosts, request=None, prove=False, load=False, reach=None, smoke=False):
    """Survey hosts, each in one round trip.

    :param action: the action plugin that asks. :param dict request: options of npu_info, over what the plan asks of each host.
    :param prove: ask every installed instance whether it answers. :param load: and what it has to do.
    :param smoke: and what deployers ask by hand.
    :param dict reach: {host: verdict of reaching.reach}; a host that surely cannot be talked to is not tried again.
    :returns: ({host: survey}, {host: {instance: proof}}, {host: {instance: load}}).
    """
    planned, request, reach = workspace.load("requests", {}), request or {}, reach or {}
    requests, surveys, proof, loads = {}, {}, {}, {}
    for host in hosts:
        if reach.get(host) and reach[host]["sure"]:
            surveys[host] = reachability.as_survey(reach[host])
        else:
            own = dict(SURVEY, **dict(planned.get(host) or {}, **request))
            requests[host] = {"survey": own, "prove": "all" if prove else None, "load": load, "smoke": smoke}
    started = time.time()
    slowest = max([float(each["survey"]["timeout_s"]) * (2 if each["survey"]["deep"] else 1) for each in requests.values()] + [0.0])
    entry = "look:answer"
    if not (prove or load):
        # What proves is two thirds of a look's program.
        entry, requests = "survey_sources:answer", {host: each["survey"] for host, each in requests.items()}
    answers = fan_out.ask(action, requests, entry, task_vars["hostvars"], slowest + (SMOKE_S if smoke else LOOK_S))
    silent = {host: answer for host, answer in answers.items() if not isinstance(answer.get("survey"), dict)}
    for host, answer in answers.items():
        if host not in silent:
            surveys[host], proof[host], loads[host] = answer["survey"], answer.get("proof", {}), answer.get("load", {})
            # Compared with the host's own clock by the gate.
            surveys[host]["controller_epoch_s"] = reachability.read_at(surveys[host], answer.get("asked_epoch_s") or [started, time.time()])
    surveys.update(_explain(action, silent, reach, task_vars))
    return {host: surveys[host] for host in hosts}, proof, loads


def _explain(action, silent, reach, task_vars):
    """What the step by step walk found, where it found something; else what Ansible said."""
    surveys, unasked, walked = {}, [host for host in silent if host not in reach], dict(reach)
    try:
        if unasked:
            walked.update(reaching.reach(unasked, task_vars["hostvars"], action._task, action._play_context, REACH_DEADLINE_S))
    except (ssh_target.ProbeError, AnsibleError) as error:
        action._display.vv(f"{', '.join(unasked)} were not asked step by step: {error}")
    for host, answer in silent.items():
        said = reachability.explain(answer, str(task_vars["hostvars"][host].get("ansible_python_interpreter", "python3")))
        surveys[host] = reachability.as_survey(walked[host]) or said if host in walked else said
    return surveys
