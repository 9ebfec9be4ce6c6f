# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a host, on the host itself: one job stops, switches, starts, proves and, when it must, goes back. This file does I/O.

The controller only begins it and follows it. A connection that drops, or a controller that dies, leaves a host that finishes by itself; a job
that dies with its host leaves a timer that brings back what ran before.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, endpoint, endpoint_probes, firewall_host, job_host, parse_host
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release, release_host, spanning

NEXT = ".next"
GIVEN_UP = "given-up"
HEAD_S = 2.0
JOB = dict(job_host.DEFAULTS, kind="change", stop_timeout_s=60)
SHOW_S = 1.0
KEEP_AWAKE_S = 600.0
BACK_S = 20.0


def host_params(request):
    """The parameters that ``release_host.Host`` and the prover take, of a request."""
    given = dict(state_directory=release.STATE_DIRECTORY, unit_directory=release.UNIT_DIRECTORY, secret_directory=release.SECRET_DIRECTORY, keep=3,
                 engine=None, engine_path=None, systemctl="systemctl", journalctl="journalctl", npu_smi_path=None)
    given.update((key, value) for key, value in (request.get("params") or {}).items() if value is not None)
    return dict(given, state=request["state"])


class Outline:
    """What a request would do to this host."""

    def __init__(self, request, secrets):
        self.request, self.params = request, host_params(request)
        self.host = release_host.Host(self.params)
        state = request["state"]
        self.wanted = release.normalise(request["instances"], state if state in ("present", "previous") else "absent", secrets)
        self.leaving = self._leaving()
        self.changed, self.diff, self.actions, self.changes = False, [], {}, []
        self.found, self.steps = {}, {}
        if not self.wanted and not self.leaving:
            return
        if state == "previous":
            self.wanted = release_host.with_previous(self.host, self.wanted, request["instances"])
        if state in ("present", "previous"):
            self.found, self.steps, self.actions, self.changes, self.diff = release_host.compare(self.host, self.wanted)
        elif state == "absent":
            self.changed, self.diff, self.actions = release_host.absent(self.host, self.wanted, True)
        else:
            self._only_run(state)
        for entry in self.leaving:
            self.actions[entry["name"]] = ["stop and remove %s, which left the inventory" % entry["name"]]
            text = release_host.read_unit(self.host.where(entry)["unit"]) or ""
            self.diff.append({"before_header": entry["unit"], "after_header": entry["unit"], "before": text, "after": ""})
        self.changed = self.changed or bool(self.changes or self.leaving)

    def _leaving(self):
        """Instances of ours that left the inventory, and are here."""
        entries = release.normalise([{"name": name} for name in self.request.get("leaving") or ()], "absent", {})
        units = self.host.units(entries)
        return [dict(entry, systemd=units[entry["unit"]]) for entry in entries if units[entry["unit"]].get("LoadState") == "loaded"]

    def _only_run(self, state):
        """Steps of states that switch nothing: start, stop, or both."""
        units = self.host.units(self.wanted)
        for entry in self.wanted:
            unit, name = units[entry["unit"]], entry["name"]
            if unit.get("LoadState") != "loaded":
                raise release.ReleaseError("instance '%s': unit %s is not installed (load state '%s')" % (name, entry["unit"], unit.get("LoadState")))
            running = release.is_running({"systemd": unit})
            self.found[name] = {"systemd": unit, "current": release_host.get_link(self.host.where(entry)["current"])}
            self.steps[name] = {"stop": running and state in ("restarted", "stopped"),
                                "start": state == "restarted" or (state == "started" and not running)}
            words = [word for word in ("stop", "start") if self.steps[name][word]]
            self.actions[name] = ["%s %s" % (word, entry["unit"]) for word in words]
            if words:
                self.changes.append(entry)
                self.diff.append({"before_header": entry["unit"], "after_header": entry["unit"], "before": unit.get("ActiveState") + "\n",
                                  "after": "%s\n" % {"restarted": "active, started anew", "started": "active", "stopped": "inactive"}[state]})

    def sentences(self):
        """What would be done, in order."""
        return [text for entry in self.wanted + self.leaving for text in self.actions.get(entry["name"], ())]

    def foreseen(self):
        """The ``instances`` of the result in check mode."""
        units = self.host.units(self.wanted) if self.wanted else {}
        result = {}
        for entry in self.wanted:
            path = self.host.where(entry)
            current, previous = release_host.get_link(path["current"]), release_host.get_link(path["previous"])
            wanted = (entry["release"] or {}).get("id")
            if wanted and wanted != current:
                current, previous = wanted, None if self.request["state"] == "previous" else current or previous
            result[entry["name"]] = {"release": current, "previous": previous, "active_state": units[entry["unit"]].get("ActiveState"),
                                     "actions": self.actions.get(entry["name"], [])}
        return result

    def lacking_images(self):
        """Why it must not begin: images that are not here, of what is to start and of what it would go back to. [sentence]"""
        engine, sentences, asked = self.engine(), [], {}

        def here(reference):
            if reference not in asked:
                asked[reference] = engine.image(reference) is not None
            return asked[reference]

        for entry in self.changes if self.request["state"] in ("present", "previous") else ():
            if self.steps[entry["name"]]["start"]:
                manifest = survey_manifest(entry["release"]["files"])
                if manifest.get("image_reference") and not here(manifest["image_reference"]):
                    sentences.append("instance '%s': its image %s is not on this host any more; run again, it will be pulled" % (
                        entry["name"], manifest["image_reference"]))
            before = survey_manifest(self.found[entry["name"]]["current_files"])
            if self.steps[entry["name"]]["stop"] and before.get("image_reference") and not here(before["image_reference"]) and not self.request.get(
                    "no_way_back"):
                sentences.append("instance '%s': the image of the release that runs, %s, is not on this host, so there would be no way back; pull it, or "
                                 "allow that with -e no_way_back=true" % (entry["name"], before["image_reference"]))
        return sentences

    def engine(self):
        """The container engine of this host."""
        if self.host.engine is None:
            self.host.engine = container_cli.Engine(*container_cli.find_engine(self.params["engine"], self.params["engine_path"]))
        return self.host.engine


