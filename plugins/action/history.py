# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints series of what the fleet measured, and how long its steps take."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bench_text, slo
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.history."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("address", "password", "metric", "model", "suite", "workload", "host", "limit", "steps"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "address": {"type": "str", "default": ""}, "password": {"type": "str", "no_log": True},
            "metric": {"type": "str", "default": "output_throughput"}, "model": {"type": "str", "default": ""}, "suite": {"type": "str", "default": ""},
            "workload": {"type": "str", "default": ""}, "host": {"type": "str", "default": ""}, "limit": {"type": "int", "default": 200},
            "steps": {"type": "bool", "default": False}})
        address = args["address"] or history.address_of({})[0]
        try:
            one = history.History(address, args["password"])
        except history.HistoryError as error:
            return {"failed": True, "msg": str(error)}
        try:
            return self._steps(one) if args["steps"] else self._series(one, args)
        except history.HistoryError as error:
            return {"failed": True, "msg": str(error)}
        finally:
            one.close()

    def _series(self, one, args):
        metric = slo.metric_name(args["metric"]) or args["metric"]
        found = one.series(metric, args["model"], args["suite"], args["workload"], args["host"], args["limit"])
        if not found:
            models, metrics = one.known()
            if not metrics:
                return {"failed": True, "msg": f"the history {history.shown(one.address)} is empty; run benchmark.yml first"}
            if metric not in metrics:
                return {
                    "failed": True,
                    "msg": f"no measurement has the metric '{args['metric']}'{did_you_mean(metric, metrics)}; there are {', '.join(metrics)}",
                }
            return {"failed": True, "msg": f"nothing was measured of model '{args['model'] or 'any'}', suite '{args['suite'] or 'any'}', workload "
                                           f"'{args['workload'] or 'any'}', host '{args['host'] or 'any'}'; there are the models {', '.join(models)}"}
        rows = [(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["epoch_s"])), record, value) for record, value in found]
        self._display.display("\n".join(bench_text.series_lines(rows, metric)))
        return {"changed": False, "series": [dict(host=record["host"], instance=record["instance"], model=record["model"], workload=record["workload"],
                                                  release=record["release"], epoch_s=record["epoch_s"], value=value) for record, value in found]}

    def _steps(self, one):
        rows = [(step, model, platform, one.expected(step, model, platform)) for step, model, platform in one.steps()]
        if not rows:
            return {"failed": True, "msg": f"the history {history.shown(one.address)} knows no durations of steps yet"}
        self._display.display("\n".join(bench_text.expected_lines(rows)))
        return {"changed": False, "steps": [dict(step=step, model=model, platform=platform, **found) for step, model, platform, found in rows]}
