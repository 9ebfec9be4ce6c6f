# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at all hosts of the play at once."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import looking, workspace


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
        surveys, proof, _load = looking.look(self, task_vars, hosts, args["request"], args["prove"], reach=args["reach"], smoke=args["smoke"])
        workspace.save("surveys", surveys)
        workspace.save("proof", proof)
        result.update(
            changed=False,
            installed={host: [each["name"] for each in recovery.installed(survey, args["model"], args["previous"])] for host, survey in surveys.items()},
            known=sorted({each["name"] for survey in surveys.values() for each in recovery.installed(survey)}),
            unreachable_hosts={host: f"{host}: {survey['error']}; {survey['remedy']}" for host, survey in surveys.items() if survey.get("unreachable")},
            without_instances=[host for host, survey in surveys.items() if recovery.is_left_over(survey)],
            our_images={host: recovery.our_images(survey) for host, survey in surveys.items()},
            engines={host: (survey.get("engine") or {}).get("name") for host, survey in surveys.items()})
        return result
