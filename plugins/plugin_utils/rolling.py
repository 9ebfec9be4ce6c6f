# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout as the tasks of one run carry it on: the lease, the journal, and the question before each batch. Runs on the controller."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import pathlib
import socket
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change, host_change, lease, recovery, rollout
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import sentence
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.plan_text import shorten
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import fan_out, gateways, history, interrupt, ledger, looking, performance, traffic, workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, latest

# Until the first batch renews it. Bringing images may take longer; whoever takes over meanwhile finds nothing half done.
BEGIN_S = 600.0
ASK_S = 20.0
# Steps whose time is worth knowing beforehand.
STEPS = ("drain", "change", "admit")


def fleet(task_vars):
    """All hosts of the fleet; a limit of the run does not make it smaller."""
    hosts = list(task_vars.get("ansible_play_hosts_all") or ())
    group = (task_vars["hostvars"][hosts[0]].get("fleet_group") if hosts else None) or "npu_nodes"
    return list((task_vars.get("groups") or {}).get(group) or hosts)


def enlist(planning, hostvars):
    """Let a rollout know the hosts of the fleet that this run leaves alone: they hold its lease and count for capacity and budget."""
    requests = workspace.load("requests", {})
    for host in planning.hosts:
        own = planning.settings.get(host) or hostvars[host]
        told = {name: own.get(name) for name in ("fleet_state_directory", "fleet_container_engine", "fleet_npu_smi_timeout_s", "fleet_rack")}
        request = {"state_directory": told["fleet_state_directory"], "engine": told["fleet_container_engine"], "timeout_s": told["fleet_npu_smi_timeout_s"]}
        requests.setdefault(host, {key: value for key, value in request.items() if value is not None})
        planning.rollout["state_directories"].setdefault(host, told["fleet_state_directory"] or looking.SURVEY["state_directory"])
        planning.rollout["racks"].setdefault(host, told["fleet_rack"])
    planning.rollout["beyond"] = [host for host in planning.hosts if host not in planning.settings]
    workspace.save("requests", requests)


class Held(Exception):
    """The rollout must not go on; the text says why and what to do."""


