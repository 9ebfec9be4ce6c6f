# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the plan on the controller, judges it against the surveys, and says what it found."""

from __future__ import annotations

import os
import pathlib
import secrets
import time

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, firewall, gate, plan_text, recovery, rollout, spanning
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, levels, recording, report, rolling, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, JournalError, latest
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.planning import Planning, PlanningError


# Three packets to each of some sixty chips, from all chips of a host at once.
PING_S = 120.0


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.plan."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("stage", "model", "suite", "explain", "quiet", "enforce", "texts", "prune", "deep", "conclude", "ends", "overrides",
                             "rollout", "batch"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "stage": {"type": "str", "choices": ["intent", "judge", "complete", "show", "back", "compare"], "required": True},
            "model": {"type": "str", "default": ""},
            "suite": {"type": "str", "default": ""},
            "explain": {"type": "str", "default": ""},
            "quiet": {"type": "bool", "default": False},
            "enforce": {"type": "bool", "default": True},
            "texts": {"type": "bool", "default": False},
            "prune": {"type": "bool", "default": False},
            "deep": {"type": "bool", "default": False},
            "conclude": {"type": "bool", "default": False},
            "ends": {"type": "bool", "default": False},
            "overrides": {"type": "dict", "default": {}},
            "rollout": {"type": "str", "default": ""},
            "batch": {"type": "int", "default": 0},
        })
        task_vars = task_vars or {}
        hosts = list(task_vars.get("ansible_play_hosts_all") or [])
        try:
            variables = {host: fleet_variables(task_vars["hostvars"], host) for host in hosts}
            overrides = args["overrides"] if args["stage"] in ("intent", "back", "compare") else workspace.load("run")["overrides"]
            overrides = {key: value for key, value in overrides.items() if value not in (None, "")}
            model = None if args["stage"] == "back" else args["model"]
            planning = Planning(variables, model or None, args["suite"] or None, levels.templated(task_vars["hostvars"], hosts, self._templar), overrides,
                                rolling.fleet(task_vars), workspace.load("bundle", {}))
            if args["explain"]:
                gate.known(args["explain"])
            if args["stage"] == "intent":
                return self._intent(planning, args, overrides)
            surveys = workspace.load("surveys")
            if args["stage"] == "compare":
                self._keep_rollout(planning, task_vars)
                workspace.save("differences", plan_text.differences(planning.build(surveys), surveys))
                return {"changed": False}
            if args["stage"] == "back":
                return self._back(planning, surveys, args, task_vars)
            left = planning.left_over(surveys)
            if args["prune"]:
                surveys = {host: recovery.without(survey, left.get(host)) for host, survey in surveys.items()}
            if args["stage"] == "complete":
                return self._complete(planning, surveys, task_vars["hostvars"])
            if args["stage"] == "show":
                return self._show(planning, surveys, args, left)
            return self._judge(planning, surveys, args, left, task_vars)
        except PlanningError as error:
            if args["stage"] == "compare":
                self._display.warning("not compared with the inventory: %s" % error.args[0][0])
                return {"changed": False}
            return self._refuse(error.args[0])
        except (gate.GateError, workspace.Missing, JournalError) as error:
            return self._refuse([str(error)])
        except AnsibleError as error:
            return self._refuse([" ".join(str(error).split())])

    def _refuse(self, problems):
        for problem in problems[:50]:
            self._display.display("  %s" % problem, color="red")
        more = " (and %d more, listed above)" % (len(problems) - 1) if len(problems) > 1 else ""
        return {"failed": True, "msg": problems[0] + more + " -- no host was changed"}

    def _intent(self, planning, args, overrides):
        planning.build()
        nonce, requests = secrets.token_hex(16), planning.requests(args["texts"])
        workspace.save("requests", {host: dict(request, deep=args["deep"] or request["deep"], nonce=nonce) for host, request in requests.items()})
        directory = os.path.join(os.path.abspath(planning.report_directory), time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid()))
        workspace.save("run", {"directory": directory, "nonce": nonce, "model": args["model"], "suite": args["suite"], "overrides": overrides})
        return {"changed": False, "directory": directory, "weights": {host: request["weights"] for host, request in requests.items()}}

    def _judge(self, planning, surveys, args, left, task_vars):
        made, run = planning.build(surveys), workspace.load("run")
        self._ping(made, surveys, task_vars["hostvars"])
        verdict, contexts = planning.judge(made, surveys)
        differences = self._keep(planning, made, surveys, run)
        workspace.save("left_over", left)
        self._keep_rollout(planning, task_vars)
        if args["explain"]:
            self._display.display(gate.explain(args["explain"], verdict, contexts))
        elif not args["quiet"]:
            self._display.display(gate.render_table(verdict))
            for line in plan_text.notes(made) + plan_text.left_over_lines(left, args["prune"]):
                self._display.display(line, color="yellow")
        # A group is ready with all of its hosts, or not at all, and changes as one.
        ready = spanning.closed(made, [host for host, status in verdict["hosts"].items() if status == "pass"], add=False)
        unready = sorted(set(verdict["hosts"]) - set(ready))
        for host in [host for host in unready if verdict["hosts"][host] == "pass"]:
            self._display.display("%s is left out: its group is not ready on another host" % host, color="yellow")
        directory = pathlib.Path(run["directory"])
        report.save(directory, "preflight.json", verdict)
        if args["enforce"] and len(unready) > planning.max_unready:
            report.conclude(directory, self._task.check_mode)
            return {"failed": True, "msg": "%d of %d hosts are not ready and %d may be: %s. What was found and the remedy stand above and in %s" % (
                len(unready), len(verdict["hosts"]), planning.max_unready, plan_text.shorten(unready), directory / "preflight.json")}
        proof = workspace.load("proof", {})
        work = [host for host in made["hosts"] if host not in unready and (
            recovery.has_work(made["hosts"][host], differences[host], proof.get(host), surveys[host]) or (args["prune"] and left.get(host)))]
        work = spanning.closed(made, work, add=True)
        result = {"changed": False, "unready": unready, "waived": verdict["waived"], "work": work, "left_over": left,
                  "ready": [host for host in made["hosts"] if host not in unready],
                  "unbuilt": sorted(key for key, image in made["images"].items() if not image["target_digest"])}
        result.update(supply(made, surveys, work))
        if args["conclude"] and not work:
            # No task of a host is left that could say so.
            recording.conclude(self, task_vars["hostvars"])
        else:
            # Stands when this run is cut off; where something follows, the last task writes it again.
            report.conclude(directory, self._task.check_mode, ended=args["ends"])
        return result

    def _ping(self, made, surveys, hostvars):
        """Have the chips of groups ping each other: who is to reach whom is known only when all hosts have been looked at."""
        wanted = spanning.pings(made, surveys)
        requests = {host: {"pings": pairs, "timeout_s": PING_S} for host, pairs in wanted.items() if (surveys.get(host) or {}).get("deep")}
        for host, answer in fan_out.ask(self, requests, "survey_sources:ping", hostvars, PING_S).items() if requests else ():
            surveys[host]["deep"]["pings"] = answer.get("pings") or {}

    def _keep(self, planning, made, surveys, run):
        """Leave the plan and what it changes to the tasks that carry it out. :returns: the differences."""
        differences = plan_text.differences(made, surveys, planning.secret_hashes(run["nonce"]))
        workspace.save("plan", made)
        workspace.save("differences", differences)
        report.save(pathlib.Path(run["directory"]), "plan.json", made)
        return differences

    @staticmethod
    def _keep_rollout(planning, task_vars):
        groups = task_vars.get("groups") or {}
        gateways = list(groups.get(planning.rollout["gateway_group"]) or ())
        scrapers = [str(task_vars["hostvars"][host].get("ansible_host") or host) for host in groups.get(planning.rollout["monitoring_group"]) or ()]
        rolling.enlist(planning, task_vars["hostvars"])
        workspace.save(
            "rollout_settings",
            dict(planning.rollout, traffic=dict({name: planning.rollout[name] for name in ("gateway", "hooks", "access")}, gateways=gateways,
                                                scrapers=planning.rollout["scrapers"] + [address for address in scrapers if firewall.is_network(address)])),
        )

    def _back(self, planning, surveys, args, task_vars):
        """The way back as a plan: what runs becomes what ran before it."""
        chosen = None
        if args["rollout"]:
            chosen = changed_hosts(planning.report_directory, args["rollout"], args["batch"])
        made, differences = recovery.way_back(surveys, args["model"], chosen)
        if args["rollout"] and not differences:
            raise PlanningError(["nothing that the rollout changed has a release to go back to"])
        for name, content in (("plan", made), ("differences", differences), ("left_over", {})):
            workspace.save(name, content)
        directory = os.path.join(os.path.abspath(planning.report_directory), time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid()))
        workspace.save("run", {"directory": directory, "overrides": {}})
        self._keep_rollout(planning, task_vars)
        if not differences and not args["quiet"]:
            self._display.display("no instance has a release to go back to")
        return {"changed": False, "work": list(differences), "instances": {host: sorted(found) for host, found in differences.items()}}

    def _complete(self, planning, surveys, hostvars):
        built = [entry for host in planning.settings for entry in registered(hostvars, host, "__acquire_built").get("results") or ()]
        known = bundle.learned(planning.build(surveys)["images"], planning.bundled["images"]) if planning.bundled else []
        changed = planning.learn(known + [entry for entry in built if entry.get("digest")], write=not self._task.check_mode)
        made = planning.build(surveys)
        self._keep(planning, made, surveys, workspace.load("run"))
        return dict(supply(made, surveys, list(made["hosts"])), changed=changed)

    def _show(self, planning, surveys, args, left):
        made = planning.build(surveys)
        lines = ["", *plan_text.render(made, surveys).split("\n"), *plan_text.sources(made)]
        changes = plan_text.changes(made, surveys, planning.unbuilt)
        report.conclude(workspace.load("run")["directory"], True, changes=changes)
        lines += changes
        lines += ["", *plan_text.left_over_lines(left, args["prune"])]
        self._display.display("\n".join([*lines, "", "plan " + made["hash"], ""]))
        return {"changed": False, "hash": made["hash"], "left_over": left}


