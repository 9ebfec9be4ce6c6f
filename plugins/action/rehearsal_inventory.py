# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the hosts to simulate out of an inventory, and writes the inventory that leads to their simulated selves. Runs on the controller."""

from __future__ import annotations

import json
import os
import pathlib

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intent, plan, rehearsal, rehearsal_overlay
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue, levels, ssh_target

NODE = ("platform", "chips", "driver_version", "firmware_version", "models", "models_directory")
MADE_BY = "# Made by rehearse.yml, which replaces it.\n"
HEADER = MADE_BY + "# After the inventory that was rehearsed, a second -i turns its hosts into their simulated selves: -i prod -i %s\n"


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.rehearsal_inventory."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("name", "group", "plain_groups", "subnet", "registries", "state_directory", "patch_directory", "wheelhouse", "variables"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "name": {"type": "str", "default": "rehearsal"},
            "group": {"type": "str", "default": "npu_nodes"},
            "plain_groups": {"type": "list", "elements": "str", "default": []},
            "subnet": {"type": "str", "default": "172.31.240.0/24"},
            "registries": {"type": "list", "elements": "dict", "default": []},
            "state_directory": {"type": "path", "required": True},
            "patch_directory": {"type": "path"},
            "wheelhouse": {"type": "path"},
            "variables": {"type": "dict", "default": {}},
        })
        overlay = pathlib.Path(args["state_directory"]) / "inventory.yml"
        try:
            self._refuse_itself(overlay, task_vars.get("ansible_inventory_sources") or ())
            reader = Reader(task_vars["hostvars"], task_vars["groups"], self._templar)
            registries, nodes = rehearsal.resolved(args["registries"], reader.nodes(args["group"], args["plain_groups"]), args["subnet"])
            documents = self._documents(args, registries, nodes, reader, overlay)
        except rehearsal.RehearsalError as error:
            return {"failed": True, "msg": str(error)}
        except AnsibleError as error:
            return {"failed": True, "msg": " ".join(str(error).split())}
        differences = self._write(documents, overlay.parent / "host_vars")
        return {"changed": bool(differences), "diff": differences, "nodes": nodes, "registries": registries, "inventory": str(overlay)}

    @staticmethod
    def _refuse_itself(overlay, sources):
        if any(os.path.realpath(str(source)) == os.path.realpath(overlay) for source in sources):
            raise rehearsal.RehearsalError("leave out -i %s: rehearse.yml writes it, from the inventory before it" % overlay)

    @staticmethod
    def _documents(args, registries, nodes, reader, overlay):
        """{path: text} of the inventory and its host_vars."""
        fleet = {"name": args["name"], "state_directory": args["state_directory"], "registries": registries, "variables": args["variables"],
                 "connection_names": ssh_target.names()}
        known = {node["name"]: node for node in nodes}
        documents = {overlay: HEADER % overlay + _dump(rehearsal_overlay.inventory(list(known)))}
        for host in reader.hosts:
            if host != "localhost":
                given = reader.plain(host)
                fleet["stand_ins"] = stand_ins(given, args["patch_directory"], args["wheelhouse"])
                made = rehearsal_overlay.host_variables(known.get(host), fleet, given)
                documents[overlay.parent / "host_vars" / (host + ".yml")] = MADE_BY + _dump(made)
        return documents

    def _write(self, documents, folder):
        """Bring the files up to date; returns what differs."""
        left = {path: None for path in folder.glob("*.yml") if path not in documents}
        differences = []
        for path, text in {**documents, **left}.items():
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            if before == (text or ""):
                continue
            differences.append({"before_header": str(path), "after_header": str(path), "before": before, "after": text or ""})
            if self._task.check_mode:
                continue
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return differences