def here():
    """This controller and this run, as a lease names them."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        boot_id = stream.read().strip()
    pid = os.getppid()
    return {"name": getpass.getuser(), "host": socket.gethostname(), "boot_id": boot_id, "pid": pid, "started": started(pid)}


def started(pid):
    """When a process of this machine was started, in ticks since its boot; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            return int(stream.read().rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def wish(plan):
    """What a plan wants, without what only becomes known on the way: the same before and after images are built, and after hosts have changed."""
    keys = ("name", "image", "arguments", "environment", "devices", "port", "patch_set")
    told = {host: [{key: instance[key] for key in keys} for instance in entry["instances"]] for host, entry in plan["hosts"].items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()


class Rollout:
    """What the tasks of a run share of a rollout is in the workspace; what outlives the run is in the journal and on the hosts."""

    def __init__(self, action, task_vars):
        self.action, self.task_vars = action, task_vars
        self.settings = workspace.load("rollout_settings")
        self.rules, self.racks = self.settings["policy"], self.settings["racks"]
        self.kept = workspace.load("rollout", {})
        self.check_mode = action._task.check_mode

    @property
    def journal(self):
        return Journal(self.kept["directory"])

    def keep(self, **values):
        self.kept.update(values)
        workspace.save("rollout", self.kept)

    def tell(self, line, color=None):
        self.action._display.display(line, color=color)

    # --- the plan

    def compose(self, work, measured=True):
        """The batches of some hosts, from the plan and the surveys of this run. :param measured: whether the canary is to be as fast as before."""
        plan, differences = workspace.load("plan"), workspace.load("differences")
        surveys, proof = workspace.load("surveys"), workspace.load("proof", {})
        if work and self.settings["beyond"]:
            more, proven, dummy = looking.look(self.action, self.task_vars, self.settings["beyond"], prove=True)
            surveys, proof = dict(surveys, **more), dict(proof, **proven)
        serving = rollout.replicas(surveys, proof)
        made = rollout.compose(plan, differences, serving, work, self.racks, self.rules)
        if measured and self.rules["performance"] and made["batches"]:
            try:
                performance.Gate(self).pairs(made["batches"][0], (), surveys, proof)
            except performance.CannotTell as error:
                made["refusals"].append("fleet_rollout: performance: %s" % error)
        return made

    def describe(self, made, expected):
        """The rollout in words."""
        count = sum(len(batch) for batch in made["batches"])
        if not count and not made["refusals"]:
            return ["", "ROLLOUT: nothing is to change"]
        lines = ["", "ROLLOUT: %d host(s) in %d batch(es)" % (count, len(made["batches"]))]
        for number, batch in enumerate(made["batches"], 1):
            racks = sorted({self.racks[host] for host in batch if self.racks.get(host)})
            lines.append("  batch %-3d %s%s%s" % (number, shorten(batch), " in " + shorten(racks) if racks else "", "   (canary)" if number == 1 else ""))
        for model, worst in sorted(made["worst"].items()):
            lines.append("  capacity at the worst moment: %s keeps %d of %d proven replicas, at least %d must stay" % (
                model, worst["left"], worst["ready"], worst["minimum"]))
        seconds = rollout.duration(made["batches"], expected)
        lines.append("  expected: about %s, by what it took before" % minutes(seconds) if seconds is not None
                     else "  expected: no earlier rollout tells how long it takes")
        lines += ["  refused: " + text for text in made["refusals"]]
        lines += ["  plan hash: " + made["hash"], ""]
        return lines

    # --- how long it takes

    def what(self, host):
        """(models, platform) of a host: what its steps take time for."""
        entry = workspace.load("plan")["hosts"].get(host) or {"instances": []}
        return "+".join(sorted({instance["model"] for instance in entry["instances"] if instance.get("model")})) or None, entry.get("platform")

    def history(self, work, default=None):
        """What ``work(history)`` returns; a history that cannot be used never stops a rollout."""
        return history.use(
            self.settings["history"], gateways.variable(self.task_vars, "fleet_history_password", None), self.action._display.warning, work, default
        )

    def expected(self, hosts):
        """{host: {step: seconds}}, by what was alike before; without what is not known."""
        def read(one):
            found = {}
            for host in hosts:
                model, platform = self.what(host)
                for step in STEPS:
                    if (step, model, platform) not in found:
                        found[step, model, platform] = one.expected(step, model, platform)
            return {host: {step: found[(step, *self.what(host))]["median_s"] for step in STEPS if found[(step, *self.what(host))]} for host in hosts}
        return self.history(read, {})

    def usual(self, host, step):
        """How long a step of a host usually takes, None when that is not known."""
        return (self.kept["expected"].get(host) or {}).get(step)

    def remember(self, events):
        """Keep how long the steps took that went well."""
        rows = []
        for event in events:
            if event["event"] == "step.end" and event["step"] in STEPS and event.get("elapsed_s") is not None:
                model, platform = self.what(event["host"])
                rows.append({"run_id": self.journal.run, "host": event["host"], "step": event["step"], "seconds": event["elapsed_s"], "model": model,
                             "platform": platform, "epoch_s": event["time"], "ok": bool(event.get("ok"))})
        self.history(lambda one: one.record_steps(rows))

    # --- the lease

    def ask_anchors(self, act, **more):
        """{anchor: answer} of one question to all anchors."""
        anchors = self.settings["anchors"]
        requests = {host: dict(more, act=act, directory=self.settings["state_directories"][host]) for host in anchors}
        answers = fan_out.ask(self.action, requests, "lease_host:answer", self.task_vars["hostvars"], ASK_S)
        return {host: answer if "held" in answer else {"error": answer.get("msg") or "no answer"} for host, answer in answers.items()}

    def take(self, seconds, plan_hash, take_over=None):
        """Take the lease, or keep it. :raises Held: naming who has it."""
        owner, renewing = here(), "epoch" in self.kept
        if not renewing:
            seen = self.ask_anchors("look")
            epoch = max([answer["held"].get("epoch", 0) for answer in seen.values() if "held" in answer] + [0])
            for answer in seen.values():
                held = answer.get("held") or {}
                if held.get("owner") and not held.get("released") and not take_over and lease.alive(
                        held, owner, lambda pid, start: started(pid) is not None and started(pid) == start) is False:
                    take_over = "the process that held it on this controller is gone"
            self.keep(epoch=epoch + 1, owner=owner)
        answers = self.ask_anchors(
            "take", epoch=self.kept["epoch"], owner=owner, seconds=seconds, rollout=self.journal.run, plan=plan_hash, take_over=take_over
        )
        granted, why, told = lease.tally(answers, len(answers))
        if not granted:
            if not renewing:
                self.ask_anchors("release", epoch=self.kept["epoch"], owner=owner)
            raise Held("another rollout is under way, so this one does not begin: %s. Wait for it, look at it with playbooks/status.yml, or, when its "
                       "controller is gone for good, take over with -e take_over=true" % why if not renewing else
                       "the lease is lost, so nothing further is done: %s" % why)
        if take_over or told:
            self.tell("the lease was taken over: %s" % (take_over or "; ".join(sorted(set(told.values())))), color="yellow")
        wishes = [answer["held"].get("request") for answer in answers.values() if answer.get("given")]
        return next((each for each in ("abort", "pause") if each in wishes), None), take_over or next(iter(told.values()), None)

    def release(self):
        """Give the lease back; an anchor that does not answer lets it expire."""
        if "epoch" in self.kept:
            self.ask_anchors("release", epoch=self.kept["epoch"], owner=self.kept["owner"])

    def fence(self):
        """What a host checks before it lets itself be changed."""
        return {"epoch": self.kept["epoch"], "owner": "%(name)s@%(host)s" % self.kept["owner"]} if "epoch" in self.kept else None

    # --- begin

    def begin(self, work, parameters, plan_hash="", take_over=False):
        """Open the journal, or go on in the one of a run that was cut off. :raises Held: before anything has changed."""
        plan, run = workspace.load("plan"), workspace.load("run")
        wanted, expected = wish(plan), self.expected(work)
        unfinished = self.unfinished(wanted)
        # Neither a way back nor what comes after the canary is measured.
        made = self.compose(work, bool(parameters) and not unfinished)
        for line in self.describe(made, expected):
            self.tell(line)
        if made["refusals"]:
            raise Held(made["refusals"][0] + (" (and %d more, listed above)" % (len(made["refusals"]) - 1) if len(made["refusals"]) > 1 else ""))
        state = rollout.replay(Journal(unfinished).events()) if unfinished else None
        if plan_hash and plan_hash != made["hash"] and not (state and state["begin"].get("hash") == plan_hash):
            raise Held("the plan is not the one that was agreed to: its hash is %s, and plan_hash is %s; something changed since, look at it again with "
                       "playbooks/plan.yml" % (made["hash"], plan_hash))
        if not made["batches"] and not unfinished:
            return
        self.keep(directory=str(unfinished or run["directory"]), hash=made["hash"], batches=made["batches"], expected=expected,
                  hosts=[host for batch in made["batches"] for host in batch], offset=state["batch"] if state else 0)
        if self.check_mode:
            return
        dummy, reason = self.take(BEGIN_S, made["hash"], "asked for with take_over=true" if take_over else None)
        evidence = {
            "hash": made["hash"],
            "wish": wanted,
            "batches": made["batches"],
            "policy": self.rules,
            "owner": self.kept["owner"],
            "epoch": self.kept["epoch"],
            "parameters": parameters,
            "taken_over": reason,
            "resumed": bool(unfinished),
            "worst": made["worst"],
        }
        self.journal.write("rollout.begin", evidence=evidence, expected_s=rollout.duration(made["batches"], expected),
                           message="%s, %d host(s) in %d batch(es)" % ("goes on" if unfinished else "begins", len(self.kept["hosts"]), len(made["batches"])))
        if unfinished:
            self.tell("rollout %s was cut off and goes on; what is done stays done" % self.journal.run, color="yellow")
            self.reconcile(state, work)

    def unfinished(self, wanted):
        """The folder of a rollout of this controller that wants the same and has not ended, or None. One that brought no host there begins anew, with
        its canary."""
        for folder in latest(self.settings["report_directory"])[:1]:
            state = rollout.replay(Journal(folder).events())
            some = any(entry["outcome"] == "done" for entry in state["hosts"].values())
            if state["begin"] and state["begin"].get("wish") == wanted and (state["outcome"] is None or (state["outcome"] == "held" and some)):
                return folder
        return None

    def reconcile(self, state, work):
        """Let in again what a rollout that was cut off had taken out and what needs no change any more."""
        proof, plan = workspace.load("proof", {}), workspace.load("plan")
        out = [host for host, entry in state["hosts"].items() if entry.get("out") and host not in work and host in plan["hosts"]]
        proven = [host for host in out if all((proof.get(host, {}).get(each["name"]) or {}).get("ready") for each in plan["hosts"][host]["instances"])]
        for host in proven:
            traffic.Traffic(self).admit(host)

    # --- before and after a batch

    def batch(self, hosts, failed):
        """Whether a batch may begin. :returns: (hosts that may change, None), or ([], why not)."""
        number = self.kept.get("number", self.kept.get("offset", 0))
        hosts = [host for host in hosts if host not in failed and host not in self.kept.get("left", {})]
        self.keep(number=number, batch=hosts, reason=None)
        if self.check_mode or not hosts:
            return hosts, None
        try:
            hosts = self.may_go(hosts, failed, number)
        except Held as error:
            self.journal.write("hold", batch=number, message=str(error))
            self.keep(held=str(error))
            self.tell("HELD before batch %d (%s): %s" % (number + 1, shorten(hosts), error), color="red")
            return [], str(error)
        return hosts, None

    def may_go(self, hosts, failed, number):
        """:returns: the hosts that change, without those that leave. :raises Held: when they must not be taken out."""
        asked = time.monotonic()
        state = rollout.replay(self.journal.events())
        bad = {
            host: entry["outcome"] for host, entry in state["hosts"].items() if entry["outcome"] in ("reverted", "down", "failed", "quarantined", "unreachable")
        }
        if self.kept.get("held") or bad:
            raise Held(self.kept.get("held") or "; ".join("%s ended %s" % pair for pair in sorted(bad.items())) + "; nothing further is touched")
        instances = [instance for host in hosts for instance in workspace.load("plan")["hosts"][host]["instances"]]
        request, dummy = self.take(self.rules["drain_deadline_s"] + change.dead_man_s(instances) + lease.MARGIN_S, self.kept["hash"])
        if interrupt.asked():
            request = "a pause (Ctrl-C)"
        if request:
            raise Held("%s was asked for; nothing further is touched. Go on with playbooks/resume.yml" % request)
        plan, beyond = workspace.load("plan"), self.settings["beyond"]
        surveys, proof, load = looking.look(self.action, self.task_vars, [*plan["hosts"], *beyond], {"deep": False}, prove=True, load=True)
        # Later tasks shall see the fleet as it is now.
        workspace.save("surveys", {host: survey for host, survey in surveys.items() if host not in beyond})
        workspace.save("proof", {host: proven for host, proven in proof.items() if host not in beyond})
        whole = {"hosts": dict({host: {"instances": recovery.installed(surveys[host])} for host in beyond}, **plan["hosts"])}
        sick = rollout.sick(whole, surveys)
        hosts = self.leave(hosts, sick, state, number, rollout.replicas(surveys, proof))
        if not hosts:
            return hosts
        unready = dict(dict(sick, **not_proven(whole, surveys, proof)), **{host: "failed: %s" % why for host, why in failed.items()})
        may, words = rollout.budget(hosts, {host: why for host, why in unready.items() if host not in hosts}, self.racks, self.rules, self.kept["batches"],
                                    len(whole["hosts"]))
        if not may:
            raise Held("budget: %s" % words)
        serving = rollout.replicas(surveys, {host: proven for host, proven in proof.items() if host not in sick})
        loads = {(host, name): each for host, found in load.items() for name, each in found.items()}
        verdicts = rollout.capacity(hosts, serving, loads, self.rules)
        bad = [verdict for verdict in verdicts if not verdict["ok"]]
        if bad and not (self.settings.get("ignore_load") and all(verdict["ok"] is None for verdict in bad)):
            raise Held("capacity: %s%s" % (bad[0]["message"], "; allow that with -e ignore_load=true" if bad[0]["ok"] is None else ""))
        self.journal.write("batch.begin", batch=number, message=words, elapsed_s=round(time.monotonic() - asked, 3),
                           expected_s=rollout.duration([hosts], self.kept["expected"]), evidence={
            "hosts": hosts, "budget": words, "capacity": verdicts, "ignored_load": bool(bad)})
        self.tell("batch %d of %d: %s -- %s; %s" % (
            number + 1, self.kept["offset"] + len(self.kept["batches"]), shorten(hosts), words,
            "the load of %d model(s) fits what is left" % len(verdicts) if verdicts else "they serve nothing yet"))
        return hosts

    def leave(self, hosts, sick, state, number, serving):
        """Take hosts that are still to come, and fell ill meanwhile, out of the plan. :returns: who of this batch is left. :raises Held: of a canary."""
        coming = [host for host in self.kept["hosts"] if not (state["hosts"].get(host) or {}).get("outcome")]
        for unit in rollout.units(workspace.load("plan"), coming):
            why = ["%s: %s" % (host, sick[host]) for host in unit["hosts"] if host in sick]
            for host in unit["hosts"] if why else ():
                what = self.relieve(host, serving) if host in sick else "its group does not change without the others"
                words = "%s; it leaves the plan, %s" % (why[0], what)
                self.journal.write("leave", host, number, message=words)
                self.keep(left=dict(self.kept.get("left", {}), **{host: words}))
                self.tell(words, color="yellow")
        hosts = [host for host in hosts if host not in self.kept.get("left", {})]
        self.keep(batch=hosts)
        if not hosts and not number:
            raise Held("no canary is left: %s. Begin anew without it, with --limit" % "; ".join(self.kept["left"].values()))
        return hosts

    def relieve(self, host, serving):
        """What becomes of the traffic of a host that fell ill, in words."""
        if self.rules["sick_host"] == "serve":
            return "and goes on serving, as sick_host says"
        if rollout.short(serving, [host], self.rules):
            return "and goes on serving, since too few replicas would be left without it"
        mover = traffic.Traffic(self)
        try:
            mover.move(host, mover.servers(host), "drain")
        except traffic.TrafficError as error:
            return "and may still serve: %s" % error
        return "and gets no requests any more, as sick_host says"

    def batch_end(self):
        """Close a batch, after watching it for a while."""
        number = self.kept["number"]
        self.keep(number=number + 1)
        if self.check_mode or self.kept.get("held") or not self.kept["batch"]:
            return
        state = rollout.replay(self.journal.events())
        outcomes = {host: state["hosts"].get(host, {}).get("outcome") for host in self.kept["batch"]}
        good = all(outcome in ("done", "unchanged") for outcome in outcomes.values())
        why = self.soak(number) if good and self.rules["soak_s"] else None
        # A way back has no parameters and is not held up.
        if good and not why and not number and self.rules["performance"] and state["begin"]["parameters"]:
            verdict, why = performance.Gate(self).check()
            self.keep(worse=verdict == "worse")
        self.journal.write("batch.end", batch=number, ok=good and not why, message=why or "", evidence={"hosts": outcomes})
        if why:
            self.journal.write("hold", batch=number, message=why)
            self.keep(held=why)
            self.tell("HELD after batch %d: %s" % (number + 1, why), color="red")

    def soak(self, number):
        """Watch a batch under the fleet's own load. :returns: what went wrong, or None."""
        until, plan = time.monotonic() + self.rules["soak_s"], workspace.load("plan")
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(left, 5.0))
            surveys, proof, dummy = looking.look(self.action, self.task_vars, self.kept["batch"], {"deep": False}, prove=True)
            part = {"hosts": {host: plan["hosts"][host] for host in self.kept["batch"]}}
            unready = not_proven(part, surveys, proof)
            if unready:
                return "batch %d did not stay well for %s s: %s" % (
                    number + 1,
                    self.rules["soak_s"],
                    "; ".join("%s: %s" % each for each in sorted(unready.items())),
                )

    # --- the end

    def to_revert(self):
        """Hosts that go back because a later one failed, when the policy says so, or because they are slower than before."""
        if self.check_mode or not (self.rules["on_failure"] == "revert" or self.kept.get("worse")) or "directory" not in self.kept:
            return []
        state = rollout.replay(self.journal.events())
        ended = {host: entry["outcome"] for host, entry in state["hosts"].items()}
        if not any(outcome in ("reverted", "down", "failed", "quarantined", "unreachable") for outcome in ended.values()) and not self.kept.get("held"):
            return []
        return [host for host, outcome in ended.items() if outcome == "done"]

    def end(self, failed):
        """Say how it ended, close the journal, give the lease back. :returns: (outcome, sentence)."""
        state = rollout.replay(self.journal.events())
        outcomes = {host: entry["outcome"] for host, entry in state["hosts"].items()}
        outcomes.update({host: "failed" for host in failed if not outcomes.get(host)})
        planned = list(dict.fromkeys(list(state["hosts"]) + self.kept["hosts"]))
        ended, words = rollout.outcome(outcomes, self.kept.get("held"), planned)
        self.journal.write("rollout.end", message=words, ok=ended == "done", evidence={"outcome": ended, "held": self.kept.get("held"), "hosts": outcomes})
        self.release()
        self.remember(self.journal.events())
        ledger.append(pathlib.Path(self.settings["report_directory"]), self.journal, self.settings.get("ledger_key"), self.action._display)
        return ended, words


def not_proven(plan, surveys, proof):
    """{host: why} of the hosts whose instances are not all proven, or which are on their way between two states."""
    found = {}
    for host, entry in plan["hosts"].items():
        survey = surveys.get(host) or {"unreachable": True, "error": "was not asked"}
        state = (survey.get("state") or {}).get("state")
        if survey.get("unreachable"):
            found[host] = survey["error"]
        elif state in ("quarantined", "down"):
            found[host] = state
        else:
            installed = {each["name"] for each in recovery.installed(survey)}
            for name in sorted(installed & {instance["name"] for instance in entry["instances"]}):
                proven = (proof.get(host) or {}).get(name)
                if not (proven or {}).get("ready"):
                    found[host] = sentence(name, proven) if proven else "%s does not run" % name
                    break
    return found


def step_line(host, step, elapsed_s, expected_s, message=""):
    """One line on a step that has ended, for whoever watches."""
    usual = " (usually %.1f s)" % expected_s if expected_s is not None else ""
    return "%s: %s took %.1f s%s%s" % (host, step, elapsed_s, usual, "; " + message if message else "")


def minutes(seconds):
    """A time that a person would say."""
    return "%d s" % seconds if seconds < 90 else "%d min" % round(seconds / 60.0)


def change_id(journal_run, host, events):
    """The name of a host's change in a rollout, the same when it is resumed: what has been done is not done twice.

    :param events: of the journal. What ended badly is tried again under another name, or its old end would be told once more; what only went out of sight
        has not ended.
    """
    ended = [event for event in events if event["event"] == "step.end" and event["step"] == "change" and event["host"] == host and not event["ok"]
             and (event.get("evidence") or {}).get("outcome") not in (None, "unreachable")]
    name = "%s-%s" % (journal_run, "".join(c if c.isalnum() or c in "._-" else "-" for c in host.lower()))
    return name[:96] + ("-%d" % (len(ended) + 1) if ended else "")


def host_parameters(request):
    """Parameters of the host functions, of a request."""
    return host_change.host_params(request)
