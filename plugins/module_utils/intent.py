# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory asks for: the C(fleet_*) variables of each host, checked and brought to one form."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import SERVICE, did_you_mean, slug

# name -> (types, default). The one list of inventory variables; docs/inventory.md explains each.
VARIABLES = {
    "fleet_name": ((str,), "fleet"),
    "fleet_group": ((str,), "npu_nodes"),
    "fleet_platform": ((str, type(None)), None),
    "fleet_instances": ((list, type(None)), None),
    "fleet_instance_defaults": ((dict,), {}),
    "fleet_models": ((dict,), {}),
    "fleet_weights_directory": ((str,), "/models"),
    "fleet_first_port": ((int,), 8000),
    "fleet_registry": ((dict, type(None)), None),
    "fleet_registry_group": ((str,), "registries"),
    "fleet_registry_password": ((str, type(None)), None),
    "fleet_registries": ((dict,), {}),
    "fleet_images": ((dict,), {}),
    "fleet_images_lock": ((str,), "images.lock.yml"),
    "fleet_patch_directory": ((str, type(None)), None),
    "fleet_wheelhouse": ((str, type(None)), None),
    "fleet_pip_index_url": ((str, type(None)), None),
    "fleet_catalogue_directories": ((list,), []),
    "fleet_container_engine": ((str,), "auto"),
    "fleet_state_directory": ((str,), "/var/lib/vllm-ascend-fleet"),
    "fleet_report_directory": ((str,), "reports"),
    "fleet_history": ((str, type(None)), None),
    "fleet_history_password": ((str, type(None)), None),
    "fleet_npu_exporter_port": ((int, type(None)), None),
    "fleet_monitoring_group": ((str,), "monitoring"),
    "fleet_metrics_scrapers": ((list,), []),
    "fleet_api_key": ((str, type(None)), None),
    "fleet_waivers": ((list,), []),
    "fleet_rule_settings": ((dict,), {}),
    "fleet_max_unready_hosts": ((int,), 0),
    "fleet_npu_smi_timeout_s": ((int,), 60),
    "fleet_image_timeout_s": ((int,), 7200),
    "fleet_releases_kept": ((int,), 3),
    "fleet_rollout": ((dict,), {}),
    "fleet_rack": ((str, type(None)), None),
    "fleet_ledger_key": ((str, type(None)), None),
    "fleet_gateway_group": ((str,), "gateways"),
    "fleet_gateway": ((dict,), {}),
    "fleet_gateway_clients": ((dict,), {}),
    "fleet_address": ((str, type(None)), None),
    "fleet_instance_access": ((str,), "gateways"),
    "fleet_drain_hook": ((str, list, type(None)), None),
    "fleet_admit_hook": ((str, list, type(None)), None),
}

# The last three are about a registry of ours.
REGISTRY_KEYS = ("address", "username", "project", "certificate", "certificate_authority", "storage")

# Of one entry of fleet_instances; the same keys but model, name, port and a device list may stand in fleet_instance_defaults and fleet_models.
INSTANCE_KEYS = {
    "model": (str,), "name": (str,), "port": (int,), "devices": (int, list), "served_model_name": (str,), "image": (str,),
    "patch_set": (str, type(None)), "weights": (str,), "arguments": (dict,), "environment": (dict,), "shm_size": (str,),
    "ready_timeout_s": (int,), "shutdown_timeout_s": (int,), "stability_window_s": (int,), "expected_answer": (str, type(None)),
    "sanity": (str,), "group": (int, list),
}
_ONE_INSTANCE_ONLY = ("model", "name", "port")

# Secrets stay out of every structure that is printed, hashed or saved.
SECRET_VARIABLES = ("fleet_api_key", "fleet_registry_password", "fleet_history_password", "fleet_gateway_clients")


# These say something about instances and hold at every level at once; of all others the strongest level counts, as is Ansible's way.
LAYERED = ("fleet_instance_defaults", "fleet_models")


def read(host, variables, levels=()):
    """Check one host's C(fleet_*) variables.

    :param str host: the inventory name, for the messages.
    :param dict variables: every variable of the host; others than fleet_* are passed over.
    :param list levels: of (level in words, {variable: value}), weakest first; what they lack of the variables counts as "inventory".
    :returns: (settings with defaults filled and fleet_instances as dictionaries or None, [one-line problem]). Two settings more:
        "overrides": [(where it is said, model or None for all, keys of an instance)], weakest first; "origins": {variable: level}.
    """
    problems = []
    settings = {}
    for name in sorted(variables):
        if name.startswith("fleet_") and name not in VARIABLES:
            problems.append("%s: unknown variable '%s'%s" % (host, name, did_you_mean(name, VARIABLES)))
    for name, (types, default) in VARIABLES.items():
        value = variables.get(name, default)
        if int in types and bool not in types and isinstance(value, str) and value.isdigit():
            value = int(value)  # -e name=1 arrives as text
        if not isinstance(value, types) or isinstance(value, bool):
            shown = "***" if name in SECRET_VARIABLES else repr(value)
            problems.append("%s: %s must be %s, not %s" % (host, name, _names(types), shown))
            value = default
        settings[name] = value
    if settings["fleet_container_engine"] not in ("auto", "docker", "podman"):
        problems.append("%s: fleet_container_engine must be auto, docker or podman, not '%s'" % (host, settings["fleet_container_engine"]))
    registry = settings["fleet_registry"]
    if registry is not None:
        for key in registry:
            if key not in REGISTRY_KEYS:
                problems.append("%s: fleet_registry: unknown key '%s'%s" % (host, key, did_you_mean(key, REGISTRY_KEYS)))
        if not registry.get("address"):
            problems.append("%s: fleet_registry lacks 'address', such as registry.example.net:5000" % host)
    settings["overrides"] = []
    for name in LAYERED:
        for level, value in _levels_of(name, variables, levels):
            settings["overrides"].extend(_overrides(host, name, level, value, problems))
    settings["origins"] = dict((name, "inventory") for name in variables if name in VARIABLES)
    for level, values in levels:
        settings["origins"].update((name, level) for name in values if name in VARIABLES)
    for index, waiver in enumerate(settings["fleet_waivers"]):
        if not isinstance(waiver, dict) or not waiver.get("rule") or not waiver.get("reason"):
            problems.append("%s: fleet_waivers[%d] must name a 'rule' and a 'reason'" % (host, index))
    if settings["fleet_instances"] is not None:
        settings["fleet_instances"] = _read_instances(host, settings["fleet_instances"], problems)
    return settings, problems