def survey_manifest(files):
    """The manifest of a release's files, {} when there is none that can be read."""
    try:
        found = json.loads(files.get("manifest.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def state_path(params):
    """Where a host remembers what is being done to it."""
    return os.path.join(params["state_directory"], "host.json")


def remember(params, **values):
    """Write the host's state before the act; what is not named stays as it was."""
    os.makedirs(params["state_directory"], mode=0o755, exist_ok=True)
    state = dict(domain.read_state(job_host.read_text(state_path(params))), **values)
    release_host.write_text(state_path(params), json.dumps(state, indent=1, sort_keys=True) + "\n", 0o644)
    return state


def begin(arguments):
    """Compare, refuse, and start the job.

    :param dict arguments: "id" of the change, "check", "program": text of the job's program, "request": {"state", "instances", "secrets", "params",
        "leaving", "prove", "parse_s", "fence", "no_way_back", "prepare"}.
    :returns: {"changed", "diff", "actions", "instances", "job"}; without a job when there is nothing to do and nothing to prove.
    """
    request = dict(arguments["request"])
    secrets = request.pop("secrets", None) or {}
    params = host_params(request)
    state = domain.read_state(job_host.read_text(state_path(params)))
    domain.check_fence(state, request.get("fence"))
    running = job_params(arguments["id"], params, state="followed", wait_s=0.01)
    found, dummy = job_host.run(running, True)
    if found["job"]["state"] == "running" or (found["job"]["state"] == "succeeded" and request.get("fence") and not arguments["check"]):
        # The connection was lost after it had begun, or the controller was.
        return {"changed": True, "diff": [], "actions": [], "instances": {}, "job": found["job"]}
    outline = Outline(request, secrets)
    result = {"changed": outline.changed, "diff": outline.diff, "actions": outline.sentences()}
    if arguments["check"]:
        return dict(result, instances=outline.foreseen(), job=None)
    reasons = outline.lacking_images()
    if reasons:
        raise release.ReleaseError("; ".join(reasons) + "; nothing was stopped")
    if not outline.changed and request.get("prove") is None:
        return dict(result, instances=outline.host.report(outline.wanted, outline.actions, False) if outline.wanted else {}, job=None)
    if request.get("fence"):
        remember(params, epoch=request["fence"]["epoch"], owner=request["fence"]["owner"])
    put_secrets(outline)
    release_host.remove_file(os.path.join(params["state_directory"], "jobs", arguments["id"], GIVEN_UP))
    given = job_params(arguments["id"], params, argv=[sys.executable, "program.py"], rerun=True,
                       files={"program.py": arguments["program"], "request.json": json.dumps(request)})
    started, dummy = job_host.run(given, False)
    return dict(result, instances={}, job=started["job"])


def give_up(arguments):
    """Tell a change that runs here that its group has failed elsewhere, so that it goes back at once. arguments: "folder" of its job, "why"."""
    if os.path.isdir(arguments["folder"]):
        job_host.write_text(os.path.join(arguments["folder"], GIVEN_UP), arguments["why"])
    return {"changed": False}


def bring_back(arguments):
    """Have the way back begun of a change that was cut off by a reboot, as its timer would do later.

    :param dict arguments: "folder" of its job, "params", "why".
    :returns: {"began"}; False when that change had not touched anything.
    """
    params = host_params({"state": "absent", "params": arguments["params"]})
    state = domain.read_state(job_host.read_text(state_path(params)))
    unit = domain.DEAD_MAN + ".service"
    if state.get("change") != os.path.basename(arguments["folder"]) or state.get("state") not in domain.UNFINISHED or not os.path.exists(
            os.path.join(params["unit_directory"], unit)):
        return {"began": False}
    give_up(arguments)
    release_host.Host(params).systemctl(["start", unit], purpose="beginning the way back")
    return {"began": True}


def brought_back(arguments):
    """Wait a while for the end of the way back. :returns: {"result": what it left, or None while it is not there yet}."""
    until = time.monotonic() + BACK_S
    while True:
        text = job_host.read_text(os.path.join(arguments["folder"], "result.json"))
        if text or time.monotonic() >= until:
            return {"result": json.loads(text) if text else None}
        time.sleep(SHOW_S)


def clean(arguments):
    """Leave nothing on a host that has no instance of ours any more. :returns: {"removed": [path]}."""
    params = host_params({"state": "absent", "params": arguments["params"]})
    base = params["state_directory"]
    if os.path.isdir(os.path.join(base, "instances")) or not os.path.isdir(base):
        return {"removed": []}
    held = domain.read_state(job_host.read_text(os.path.join(base, "rollout.json")))
    # A lease is the fleet's, not this host's.
    kept = ["rollout.json", ".rollout.lock"] if held.get("owner") and not held.get("released") else []
    removed = [os.path.join(base, name) for name in sorted(os.listdir(base)) if name not in kept]
    for path in removed:
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    if not kept:
        os.rmdir(base)
    return {"removed": removed}


def job_params(identity, params, **more):
    """Parameters of the job that carries out a change."""
    return dict(JOB, id=identity, state_directory=params["state_directory"], systemctl=params["systemctl"],
                **dict({"state": "started", "argv": [], "files": {}}, **more))


def put_secrets(outline):
    """New secrets wait beside those in force, so that they never leave their folder."""
    for entry in outline.changes:
        if outline.request["state"] == "present" and outline.steps[entry["name"]]["secret"] and entry["secret_text"] is not None:
            path = outline.host.where(entry)["secret"]
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            release_host.write_text(path + NEXT, entry["secret_text"], 0o600)


def waiting_secrets(request):
    """{instance: variables} as ``begin`` left them, or as they are in force."""
    folder, found = host_params(request)["secret_directory"], {}
    for instance in request["instances"]:
        path = os.path.join(folder, "%s.secret" % instance["name"])
        text = job_host.read_text(path + NEXT) or job_host.read_text(path)
        if request["state"] == "present" and instance.get("secret") and text:
            found[instance["name"]] = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return found


def main(arguments):
    """What the job's program runs: the change, or with the argument C(revert) the way back. :returns: what it leaves as result.json."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv[0] not in ("-", "") else arguments["folder"]
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as stream:
        request = json.load(stream)
    change = Change(request, folder)
    result = change.revert_alone() if sys.argv[1:2] == ["revert"] else change.run()
    job_host.write_text(os.path.join(folder, "result.json"), json.dumps(result))
    return {"outcome": result["outcome"]}


class Change:
    """One change at work."""

    def __init__(self, request, folder):
        self.request, self.folder, self.params = request, folder, host_params(request)
        self.steps, self.said, self.began = [], None, time.monotonic()
        self.before, self.touched = {}, False
        self.result = {"outcome": "failed", "changed": False, "message": None, "steps": self.steps, "proof": {}, "revert_proof": {}, "reverted": [],
                       "removed": [], "instances": {}, "quarantined": False}

    def say(self, text):
        """How far it is, for whoever follows."""
        if text != self.said:
            self.said = text
            job_host.write_text(os.path.join(self.folder, "progress"), text + "\n")

    def step(self, name, act, *args):
        """Run one step and keep how it went."""
        self.say(name)
        entry = {"step": name, "time": time.time(), "elapsed_s": None, "ok": False, "message": None}
        self.steps.append(entry)
        started = time.monotonic()
        try:
            answer = act(*args)
            entry["ok"] = True
            return answer
        except (release.ReleaseError, container_cli.CommandError, OSError, ValueError) as error:
            entry["message"] = str(error)
            raise
        finally:
            entry["elapsed_s"] = round(time.monotonic() - started, 3)

    def run(self):
        """The whole change. :returns: the result."""
        with open(os.path.join(self.params["state_directory"], ".change.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self.forward()
            except (release.ReleaseError, container_cli.CommandError, OSError, ValueError) as error:
                self.failed(error)
            finally:
                self.forget_secrets()
        self.result["elapsed_s"] = round(time.monotonic() - self.began, 3)
        return self.result

    def failed(self, error):
        """What is left of a change that broke off: a host as it was, or one that needs a person."""
        self.result["message"] = self.result["message"] or str(error)
        if not self.touched:
            # The host is as it was, and so is what it remembers.
            return
        restored = getattr(error, "details", {}).get("restored", False)
        self.disarm()
        again = [manifest for manifest in self.before.values() if manifest]
        if restored and self.may_go_back() and again:
            try:
                self.step("prove again", self.prove, again, "revert_proof")
                self.result["outcome"] = "reverted"
            except release.ReleaseError as second:
                restored, self.result["message"] = False, "%s -- AND the release before is down: %s" % (self.result["message"], second)
        if not restored:
            self.result["outcome"] = "down"
        remember(self.params, state=self.result["outcome"], message=self.result["message"], **({} if self.result["outcome"] == "down" else {"before": {}}))

    def forward(self):
        outline = Outline(self.request, waiting_secrets(self.request))
        state = domain.read_state(job_host.read_text(state_path(self.params)))
        domain.check_fence(state, self.request.get("fence"))
        outline_found = dict((name, found["current"]) for name, found in outline.found.items())
        before = domain.origin(state, outline_found)
        self.before = dict((name, self.manifest(outline, name, release_id)) for name, release_id in before.items())
        if self.request["state"] in ("present", "previous"):
            self.step("prepare", self.prepare, outline)
        if self.request.get("prepare"):
            self.result.update(outcome="done", changed=outline.changed)
            return
        if outline.changed:
            self.spare(outline.host, [entry for entry in outline.changes if outline.steps.get(entry["name"], {}).get("stop")])
            remember(self.params, state="stopped" if self.request["state"] == "stopped" else "starting", change=os.path.basename(self.folder),
                     before=before, since=time.time(), message=None)
            self.touched = True
            if self.may_go_back():
                self.step("arm", self.arm)
            self.step("switch", self.switch, outline)
            self.result["changed"] = True
        if self.request.get("prove") is not None:
            self.prove_all(outline)
        else:
            self.result["outcome"] = "done" if outline.changed else "unchanged"
        if self.result["outcome"] in ("done", "unchanged"):
            if outline.leaving:
                release_host.absent(outline.host, release.normalise([{"name": e["name"]} for e in outline.leaving], "absent", {}), False)
            self.disarm()
            remember(self.params, state="stopped" if self.request["state"] in ("stopped", "absent") else "serving", message=None, since=time.time(), before={},
                     **({"driver": self.request["driver"]} if self.request.get("driver") and outline.changed else {}))
        left = [entry for entry in outline.wanted if self.request["state"] != "absent"]
        self.result["instances"] = outline.host.report(left, outline.actions, True) if left else {}

    def manifest(self, outline, name, release_id):
        """The manifest of a release that an instance ran, with its id; None when it ran none."""
        if release_id is None:
            return None
        entry = next(each for each in outline.wanted if each["name"] == name)
        return dict(survey_manifest(outline.host.release_files(entry, release_id)), name=name, release={"id": release_id})

    def may_go_back(self):
        return self.request["state"] in ("present", "previous") and self.request.get("prove") is not None

    def prepare(self, outline):
        """All that can be done before anything stops: releases on disk, images here, the engine's own parser content."""
        reasons = outline.lacking_images()
        if reasons:
            raise release.ReleaseError("; ".join(reasons) + "; nothing was stopped")
        release_host.prepare(outline.host, outline.changes, outline.steps)
        fresh = [entry["name"] for entry in outline.changes if outline.steps[entry["name"]]["switch"]]
        asked = [instance for instance in self.request["instances"] if instance["name"] in fresh and instance.get("arguments")]
        if self.request["state"] == "present" and self.request.get("parse_s") and asked:
            self.say("prepare: the engine's parser reads the arguments of %s" % ", ".join(instance["name"] for instance in asked))
            refused, unsure, dummy = parse_host.refusals(outline.engine(), asked, self.request["parse_s"])
            if refused:
                raise release.ReleaseError(refused)
            self.result["warnings"] = unsure

    def switch(self, outline):
        state = self.request["state"]
        self.await_head(outline)
        if state in ("present", "previous"):
            for entry in outline.changes:
                self.keep_secret(outline, entry)
            self.say("switch: " + "; ".join(outline.sentences()))
            release_host.apply(outline.host, outline.changes, outline.found, outline.steps, self.params["keep"],
                               [entry for entry in outline.leaving if release.is_running(entry)])
        elif state == "absent":
            release_host.absent(outline.host, outline.wanted, False)
            if not os.path.isdir(os.path.join(self.params["state_directory"], "instances")):
                # Nothing is left to guard.
                firewall_host.remove()
        else:
            stop = [entry for entry in outline.changes if outline.steps[entry["name"]]["stop"]]
            start = [entry for entry in outline.changes if outline.steps[entry["name"]]["start"]]
            if stop:
                outline.host.stop(stop)
                for entry in stop:
                    if spanning.is_member(self.described({"name": entry["name"]}) or {}):
                        # It ends with an error when its head has gone first, which is as it should be.
                        outline.host.systemctl(["reset-failed", entry["unit"]])
            if start:
                outline.host.start(start)

    def keep_secret(self, outline, entry):
        """The secret in force stays beside the new one until the change is proven."""
        found = outline.found[entry["name"]]
        if outline.steps[entry["name"]]["secret"] and found["secret_text"] is not None:
            release_host.write_text(outline.host.where(entry)["secret"] + release_host.BEFORE, found["secret_text"], 0o600)

    def forget_secrets(self):
        """Nothing is left beside the secrets in force."""
        for instance in self.request["instances"]:
            path = os.path.join(self.params["secret_directory"], "%s.secret" % instance["name"])
            for ending in (NEXT, release_host.BEFORE):
                release_host.remove_file(path + ending)

    # --- the timer

    def arm(self):
        seconds = self.request.get("dead_man_s") or domain.dead_man_s(self.request["instances"])
        program = os.path.join(self.folder, "program.py")
        for name, text in domain.dead_man_units(program, sys.executable, seconds).items():
            release_host.write_text(os.path.join(self.params["unit_directory"], name), text, 0o644)
        host = release_host.Host(self.params)
        host.systemctl(["daemon-reload"], purpose="reloading systemd")
        host.systemctl(["enable", domain.DEAD_MAN + ".timer"], purpose="enabling the timer that would bring back what ran before")
        host.systemctl(["restart", domain.DEAD_MAN + ".timer"], purpose="arming the timer that would bring back what ran before")

    def disarm(self):
        paths = [os.path.join(self.params["unit_directory"], name) for name in (domain.DEAD_MAN + ".timer", domain.DEAD_MAN + ".service")]
        if not any(os.path.exists(path) for path in paths):
            return
        host = release_host.Host(self.params)
        host.systemctl(["disable", "--now", domain.DEAD_MAN + ".timer"])
        for path in paths:
            release_host.remove_file(path)
        host.systemctl(["daemon-reload"])

    # --- the proof

    def prove_all(self, outline):
        """Prove what was wanted; go back where it cannot be."""
        touched = set(entry["name"] for entry in outline.changes)
        asked = []
        for instance in self.request["instances"]:
            # What was not touched has shown its stability long ago; it must only answer.
            asked.append(instance if instance["name"] in touched else dict(instance, stability_window_s=0))
        remember(self.params, state="proving")
        try:
            self.step("prove", self.prove, asked, "proof")
        except release.ReleaseError as error:
            self.result["message"] = str(error)
            if not (outline.changed and self.may_go_back()):
                raise
            self.go_back(outline, touched)
            return
        self.result["outcome"] = "done" if outline.changed else "unchanged"

    def prove(self, instances, kept):
        """Run the gate. :raises ReleaseError: with its sentence when something is not proven."""
        known = [manifest for manifest in (self.described(instance) for instance in instances) if manifest]
        if not known:
            return
        given_up = self.given_up if kept == "proof" else None
        params = dict(
            self.params,
            given_up=given_up,
            **dict({"api_keys": {}, "quick": False, "rounds": 3, "first_token_s": 60.0, "gap_s": 30.0, "address": "127.0.0.1"}, **self.request["prove"]),
        )
        provers, box = {}, {}

        def work():
            try:
                box["done"] = endpoint_probes.run(dict(params, instances=known, provers=provers), False)
            except (ValueError, container_cli.CommandError) as error:
                box["error"] = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(SHOW_S)
            self.say("prove: " + endpoint.waiting(dict((name, (prover.phase, prover.proven)) for name, prover in list(provers.items()))))
        if "error" in box:
            raise release.ReleaseError(str(box["error"]))
        found, sentences = box["done"]
        self.result[kept] = found["instances"]
        if sentences:
            more = " (and %d more)" % (len(sentences) - 1) if len(sentences) > 1 else ""
            raise release.ReleaseError("%d of %d instances not proven: %s%s" % (len(sentences), len(known), sentences[0], more))

    def given_up(self):
        """Why a group is not waited for any more, as the controller left it here; None while it is."""
        return job_host.read_text(os.path.join(self.folder, GIVEN_UP)) or None

    def await_head(self, outline):
        """What computes for a group stops only when its head serves no more: until then the head finishes its requests."""
        for entry in outline.changes:
            manifest = self.described({"name": entry["name"]}) or {}
            if not outline.steps[entry["name"]]["stop"] or not spanning.is_member(manifest):
                continue
            self.say("waiting for %s, the head of %s, to finish its requests" % (manifest["group"]["members"][0], entry["name"]))
            until = time.monotonic() + entry["stop_timeout_s"]
            while time.monotonic() < until and endpoint_probes.ask(manifest["group"]["address"], manifest["port"], "/health", seconds=HEAD_S)[0] == 200:
                time.sleep(HEAD_S / 4)

    def described(self, instance):
        """An instance with all that the prover needs: as it was asked for, else as the manifest of its current release says."""
        if instance.get("port"):
            return instance
        path = os.path.join(self.params["state_directory"], "instances", instance["name"], "current", "manifest.json")
        manifest = survey_manifest({"manifest.json": job_host.read_text(path)})
        return dict(manifest, **dict((key, value) for key, value in instance.items() if value is not None)) if manifest.get("port") else None

    # --- the way back

    def spare(self, host, entries):
        """Wait for whoever has paused a container of ours, and never stop it over their heads. :raises ReleaseError: at the deadline."""
        until = time.monotonic() + max([0.0] + [entry["stop_timeout_s"] for entry in entries])
        while True:
            why = release_host.paused(host, entries)
            if not why:
                return
            if time.monotonic() >= until:
                raise release.ReleaseError(why + "; nothing was stopped")
            self.say("waiting: " + why)
            time.sleep(SHOW_S)

    def go_back(self, outline, touched):
        failed = set(name for name in touched if not (self.result["proof"].get(name) or {}).get("ready"))
        if not failed:
            # Something that was not touched does not answer; going back would not mend it.
            raise release.ReleaseError(self.result["message"])
        why = release_host.paused(outline.host, [entry for entry in outline.wanted if entry["name"] in touched])
        if why:
            # Going back would stop it over the head of who paused it, and so would the timer.
            self.result.update(paused=True, message=self.result["message"] if why.partition(" is ")[2] in self.result["message"] else why)
            remember(self.params, state="failed", message=self.result["message"])
            self.disarm()
            return
        sick = self.blames_chips(failed)
        if sick and not self.healthy(failed):
            self.result["quarantined"] = True
            remember(self.params, state="quarantined", message=self.result["message"])
            self.disarm()
            return
        self.result["quarantined"] = sick
        now = [self.described(instance) or instance for instance in self.request["instances"] if instance["name"] in touched]
        back = domain.together(failed, now, self.before)
        self.back(back, "quarantined" if sick else "reverted", [entry["name"] for entry in outline.leaving])

    def blames_chips(self, failed):
        """Whether nothing but the health of NPUs stands against the new release."""
        rules = set(item["rule"] for name in failed for item in (self.result["proof"].get(name) or {}).get("findings") or () if item["status"] != "pass")
        return bool(rules) and rules <= set(["endpoint.chips", "endpoint.stable"]) and "endpoint.chips" in rules

    def healthy(self, names):
        """Whether the NPUs that instances would go back to are healthy."""
        watcher = endpoint_probes.Watcher(self.params["systemctl"], [], self.params["npu_smi_path"])
        devices = [device for name in names for device in (self.before.get(name) or {}).get("devices") or ()]
        return bool(devices) and endpoint.judge_chips(watcher.chips(), [d for d in devices if d.rsplit("davinci", 1)[-1].isdigit()])[0] == "pass"

    def back(self, names, state, leaving=()):
        """Return some instances to what they ran before, and prove that; one attempt."""
        remember(self.params, state="starting")
        try:
            self.step("revert", self.put_back, names, leaving)
            self.say("prove again, after " + endpoint.shorten(self.result["message"], 300))
            remember(self.params, state="proving")
            again = [self.before[name] for name in sorted(names) if self.before.get(name)]
            if again:
                self.step("prove again", self.prove, again, "revert_proof")
            self.result["outcome"] = "reverted"
            remember(self.params, state=state, message=self.result["message"], before={})
        except (release.ReleaseError, container_cli.CommandError, OSError) as error:
            self.result.update(outcome="down", message="%s -- AND the release before is down: %s" % (self.result["message"], error))
            remember(self.params, state="down", message=self.result["message"])
        self.disarm()

    def put_back(self, names, leaving):
        previous = [dict(self.before[name]) for name in sorted(names) if self.before.get(name)]
        gone = [{"name": name} for name in sorted(names) if not self.before.get(name)]
        # Both stop first, because what comes back may need their NPUs and ports.
        host = release_host.Host(dict(self.params, state="previous"))
        entries = release.normalise(gone + [{"name": entry["name"]} for entry in previous], "absent", {})
        units = host.units(entries)
        running = [entry for entry in entries if release.is_running({"systemd": units[entry["unit"]]})]
        if running:
            self.spare(host, running)
            host.stop(running)
        if gone:
            release_host.absent(host, release.normalise(gone, "absent", {}), False)
            self.result["removed"] = [entry["name"] for entry in gone]
        if previous:
            wanted = release_host.with_previous(host, release.normalise(previous, "previous", {}), previous)
            release_host.present(host, wanted, self.params, False)
            self.result["reverted"] = [entry["name"] for entry in previous]
        if leaving:
            host.start(release.normalise([{"name": name} for name in leaving], "absent", {}))

    def revert_alone(self):
        """What the timer runs: nobody has confirmed the change in time."""
        change = os.path.basename(self.folder)
        container_cli.run([self.params["systemctl"], "stop", "fleet-job-%s.service" % change], KEEP_AWAKE_S)
        with open(os.path.join(self.params["state_directory"], ".change.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = domain.read_state(job_host.read_text(state_path(self.params)))
            if state.get("change") != change or state.get("state") not in domain.UNFINISHED:
                self.disarm()
                self.result.update(outcome="unchanged", message="there is nothing to go back from: this host is %s" % state.get("state"))
                return self.result
            self.result["message"] = self.given_up() or (
                "nobody confirmed the change %s in time, so the timer of this host brought back what ran before" % change)
            outline = Outline(dict(self.request, state="absent", leaving=[]), {})
            self.before = dict((name, self.manifest(outline, name, release_id)) for name, release_id in (state.get("before") or {}).items())
            self.back(self.astray(outline), "reverted", self.request.get("leaving") or ())
            self.forget_secrets()
        return self.result

    def astray(self, outline):
        """Instances that do not run what they ran before."""
        units, names = outline.host.units(outline.wanted), set()
        for entry in outline.wanted:
            now, before = release_host.get_link(outline.host.where(entry)["current"]), (self.before.get(entry["name"]) or {}).get("release") or {}
            if now != before.get("id") or (now and not release.is_running({"systemd": units[entry["unit"]]})):
                names.add(entry["name"])
        return names
