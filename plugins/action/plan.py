# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the plan on the controller, judges it against the surveys, and says what it found."""

from __future__ import annotations

import os
import pathlib
import time

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate, plan_text, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import levels, report
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.planning import Planning, PlanningError


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.plan."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("stage", "model", "suite", "built", "explain", "quiet", "enforce", "directory", "texts", "prune"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "stage": {"type": "str", "choices": ["intent", "judge", "complete", "show"], "required": True},
            "model": {"type": "str", "default": ""},
            "suite": {"type": "str", "default": ""},
            "built": {"type": "list", "elements": "dict", "default": []},
            "explain": {"type": "str", "default": ""},
            "quiet": {"type": "bool", "default": False},
            "enforce": {"type": "bool", "default": True},
            "directory": {"type": "path"},
            "texts": {"type": "bool", "default": False},
            "prune": {"type": "bool", "default": False},
        })
        task_vars = task_vars or {}
        hosts = list(task_vars.get("ansible_play_hosts_all") or [])
        try:
            variables = {host: fleet_variables(task_vars["hostvars"], host) for host in hosts}
            planning = Planning(variables, args["model"] or None, args["suite"] or None, levels.templated(task_vars["hostvars"], hosts, self._templar))
            if args["explain"]:
                gate.known(args["explain"])
            if args["stage"] == "intent":
                return self._intent(planning, args["texts"])
            surveys = {host: registered(task_vars["hostvars"], host, "__preflight_survey").get("survey") for host in hosts}
            left = planning.left_over(surveys)
            if args["prune"]:
                surveys = {host: recovery.without(survey, left.get(host)) for host, survey in surveys.items()}
            if args["stage"] == "complete":
                for host in hosts:
                    # Each builder keeps what it made in a result of its own.
                    args["built"] = args["built"] + (registered(task_vars["hostvars"], host, "__acquire_built").get("results") or [])
                return self._complete(planning, surveys, args)
            if args["stage"] == "show":
                return self._show(planning, surveys, args, left)
            return self._judge(planning, surveys, args, left)
        except PlanningError as error:
            return self._refuse(error.args[0])
        except gate.GateError as error:
            return self._refuse([str(error)])
        except AnsibleError as error:
            return self._refuse([" ".join(str(error).split())])

    def _refuse(self, problems):
        for problem in problems[:50]:
            self._display.display("  %s" % problem, color="red")
        more = " (and %d more, listed above)" % (len(problems) - 1) if len(problems) > 1 else ""
        return {"failed": True, "msg": problems[0] + more + " -- no host was changed"}

    def _intent(self, planning, texts):
        planning.build()
        run = time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid())
        return {"changed": False, "requests": planning.requests(texts),
                "directory": os.path.join(os.path.abspath(planning.report_directory), run)}

    def _judge(self, planning, surveys, args, left):
        made = planning.build(surveys)
        verdict, contexts = planning.judge(made, surveys)
        differences = plan_text.differences(made, surveys)
        if args["explain"]:
            self._display.display(gate.explain(args["explain"], verdict, contexts))
        elif not args["quiet"]:
            self._display.display(gate.render_table(verdict))
            for line in plan_text.notes(made) + plan_text.left_over_lines(left, args["prune"]):
                self._display.display(line, color="yellow")
        unready = sorted(host for host, status in verdict["hosts"].items() if status != "pass")
        directory = pathlib.Path(args["directory"])
        report.save(directory, "preflight.json", verdict)
        report.save(directory, "plan.json", made)
        if args["enforce"] and len(unready) > planning.max_unready:
            return {"failed": True, "msg": "%d of %d hosts are not ready and %d may be: %s. What was found and the remedy stand above and in %s" % (
                len(unready), len(verdict["hosts"]), planning.max_unready, plan_text.shorten(unready), directory / "preflight.json")}
        return {
            "changed": False, "plan": made, "differences": differences, "left_over": left, "unready": unready, "waived": verdict["waived"],
            "ready": [host for host in made["hosts"] if host not in unready],
            "unbuilt": sorted(key for key, image in made["images"].items() if not image["target_digest"]),
        }

    def _complete(self, planning, surveys, args):
        built = [entry for entry in args["built"] if entry.get("digest")]
        changed = planning.learn(built, write=not self._task.check_mode)
        made = planning.build(surveys)
        return {"changed": changed, "plan": made, "differences": plan_text.differences(made, surveys)}

    def _show(self, planning, surveys, args, left):
        made = planning.build(surveys)
        lines = ["", *plan_text.render(made, surveys).split("\n"), *plan_text.sources(made)]
        lines += plan_text.changes(made, surveys, planning.unbuilt)
        lines += ["", *plan_text.left_over_lines(left, args["prune"])]
        self._display.display("\n".join([*lines, "", "plan " + made["hash"], ""]))
        return {"changed": False, "plan": made, "differences": plan_text.differences(made, surveys), "left_over": left}


def fleet_variables(hostvars, host):
    """The host's own fleet_* variables, templated."""
    names = [name for name in hostvars.raw_get(host) if name.startswith("fleet_")]
    values, result = hostvars[host], {}
    for name in names:
        try:
            result[name] = values[name]
        except AnsibleError as error:
            raise PlanningError([f"{host}: {name} has no value: {' '.join(str(error).split())}"]) from error
    return result


def registered(hostvars, host, name):
    """A result that an earlier task registered for the host, or {}."""
    value = hostvars.raw_get(host).get(name)
    return value if isinstance(value, dict) else {}
