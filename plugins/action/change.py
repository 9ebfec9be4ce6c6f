# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begins the change of a host and follows it, over as many connections as it takes."""

from __future__ import annotations

import os
import time

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change, host_change, recovery
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import grouping, lean, program, rolling, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.following import PACE_S, follow
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import JournalError

# How each outcome ends the sentence that begins with what went wrong.
ENDS = {"reverted": "the release before is back and proven", "removed": "nothing was there before, so it was taken away again",
        "down": "this host needs a person: playbooks/diagnose.yml -i … --limit {host}",
        "failed": "nothing was changed", "quarantined": "its NPUs are to blame, not the release",
        "paused": "nothing is done against that; go on with playbooks/resume.yml when it runs again"}


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.change."""

    TRANSFERS_FILES = False
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "state": {"type": "str", "choices": list(change.STATES), "default": "present"},
            "instances": {"type": "list", "elements": "str"}, "prune": {"type": "bool", "default": False},
            "api_key": {"type": "str", "no_log": True}, "prove": {"type": "bool", "default": True},
            "rounds": {"type": "int", "default": 3}, "first_token_s": {"type": "float", "default": 60.0}, "gap_s": {"type": "float", "default": 30.0},
            "parse_s": {"type": "float", "default": 180.0}, "keep": {"type": "int", "default": 3}, "no_way_back": {"type": "bool", "default": False},
            "only_prepare": {"type": "bool", "default": False}, "rollout": {"type": "bool", "default": False},
            "patience_s": {"type": "int", "default": 300},
        })
        host = task_vars["inventory_hostname"]
        try:
            rollout = rolling.Rollout(self, task_vars) if args["rollout"] and not self._task.check_mode else None
            if rollout:
                return self._in_rollout(rollout, host, args, task_vars)
            return self._change(host, args, task_vars, time.strftime("change-%Y%m%d-%H%M%S-") + str(os.getpid()), None)[0]
        except (workspace.Missing, JournalError) as error:
            raise AnsibleActionFail(str(error)) from error

    def _in_rollout(self, rollout, host, args, task_vars):
        """The change as one step of a rollout: journal before and after, and a name that stays the same when the rollout is resumed."""
        journal, batch, started = rollout.journal, rollout.kept.get("number"), time.monotonic()
        identity = rolling.change_id(journal.run, host, journal.events())
        journal.write("step.begin", host, batch, "change", expected_s=rollout.usual(host, "change"))
        try:
            result, kept = self._change(host, args, task_vars, identity, rollout.fence(),
                                        rollout.rules["canary_window_s"] if not batch else 0)
        except AnsibleConnectionFailure as error:
            message = f"{host} cannot be reached any more ({error}); it finishes by itself, or its timer brings back what ran before"
            result, kept = {"failed": True, "msg": message}, {"outcome": "unreachable", "message": message, "steps": []}
        for step in kept.get("steps") or ():
            journal.write("step.end", host, batch, step["step"], step["ok"], step["elapsed_s"], message=step["message"] or "", evidence={"began": step["time"]})
        evidence = {key: kept[key] for key in ("outcome", "reverted", "removed", "quarantined", "instances", "actions") if key in kept}
        evidence["findings"] = [finding for proof in (kept.get("proof") or {}).values() for finding in proof["findings"] if finding["status"] != "pass"]
        journal.write("step.end", host, batch, "change", kept["outcome"] in ("done", "unchanged"), round(time.monotonic() - started, 3),
                      message=result.get("msg") or kept.get("message") or "", evidence=evidence)
        self._display.display(rolling.step_line(host, "change", time.monotonic() - started, rollout.usual(host, "change"), kept["outcome"]))
        return result

    def _change(self, host, args, task_vars, identity, fence, window_s=0):
        """:returns: (result of the task, what is kept for the record)."""
        request, instances = self._request(host, args)
        group = grouping.Group(self, host, instances, args["state"], task_vars)
        why = group.torn()
        if why:
            return self._failed(host, why + "; nothing was changed", {})
        if not group.others or self._task.check_mode or args["only_prepare"]:
            return self._carry_out(host, args, task_vars, identity, dict(request, fence=fence), window_s, lambda line: None)
        missing = group.gather(identity, host_change.host_params(request)["state_directory"])
        if missing:
            return self._failed(host, "%s, of the same group, did not begin to change; see why above, or run with more --forks; nothing was changed" % (
                ", ".join(missing)), {})
        kept = {"outcome": "unreachable", "message": "it cannot be reached any more"}
        try:
            result, kept = self._carry_out(host, args, task_vars, identity, dict(request, fence=fence), window_s, group.watch)
        finally:
            group.ended(kept["outcome"], kept.get("message"))
        why = group.failure() if kept["outcome"] in ("done", "unchanged") else None
        return self._with_the_group(host, args, task_vars, identity, fence, result, kept, why) if why else (result, kept)

    def _with_the_group(self, host, args, task_vars, identity, fence, result, kept, why):
        """This host is proven and another one of its group is not: it goes back as well, where there is a way back."""
        outcome = "down" if kept["outcome"] == "done" else "failed"
        if kept["outcome"] == "done" and args["state"] == "present":
            found = workspace.load("differences", {}).get(host, {})
            changed = [name for name in kept["instances"] if (found.get(name) or {}).get("action") != "keep"]
            outcome = "reverted"
            for state, key in (("previous", "reverted"), ("absent", "removed")):
                names = [name for name in changed if bool((found.get(name) or {}).get("before")) == (state == "previous")]
                if names:
                    back = dict(args, state=state, instances=names, prove=False, prune=False)
                    request = dict(self._request(host, back)[0], fence=fence)
                    ended = self._carry_out(host, back, task_vars, "%s-%s" % (identity, state), request, 0, lambda line: None)[1]
                    outcome = outcome if ended["outcome"] in ("done", "unchanged") else "down"
                    kept[key] = names
        kept.update(outcome=outcome, message=why)
        workspace.save("change." + host, kept)
        end = "it went back as well" if outcome == "reverted" else ENDS[outcome].format(host=host)
        result.update(failed=True, msg=f"{host}: {why} -- {end}", outcome=outcome)
        return result, kept

    def _carry_out(self, host, args, task_vars, identity, request, window_s, watch):
        """Change this one host. :returns: (result of the task, what is kept for the record)."""
        if window_s:
            # The first hosts of a rollout are watched for longer before they get any traffic: what dies late must die here.
            request["instances"] = [dict(each, stability_window_s=max(each.get("stability_window_s") or 0, window_s)) for each in request["instances"]]
        given = {"id": identity, "check": self._task.check_mode, "request": request,
                 "program": program.text("host_change:main", {}).decode("ascii")}
        begun = lean.execute(self, "host_change:begin", given, task_vars)
        if begun.get("failed"):
            return self._failed(host, begun["msg"] + ("" if "nothing was" in begun["msg"] else "; nothing was changed"), begun)
        result = {key: begun[key] for key in ("changed", "diff", "actions", "instances")}
        kept = dict(result, outcome="unchanged", leaving=request["leaving"])
        if self._task.check_mode:
            for step in begun["actions"]:
                self._display.display(f"{host}: would {step}")
        if begun["job"] and not self._task.check_mode:
            ended = self._follow(host, identity, request, args, task_vars, watch)
            kept.update(ended, actions=result["actions"])
            result.update(changed=ended["changed"], instances=ended["instances"], outcome=ended["outcome"], elapsed_s=ended.get("elapsed_s"))
            if request["state"] == "absent" and ended["outcome"] == "done":
                lean.execute(self, "host_change:clean", {"params": request["params"]}, task_vars)
            for warning in ended.get("warnings") or ():
                self._display.warning(f"{host}: {warning}")
        workspace.save("change." + host, kept)
        if kept["outcome"] not in ("done", "unchanged"):
            end = "paused" if kept.get("paused") else "quarantined" if kept["quarantined"] and kept["outcome"] == "failed" else kept["outcome"]
            if end in ("paused", "quarantined"):
                # What runs there is not proven: it gets no traffic.
                kept["outcome"] = "quarantined"
                workspace.save("change." + host, kept)
            if end == "reverted" and kept.get("removed") and not kept.get("reverted"):
                end = "removed"
            extra = "" if kept["outcome"] == "down" and " -- AND " in kept["message"] else " -- " + ENDS[end].format(host=host)
            result.update(failed=True, msg=f"{host}: {kept['message']}{extra}", outcome=kept["outcome"])
        return result, kept

    def _failed(self, host, message, begun):
        kept = {"outcome": "failed", "message": message}
        workspace.save("change." + host, kept)
        more = {key: begun[key] for key in ("exception", "cmd", "rc", "stderr") if begun.get(key)}
        return {"failed": True, "msg": f"{host}: {message}", **more}, kept

    def _request(self, host, args):
        """What the host is asked to do, and the instances as they are known. What the plan or the survey of this run says of them is taken from there."""
        surveys = workspace.load("surveys", {})
        known = {each["name"]: each for each in recovery.installed(surveys.get(host))}
        params, leaving = {"keep": args["keep"]}, []
        if args["state"] == "present":
            entry = workspace.load("plan")["hosts"][host]
            instances = [each for each in entry["instances"] if each["release"] and (args["instances"] is None or each["name"] in args["instances"])]
            params.update(engine=entry["engine"], engine_path=entry["engine_path"], state_directory=entry["state_directory"])
            leaving = workspace.load("left_over", {}).get(host, []) if args["prune"] else []
        else:
            if args["instances"] is None and host not in surveys:
                raise workspace.Missing("this run has not looked at %s, so nobody knows what is installed there: name the instances, or survey first" % host)
            instances = [known.get(name, {"name": name}) for name in (args["instances"] if args["instances"] is not None else known)]
            found = surveys.get(host) or {}
            params.update({key: (found.get("engine") or {}).get(source) for key, source in (("engine", "name"), ("engine_path", "path"))})
            directory = workspace.load("requests", {}).get(host, {}).get("state_directory") or found.get("state_directory")
            params.update({"state_directory": directory} if directory else {})
        whole = instances
        if args["state"] == "previous":
            # What the release before was, only the host knows.
            instances = [{key: each.get(key) for key in ("name", "unit", "container", "stop_timeout_s", "ready_timeout_s")} for each in instances]
        prove = {key: args[key] for key in ("rounds", "first_token_s", "gap_s")}
        return ({
            "driver": ((surveys.get(host) or {}).get("driver") or {}).get("version"), "state": args["state"], "instances": instances,
            "params": params, "leaving": leaving, "no_way_back": args["no_way_back"],
            "secrets": recovery.secrets(instances, args["api_key"]) if args["state"] == "present" else {},
            "prove": prove if args["prove"] and args["state"] not in ("stopped", "absent") else None,
            "parse_s": args["parse_s"], "prepare": args["only_prepare"]}, whole)

    def _follow(self, host, identity, request, args, task_vars, watch):
        """Wait for the job. :returns: what it left as its result."""
        params = host_change.job_params(identity, host_change.host_params(request))

        def execute(given):
            return lean.execute(self, "job_host:answer", given, task_vars)

        def show(line):
            self._display.display(f"{host}: {line}")
            watch(line)

        found = follow(execute, show, dict(params, state="followed", pace_s=PACE_S), args["patience_s"])
        job = found.get("job") or {}
        if isinstance(job.get("result"), dict):
            return job["result"]
        state = job.get("state") or "out of sight"
        if state == "lost":
            back = self._bring_back(host, request, job, execute_of=lambda entry, given: lean.execute(self, entry, given, task_vars))
            if back:
                return back
        return {"outcome": "down", "changed": True, "instances": {}, "quarantined": False, "proof": {}, "steps": [],
                "message": "the change %s is %s (%s); the timer of the host brings back what ran before, see playbooks/status.yml" % (
                    identity, state, job.get("reason") or found.get("msg") or "no reason given")}

    def _bring_back(self, host, request, job, execute_of):
        """A host that went down in the middle of its change is not tried again: it goes back at once. :returns: the result, None when it cannot."""
        why = "%s, at: %s" % (job["reason"], job["progress"] or "its beginning")
        given = {"folder": job["folder"], "params": request["params"], "why": why}
        if not execute_of("host_change:bring_back", given).get("began"):
            return None
        self._display.display(f"{host}: {why}; what ran before comes back")
        until = time.monotonic() + change.dead_man_s(request["instances"])
        while time.monotonic() < until:
            answer = execute_of("host_change:brought_back", given)
            if answer.get("result"):
                return answer["result"]
            if answer.get("failed"):
                # It waits by itself only where it runs.
                time.sleep(PACE_S)
        return None
