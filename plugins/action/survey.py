# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs npu_info on a host and turns every way of not getting an answer into a survey that says so."""

from __future__ import annotations

import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import reaching, ssh_target

REACH_DEADLINE_S = 10


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.survey."""

    TRANSFERS_FILES = False
    _supports_async = False
    _VALID_ARGS = frozenset(("request", "reach"))

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"request": {"type": "dict", "default": {}}, "reach": {"type": "dict"}})
        reach = args["reach"] or None
        if reach and reach["sure"]:
            result.update(changed=False, survey=reachability.as_survey(reach))
            return result
        started = time.time()
        try:
            answer = self._execute_module(module_name="vllm_ascend.fleet.npu_info", module_args=args["request"], task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            answer = {"unreachable": True, "msg": str(error)}
        except AnsibleError as error:
            answer = {"failed": True, "msg": str(error)}
        survey = answer.get("survey")
        if not isinstance(survey, dict):
            survey = self._explain(answer, reach, task_vars or {})
        # Compared with the host's own clock by the gate; the middle of the round trip is nearest to when the host read it.
        survey["controller_epoch_s"] = (started + time.time()) / 2
        result.update(changed=False, survey=survey)
        return result

    def _explain(self, answer, reach, task_vars):
        """What the step by step walk found, where it found something; else what Ansible said."""
        said = reachability.explain(answer, str(task_vars.get("ansible_python_interpreter", "python3")))
        host = task_vars.get("inventory_hostname")
        try:
            if reach is None and host in task_vars["hostvars"]:
                reach = reaching.reach([host], task_vars["hostvars"], self._task, self._play_context, REACH_DEADLINE_S)[host]
        except (ssh_target.ProbeError, AnsibleError) as error:
            self._display.vv(f"{host} was not asked step by step: {error}")
        return reachability.as_survey(reach) or said if reach else said
