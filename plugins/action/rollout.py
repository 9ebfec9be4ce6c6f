# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a rollout from batch to batch: what may go on, and why not."""

from __future__ import annotations

import pathlib

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import lease, rollout
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, ledger, recording, report, rolling, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, JournalError, latest

STAGES = ("plan", "begin", "batch", "batch_end", "revert", "end", "request", "parameters", "verify")


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.rollout."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_async = False
    _VALID_ARGS = frozenset(("stage", "work", "parameters", "plan_hash", "take_over", "request", "report_directory", "allowed_signers", "anchors",
                             "state_directory", "ignore_load"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "stage": {"type": "str", "choices": list(STAGES), "required": True}, "work": {"type": "list", "elements": "str", "default": []},
            "parameters": {"type": "dict", "default": {}}, "plan_hash": {"type": "str", "default": ""}, "take_over": {"type": "bool", "default": False},
            "ignore_load": {"type": "bool", "default": False},
            "request": {"type": "str", "choices": list(lease.REQUESTS) + ["none"]}, "report_directory": {"type": "path", "default": "reports"},
            "allowed_signers": {"type": "path"}, "anchors": {"type": "list", "elements": "str", "default": []},
            "state_directory": {"type": "path", "default": "/var/lib/vllm-ascend-fleet"}})
        try:
            return getattr(self, "_" + args["stage"])(args, task_vars)
        except (rolling.Held, workspace.Missing, JournalError, ledger.LedgerError) as error:
            return {"failed": True, "msg": str(error)}

    def _plan(self, args, task_vars):
        made = rolling.Rollout(self, task_vars)
        composed = made.compose(args["work"])
        if args["work"]:
            for line in made.describe(composed, made.expected(args["work"])):
                self._display.display(line)
        return {"changed": False, "hash": composed["hash"], "batches": composed["batches"], "refusals": composed["refusals"]}

    def _begin(self, args, task_vars):
        made = rolling.Rollout(self, task_vars)
        try:
            made.begin(args["work"], args["parameters"], args["plan_hash"], args["take_over"])
        except rolling.Held as error:
            report.conclude(workspace.load("run")["directory"], made.check_mode, said=str(error))
            raise
        return {"changed": False, "batches": made.kept.get("batches", []), "directory": made.kept.get("directory")}

    def _batch(self, args, task_vars):
        made = rolling.Rollout(self, task_vars)
        made.settings["ignore_load"] = args["ignore_load"]
        go, why = made.batch(list(task_vars["ansible_play_batch"]), failures(task_vars))
        return {"changed": False, "go": go, "why": why}

    def _batch_end(self, args, task_vars):
        rolling.Rollout(self, task_vars).batch_end()
        return {"changed": False}

    def _revert(self, args, task_vars):
        made = rolling.Rollout(self, task_vars)
        hosts = made.to_revert()
        if "directory" in made.kept:
            made.keep(revert=hosts)
        return {"changed": False, "hosts": hosts}

    def _end(self, args, task_vars):
        made = rolling.Rollout(self, task_vars)
        if "directory" not in made.kept or made.check_mode:
            self._report(made, task_vars)
            return {"changed": False, "outcome": None}
        failed = failures(task_vars)
        outcome, words = made.end(failed)
        self._report(made, task_vars)
        self._display.display("\nrollout %s: %s -- %s\njournal: %s" % (made.journal.run, outcome, words, made.journal.path),
                              color=None if outcome == "done" else "red")
        if outcome == "done":
            return {"changed": False, "outcome": outcome}
        why = made.kept.get("held") or "; ".join(["%s: %s" % each for each in sorted(failed.items())[:2]] + list(made.kept.get("left", {}).values())[:2])
        return {"failed": True, "outcome": outcome, "msg": "the rollout ended %s: %s. %s" % (
            outcome, words, why if why else "see the journal")}

    def _report(self, made, task_vars):
        """Write the report, which never changes how a rollout ends. One that went on has a folder beside that of this run."""
        folders = [workspace.load("run")["directory"]] + ([] if made.check_mode else [str(made.kept[key]) for key in ("directory",) if key in made.kept])
        for directory in dict.fromkeys(folders):
            try:
                recording.keep(directory, task_vars["hostvars"], made.check_mode)
            except (KeyError, TypeError, workspace.Missing) as error:
                self._display.warning(f"{directory}/run.json was not written: {error!r}")
            report.conclude(directory, made.check_mode)

    def _request(self, args, task_vars):
        """Ask whoever runs a rollout to pause or to end; the hosts that hold the lease carry the wish."""
        anchors = lease.anchors(rolling.fleet(task_vars), args["anchors"])
        wish = None if args["request"] == "none" else args["request"]
        given = {host: {"act": "request", "request": wish, "directory": args["state_directory"]} for host in anchors}
        answers = fan_out.ask(self, given, "lease_host:answer", task_vars["hostvars"], rolling.ASK_S)
        heard = {host: answer for host, answer in answers.items() if "held" in answer}
        if len(heard) < lease.quorum(len(anchors)):
            return {
                "failed": True,
                "msg": "only %d of %d anchors heard it, and %d must: %s"
                % (
                    len(heard),
                    len(anchors),
                    lease.quorum(len(anchors)),
                    "; ".join("%s: %s" % (host, answer.get("msg")) for host, answer in answers.items() if host not in heard),
                ),
            }
        held = next((answer["held"] for answer in heard.values() if answer["held"].get("owner") and not answer["held"].get("released")), None)
        now = next(iter(heard.values()))["now"]
        if held is None:
            self._display.display("no rollout is under way; nothing to do")
            return {"changed": False, "rollout": None}
        self._display.display("%s: rollout %s of %s will stop before its next batch; the hosts at work finish first" % (
            args["request"], held["rollout"], lease.whose(held, now)))
        return {"changed": True, "rollout": held["rollout"]}

    def _parameters(self, args, task_vars):
        """What the latest rollout of this controller was asked to do."""
        for folder in latest(args["report_directory"]):
            state = rollout.replay(Journal(folder).events())
            if not state["begin"]:
                continue
            if state["outcome"] not in (None, "held"):
                raise rolling.Held("the latest rollout, %s, ended %s; there is nothing to go on with" % (folder.name, state["outcome"]))
            return {"changed": False, "parameters": state["begin"]["parameters"], "rollout": folder.name}
        raise rolling.Held(f"no rollout is on record below {args['report_directory']}; start one with playbooks/upgrade.yml, the hosts themselves know what "
                           "is done")

    def _verify(self, args, task_vars):
        path = pathlib.Path(args["report_directory"]) / ledger.NAME
        rows = ledger.verify(path, args["allowed_signers"])
        for row in rows:
            self._display.display("%-24s %-9s %s" % (row["rollout"], row["outcome"], row["message"]), color=None if row["ok"] else "red")
        bad = [row for row in rows if not row["ok"]]
        if bad or not rows:
            return {"failed": True, "msg": "%d of %d entries of %s cannot be trusted: %s" % (
                len(bad), len(rows), path, "%s: %s" % (bad[0]["rollout"], bad[0]["message"]) if bad else "it is empty")}
        return {"changed": False, "entries": rows}


def failures(task_vars):
    """{host: why} of the hosts that failed in this run, also before any batch."""
    hostvars, found = task_vars["hostvars"], {}
    for host in workspace.load("plan")["hosts"]:
        why = hostvars.raw_get(host).get("__fleet_failure")
        if why:
            found[host] = str(why)
    return found
