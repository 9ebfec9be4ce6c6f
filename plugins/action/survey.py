# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs npu_info on a host and turns every way of not getting an answer into a survey that says so."""

from __future__ import annotations

import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.survey."""

    TRANSFERS_FILES = False
    _supports_async = False
    _VALID_ARGS = frozenset(("request",))

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({"request": {"type": "dict", "default": {}}})
        started = time.time()
        try:
            answer = self._execute_module(module_name="vllm_ascend.fleet.npu_info", module_args=args["request"], task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            answer = {"unreachable": True, "msg": str(error)}
        except AnsibleError as error:
            answer = {"failed": True, "msg": str(error)}
        survey = answer.get("survey")
        if not isinstance(survey, dict):
            survey = reachability.explain(answer, str((task_vars or {}).get("ansible_python_interpreter", "python3")))
        # Compared with the host's own clock by the gate; the middle of the round trip is nearest to when the host read it.
        survey["controller_epoch_s"] = (started + time.time()) / 2
        result.update(changed=False, survey=survey)
        return result
