# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at all hosts of the play at once, and turns every way of not getting an answer into a survey that says so."""

from __future__ import annotations

import time

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, reaching, ssh_target, workspace

REACH_DEADLINE_S = 10
# Of what is asked beside npu-smi, whose deadline the request names: the engine, systemd, one answer of each instance.
LOOK_S = 120.0
# Some ten answers of each instance, one of them of 512 tokens; each has a deadline of its own.
SMOKE_S = 1200.0
SURVEY = {"ports": [], "paths": [], "weights": [], "state_directory": "/var/lib/vllm-ascend-fleet", "unit_prefix": "vllm-ascend-", "engine": "auto",
          "engine_path": None, "npu_smi_path": None, "timeout_s": 60, "deep": False, "texts": False, "nonce": None}


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.survey."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_async = False
    _VALID_ARGS = frozenset(("request", "hosts", "prove", "smoke", "model", "previous", "reach"))

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "request": {"type": "dict", "default": {}}, "hosts": {"type": "list", "elements": "str"}, "prove": {"type": "bool", "default": False},
            "smoke": {"type": "bool", "default": False},
            "model": {"type": "str", "default": ""}, "previous": {"type": "bool", "default": False}, "reach": {"type": "dict", "default": {}}})
        hosts = args["hosts"] or list(task_vars.get("ansible_play_hosts_all") or [])
        planned = workspace.load("requests", {})
        requests, surveys, proof = {}, {}, {}
        for host in hosts:
            reach = args["reach"].get(host)
            if reach and reach["sure"]:
                surveys[host] = reachability.as_survey(reach)
            else:
                own = dict(SURVEY, **dict(planned.get(host) or {}, **args["request"]))
                requests[host] = {"survey": own, "prove": "all" if args["prove"] else None, "smoke": args["smoke"]}
        started = time.time()
        deadline = max([float(each["survey"]["timeout_s"]) for each in requests.values()] + [0.0]) * (2 if args["request"].get("deep") else 1) + (
            SMOKE_S if args["smoke"] else LOOK_S)
        answers = fan_out.ask(self, requests, "look:answer", task_vars["hostvars"], deadline)
        silent = {host: answer for host, answer in answers.items() if not isinstance(answer.get("survey"), dict)}
        for host, answer in answers.items():
            if host not in silent:
                surveys[host], proof[host] = answer["survey"], answer["proof"]
                # Compared with the host's own clock by the gate; the middle of the round trip is nearest to when the host read it.
                surveys[host]["controller_epoch_s"] = answer.get("asked_epoch_s", started)
        surveys.update(self._explain(silent, args["reach"], task_vars))
        workspace.save("surveys", surveys)
        workspace.save("proof", proof)
        found = {host: [each["name"] for each in recovery.installed(survey, args["model"], args["previous"])] for host, survey in surveys.items()}
        result.update(changed=False, installed=found, unreachable={
            host: "%s: %s; %s" % (host, survey["error"], survey["remedy"]) for host, survey in surveys.items() if survey.get("unreachable")})
        result["our_images"] = {host: recovery.our_images(survey) for host, survey in surveys.items()}
        result["engines"] = {host: (survey.get("engine") or {}).get("name") for host, survey in surveys.items()}
        result["known"] = sorted(set(each["name"] for survey in surveys.values() for each in recovery.installed(survey)))
        return result

    def _explain(self, silent, reach, task_vars):
        """What the step by step walk found, where it found something; else what Ansible said."""
        surveys, unasked = {}, [host for host in silent if host not in reach]
        walked = dict(reach)
        try:
            if unasked:
                walked.update(reaching.reach(unasked, task_vars["hostvars"], self._task, self._play_context, REACH_DEADLINE_S))
        except (ssh_target.ProbeError, AnsibleError) as error:
            self._display.vv(f"{', '.join(unasked)} were not asked step by step: {error}")
        for host, answer in silent.items():
            said = reachability.explain(answer, str(task_vars["hostvars"][host].get("ansible_python_interpreter", "python3")))
            surveys[host] = reachability.as_survey(walked[host]) or said if host in walked else said
        return surveys