def _read_instances(host, given, problems):
    instances = []
    for index, entry in enumerate(given):
        where = "%s: fleet_instances[%d]" % (host, index)
        if isinstance(entry, str):
            entry = {"model": entry}
        if not isinstance(entry, dict):
            problems.append("%s must be a model's name or a dictionary with 'model'" % where)
            continue
        problems.extend(_check_keys(where, entry))
        if not isinstance(entry.get("model"), str):
            problems.append("%s lacks 'model'" % where)
            continue
        instance = dict(entry)
        instance["name"] = slug(str(entry.get("name", entry["model"])))
        if instance["name"].startswith(SERVICE):
            problems.append("%s: names that begin with '%s' are kept for services of the fleet itself; name it otherwise" % (where, SERVICE))
        devices = entry.get("devices")
        if isinstance(devices, list):
            numbers = [d for d in devices if isinstance(d, int) and not isinstance(d, bool) and d >= 0]
            if len(numbers) != len(devices) or not devices or len(set(numbers)) != len(numbers):
                problems.append("%s: devices must be a count or a list of distinct davinci numbers, such as [0, 1], not %r" % (where, devices))
        elif devices is not None and (not isinstance(devices, int) or devices < 1):
            problems.append("%s: devices must be at least 1" % where)
        if isinstance(entry.get("port"), int) and not 1 <= entry["port"] <= 65535:
            problems.append("%s: port %s is outside 1..65535" % (where, entry["port"]))
        instances.append(instance)
    for what, key in (("name", "name"), ("port", "port")):
        seen = {}
        for instance in instances:
            value = instance.get(key)
            if value is not None and value in seen:
                problems.append("%s: instances '%s' and '%s' have the same %s %s; give one another %s" % (
                    host, seen[value], instance["model"], what, value, what))
            seen[value] = instance["model"]
    owners = {}
    for instance in instances:
        for number in instance["devices"] if isinstance(instance.get("devices"), list) else []:
            if number in owners and owners[number] != instance["name"]:
                problems.append("%s: /dev/davinci%s is asked for by both '%s' and '%s'; an NPU serves one instance" % (
                    host, number, owners[number], instance["name"]))
            owners[number] = instance["name"]
    return instances


def _check_keys(where, entry):
    problems = []
    for key, value in entry.items():
        if key not in INSTANCE_KEYS:
            problems.append("%s: unknown key '%s'%s" % (where, key, did_you_mean(key, INSTANCE_KEYS)))
        elif not isinstance(value, INSTANCE_KEYS[key]) or isinstance(value, bool):
            problems.append("%s: %s must be %s, not %r" % (where, key, _names(INSTANCE_KEYS[key]), value))
        elif key == "group":
            problems.extend("%s: %s" % (where, text) for text in spanning.problems_of(value))
    return problems


def _levels_of(name, variables, levels):
    """[(level, value)] of one variable, weakest first; a value that Ansible has from elsewhere (a play, a task) is the strongest."""
    found = [(level, values[name]) for level, values in levels if name in values]
    if name in variables and (not found or found[-1][1] != variables[name]):
        found.append(("inventory", variables[name]))
    return found


def _overrides(host, name, level, value, problems):
    """One variable of one level as overrides; what cannot be one becomes a problem."""
    where = name if level == "inventory" else "%s in %s" % (name, level)
    if not isinstance(value, dict):
        if level != "inventory":
            problems.append("%s: %s must be a dictionary, not %r" % (host, where, value))
        return []
    if name == "fleet_instance_defaults":
        problems.extend(_check_overrides(host, where, value))
        return [("%s: %s" % (level, name), None, value)]
    result = []
    for model, override in value.items():
        if isinstance(override, dict):
            problems.extend(_check_overrides(host, where.replace(name, "%s['%s']" % (name, model), 1), override))
            result.append(("%s: %s['%s']" % (level, name, model), model, override))
        else:
            problems.append("%s: %s must be a dictionary" % (host, where.replace(name, "%s['%s']" % (name, model), 1)))
    return result


def _check_overrides(host, name, override):
    where = "%s: %s" % (host, name)
    problems = _check_keys(where, override)
    for key in _ONE_INSTANCE_ONLY:
        if key in override:
            problems.append("%s: '%s' belongs to one instance, set it in fleet_instances" % (where, key))
    return problems


_TYPE_NAMES = {str: "text", int: "a whole number", list: "a list", dict: "a dictionary", type(None): "null"}


def _names(types):
    return " or ".join(_TYPE_NAMES[t] for t in types)