class Reader:
    """What an inventory says of its hosts. Reads what it needs and nothing else, so no vaulted secret is opened."""

    def __init__(self, hostvars, groups, templar):
        self._hostvars, self._groups, self._templar = hostvars, groups, templar
        self.hosts = list(groups.get("all") or ())
        self._catalogues = {}

    def nodes(self, group, plain_groups):
        """The hosts to simulate, as rehearsal.resolved takes them."""
        chosen = {host: False for host in self._groups.get(group) or ()}
        for plain in plain_groups:
            for host in self._groups.get(plain) or ():
                chosen.setdefault(host, True)
        if "localhost" in chosen:
            raise rehearsal.RehearsalError("localhost is this machine and cannot be simulated; leave its group out (rehearsal_fleet_group, "
                                           "rehearsal_fleet_plain_groups)")
        hosts = [host for host in chosen if not chosen[host]]
        asked = {} if not hosts else levels.templated(self._hostvars, hosts, self._templar, _only_weights)
        return [self._node(host, plain, asked.get(host)) for host, plain in chosen.items()]

    def _node(self, host, plain, asked):
        raw = self._hostvars.raw_get(host)
        node = {"name": host, "address": _literal(raw.get("ansible_host", host)), "plain": plain,
                "groups": [str(group) for group in raw.get("group_names") or ()]}
        for key in NODE:
            if raw.get("rehearsal_fleet_" + key) is not None:
                node[key] = self._value(host, raw, "rehearsal_fleet_" + key)
        if plain:
            return node
        for key in ("fleet_platform", "fleet_weights_directory"):
            if raw.get(key) is not None:
                node[key] = self._value(host, raw, key)
        node.setdefault("models_directory", node.pop("fleet_weights_directory", "/models"))
        node["weights"] = self._weights(host, raw, node["models_directory"], asked)
        return node

    def _weights(self, host, raw, root, asked):
        """The folders of weights that the host's instances need."""
        given = {"fleet_weights_directory": root}
        if raw.get("fleet_instances") is not None:
            given["fleet_instances"] = self._value(host, raw, "fleet_instances", _only_weights)
        settings, problems = intent.read(host, given, asked)
        if problems:
            raise rehearsal.RehearsalError(problems[0])
        directories = tuple(self._value(host, raw, "fleet_catalogue_directories") or ()) if "fleet_catalogue_directories" in raw else ()
        models = self._catalogue(directories)["models"]
        found = []
        for demand in settings["fleet_instances"] or ():
            entry = models.get(demand["model"])
            if entry is not None:
                found.append({"path": plan.weights_path(settings, entry, demand), "size_gb": entry["weights"].get("size_gb"),
                              "context": entry.get("default_max_model_len"), "quantized": entry["arguments"].get("quantization") == "ascend"})
        return found

    def _value(self, host, raw, name, pick=lambda value: value):
        """A variable's value, or of it what ``pick`` wants."""
        try:
            return self._templar.copy_with_new_env(available_variables=raw).template(pick(raw[name]))
        except AnsibleError as error:
            raise AnsibleError(f"{host}: {name} has no value: {' '.join(str(error).split())}") from error

    def _catalogue(self, directories):
        if directories not in self._catalogues:
            try:
                self._catalogues[directories] = catalogue.load(directories)
            except catalogue.CatalogueError as error:
                raise rehearsal.RehearsalError(str(error)) from error
        return self._catalogues[directories]

    def plain(self, host):
        """The host's variables as written; what is no plain data, such as a vaulted value, is there without its content."""
        return {name: _plain(value) for name, value in self._hostvars.raw_get(host).items()
                if name.startswith(("fleet_", "ansible_"))}


def stand_ins(given, patches, wheelhouse):
    """Variables for the files of a delivery that are not on this machine: the rehearsal's own patches, and the wheels that they pin."""
    found = {}
    own = given.get("fleet_patch_directory")
    if patches and not (isinstance(own, str) and os.path.isdir(os.path.expanduser(own))):
        found["fleet_patch_directory"] = patches
    own = given.get("fleet_wheelhouse")
    if wheelhouse and ("fleet_patch_directory" in found or not (isinstance(own, str) and os.path.isdir(os.path.expanduser(own)))):
        found["fleet_wheelhouse"] = wheelhouse
    return found


def _only_weights(value):
    """What decides where weights lie; instances may carry secrets in their environment."""
    if isinstance(value, list):
        return [_only_weights(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _only_weights(one) for key, one in value.items() if key in ("model", "name", "weights") or isinstance(one, dict) and key not in (
        "arguments", "environment")}


def _literal(value):
    return str(value) if isinstance(value, str) and "{{" not in value else None


def _plain(value):
    """The value without Ansible's tags, or None where it is no plain data."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None


def _dump(value):
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=True, default_flow_style=False, allow_unicode=True, width=140)