def changed_hosts(directory, name, batch):
    """The hosts that a rollout on record has changed, all or those of one batch, counted from 1. :raises PlanningError: when there is none."""
    folders = [folder for folder in latest(directory) if name == "latest" or folder.name == name]
    if not folders:
        known = ", ".join(folder.name for folder in latest(directory)[:3]) or "none"
        raise PlanningError([f"no rollout '{name}' is on record below {directory}; the latest are {known}"])
    state = rollout.replay(Journal(folders[0]).events())
    return [host for host, entry in state["hosts"].items() if entry["outcome"] == "done" and (not batch or entry["batch"] == batch - 1)]


def supply(made, surveys, hosts):
    """{"plan", "present"}: what the role acquire needs to know of the plan, and which of its references the hosts have already.

    The whole plan stays in the workspace: Ansible would walk through every unit's text at every task.
    """
    few = ("name", "image", "image_reference")
    plan = {"images": made["images"], "hosts": {
        host: {"engine": made["hosts"][host]["engine"], "engine_path": made["hosts"][host]["engine_path"],
               "instances": [{key: instance[key] for key in few} for instance in made["hosts"][host]["instances"]]} for host in hosts}}
    wanted = {host: {instance["image_reference"] for instance in entry["instances"]} for host, entry in plan["hosts"].items()}
    present = {host: sorted({digest for image in (surveys.get(host) or {}).get("images") or () for digest in image["digests"]} & wanted[host])
               for host in hosts}
    return {"plan": plan, "present": present}


def fleet_variables(hostvars, host):
    """The host's own fleet_* variables, templated."""
    # Once: Ansible puts all of a host's variables together each time.
    values, result = hostvars[host], {}
    for name in [name for name in values if name.startswith("fleet_")]:
        try:
            result[name] = values[name]
        except AnsibleError as error:
            raise PlanningError([f"{host}: {name} has no value: {' '.join(str(error).split())}"]) from error
    return result


def registered(hostvars, host, name):
    """A result that an earlier task registered for the host, or {}."""
    value = hostvars.raw_get(host).get(name)
    return value if isinstance(value, dict) else {}
