# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings inventory, catalogue, lock file and patch files together for the pure plan. Runs on the controller."""

from __future__ import annotations

import copy
import hmac
import os

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, firewall, gate, gateway, intent, lease, plan, plan_text, recovery, rollout
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue as catalogue_files
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history, lock_file, patch_set, release_files


class PlanningError(Exception):
    """The inventory, the catalogue or the patch files cannot be used. args[0] is a list of one-line problems."""


class Planning:
    """One run's inputs, read once."""

    def __init__(self, variables, model=None, suite=None, levels=None, overrides=None, fleet=None, bundled=None):
        """Read what the hosts ask for.

        :param dict variables: {host: its fleet_* variables}.
        :param dict overrides: keys of an instance that this run lays over all others; "patch_set" only where there is one.
        :param dict levels: {host: levels as intent.read takes them}.
        :param dict bundled: what plugin_utils.bundling proved of the bundle that is deployed from; empty without one.
        :param list fleet: all hosts of the fleet, of which a run may take some; None when it takes all.
        :raises PlanningError: naming every problem found.
        """
        problems = []
        self.settings, self.overrides = {}, overrides or {}
        self.hosts, self.bundled = list(fleet or variables), bundled or {}
        for host, given in variables.items():
            self.settings[host], found = intent.read(host, given, (levels or {}).get(host, ()))
            problems.extend(found)
        self.fleet = self._common("fleet_name", problems)
        self.lock_path = self._common("fleet_images_lock", problems)
        self.report_directory = self._common("fleet_report_directory", problems)
        self.max_unready = self._common("fleet_max_unready_hosts", problems)
        directories = self._common("fleet_catalogue_directories", problems)
        self.rollout = self._rollout(problems)
        try:
            self.catalogue = catalogue_files.load(directories or ())
            self.saved = lock_file.load(self.lock_path)
            self.lock = bundle.merged(self.saved, self.bundled["images"], self.bundled["lock"]) if self.bundled else self.saved
        except (catalogue_files.CatalogueError, lock_file.LockError) as error:
            raise PlanningError(problems + [str(error)]) from error
        self.selection, found = plan.select(self.catalogue, model, suite)
        problems.extend(found)
        self.patch_sets = self._patch_sets()
        # One that many hosts inherit is there once for each of them.
        self.waivers = [dict(waiver, hosts=waiver.get("hosts", [host]))
                        for host, settings in self.settings.items() for waiver in settings["fleet_waivers"] if isinstance(waiver, dict)]
        if not problems:
            try:
                gate.check(self.waivers, *[settings["fleet_rule_settings"] for settings in self.settings.values()])
            except gate.GateError as error:
                problems.append(str(error))
        if problems:
            raise PlanningError(problems)

    def _rollout(self, problems):
        """How the fleet is rolled over: the settings that plugin_utils.rolling takes."""
        rules, found = rollout.policy(self._common("fleet_rollout", problems))
        chosen, more = gateway.settings(self._common("fleet_gateway", problems))
        access, scrapers = self._common("fleet_instance_access", problems), self._common("fleet_metrics_scrapers", problems)
        problems.extend(found + more + gateway.client_problems(self._common("fleet_gateway_clients", problems)) + firewall.problems(access, scrapers))
        unknown = [host for host in rules["anchors"] if host not in self.hosts]
        if unknown:
            problems.append("fleet_rollout: anchors names %s, which is no host of the fleet%s" % (
                ", ".join(map(str, unknown)), did_you_mean(unknown[0], self.hosts)))
        named = {"fleet_history": self._common("fleet_history", problems), "fleet_report_directory": self.report_directory}
        return {
            "policy": rules, "racks": {host: settings["fleet_rack"] for host, settings in self.settings.items()},
            "anchors": lease.anchors(self.hosts, [host for host in rules["anchors"] if host in self.hosts]),
            "state_directories": {host: settings["fleet_state_directory"] for host, settings in self.settings.items()},
            "report_directory": self.report_directory, "history": history.address_of(named)[0], "ledger_key": self._common("fleet_ledger_key", problems),
            "gateway": chosen, "access": access, "scrapers": scrapers,
            "monitoring_group": self._common("fleet_monitoring_group", problems), "gateway_group": self._common("fleet_gateway_group", problems),
            "hooks": {name: self._common("fleet_%s_hook" % name, problems) for name in ("drain", "admit")}}

    def _common(self, name, problems):
        """A setting that must be the same for all hosts of a run."""
        values = []
        for settings in self.settings.values():
            if settings[name] not in values:
                values.append(settings[name])
        if len(values) > 1:
            shown = "" if name in intent.SECRET_VARIABLES else f" ({', '.join(map(str, values[:3]))})"
            problems.append(f"{name} differs between hosts{shown}; set it once for the whole group")
        return values[0] if values else intent.VARIABLES[name][1]

    def _patch_sets(self):
        """Every patch set with its id, or the sentence that says why it cannot be had; only those asked for then matter."""
        directories = {s["fleet_patch_directory"] for s in self.settings.values()}
        directory = directories.pop() if len(directories) == 1 else None
        if self.bundled:
            directory = os.path.join(self.bundled["folder"], bundle.PATCHES)
        result = {}
        for name, manifest in self.catalogue["patch_sets"].items():
            try:
                # A file without a checksum in its manifest is held to the one seen at its first use.
                pinned = [dict(p, sha256=p.get("sha256") or self.lock["patches"].get(p["file"])) for p in manifest["patches"]]
                result[name] = patch_set.load(dict(manifest, patches=pinned), directory)
            except patch_set.PatchSetError as error:
                result[name] = str(error)
        return result

    def build(self, surveys=None):
        """:returns: the plan. :raises PlanningError: naming every problem found."""
        made, problems = plan.build(
            self.fleet, self.settings, self.catalogue, self.patch_sets, self.lock, surveys, self.selection, release_files.render, self.overrides)
        if problems:
            raise PlanningError(list(dict.fromkeys(problems)))
        if self.bundled:
            try:
                bundle.refuse_lacking_images(self.bundled["folder"], self.bundled["images"], made["images"])
            except bundle.BundleError as error:
                raise PlanningError([str(error)]) from error
        return made

    def left_over(self, surveys):
        """:returns: {host: instances of ours that the inventory no longer names}; {} when the run is about some models only."""
        declared = {host: settings["fleet_instances"] for host, settings in self.settings.items() if settings["fleet_instances"] is not None}
        wanted = {host: [demand["name"] for demand in demands] for host, demands in declared.items()}
        return plan_text.left_over(wanted if self.selection is None else {}, surveys)

    @staticmethod
    def unbuilt(entry, instance):
        """Files of the release that an instance would be, if only its image were built: {"<unit>", "environment", …}; {} while that is open."""
        if not instance["image"] or not instance["devices"] or not entry["engine_path"]:
            return {}
        reference = "%s@sha256:not-built-yet" % instance["image"].rsplit(":", 1)[0]
        return release_files.render(
            dict(instance, image_reference=reference), entry["engine"], entry["engine_path"], entry["state_directory"])["files"]

    def requests(self, texts=False):
        """:returns: {host: arguments of npu_info}, with the installed units and environments when ``texts``."""
        return {
            host: dict(
                plan.survey_request(settings, self.catalogue, self.selection),
                state_directory=settings["fleet_state_directory"], unit_prefix=plan.UNIT_PREFIX,
                engine=settings["fleet_container_engine"], timeout_s=settings["fleet_npu_smi_timeout_s"], texts=texts)
            for host, settings in self.settings.items()
        }

    def secret_hashes(self, nonce):
        """:returns: {host: keyed hash that the survey must find of the secret of its instances, None of a host without one}."""
        texts = {host: recovery.secret_text(settings["fleet_api_key"]) for host, settings in self.settings.items()}
        return {host: text and hmac.new(nonce.encode("ascii"), text.encode("utf-8"), "sha256").hexdigest() for host, text in texts.items()}

    def judge(self, made, surveys):
        """:returns: what gate.judge returns, and what it judged."""
        contexts = {}
        for host, settings in self.settings.items():
            survey = surveys.get(host)
            contexts[host] = {
                "host": host, "survey": survey, "host_plan": made["hosts"][host], "images": made["images"],
                "platform": self.catalogue["platforms"].get(made["hosts"][host]["platform"]),
                "compatibility": self.catalogue["compatibility"],
                "now_epoch_s": (survey or {}).get("controller_epoch_s"), "settings": {},
                "rule_settings": settings["fleet_rule_settings"],
                "peers": {other: {"survey": surveys.get(other), "host_plan": made["hosts"][other]}
                          for other in spanning.companions(made["hosts"][host]["instances"]) - {host}},
            }
        return gate.judge(contexts, waivers=self.waivers), contexts

    def learn(self, built, write):
        """Take over what was built, and write the lock file when that is news.

        :param list built: of {"target", "digest", "base_digest", "origin", "cann", "patches": {file: sha256}}.
        :param bool write: False in check mode.
        :returns: whether the lock file differs, or would.
        """
        before = copy.deepcopy(self.saved)
        for facts in built:
            entry = {key: facts[key] for key in ("digest", "base_digest", "cann") if facts.get(key)}
            for lock in (self.saved, self.lock):
                lock["targets"][facts["target"]] = entry
                if facts.get("base_digest"):
                    lock["images"].setdefault(facts["origin"], facts["base_digest"])
                lock["patches"].update(facts.get("patches") or {})
        if self.saved != before and write:
            lock_file.save(self.lock_path, self.saved)
        return self.saved != before
