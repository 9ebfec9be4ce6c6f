# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: a pure function of intent, catalogue, surveys and lock file. Its shape stands in docs/architecture.md."""

from __future__ import annotations

import hashlib
import json

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments as serve_arguments
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, placement, spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import INSTANCE_LABEL, did_you_mean, slug

UNIT_PREFIX = "vllm-ascend-"
DEFAULT_DRIVER_PATH = "/usr/local/Ascend"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

# vLLM drains for shutdown_timeout_s after SIGTERM; the engine waits longer before it kills, systemd longest.
# Source: vLLM 0.18.0 --shutdown-timeout; "docker stop" kills after its own time-out.
STOP_MARGIN_S = 30
DEFAULTS = {"ready_timeout_s": 900, "shutdown_timeout_s": 120, "stability_window_s": 10, "shm_size": "10g",
            "sanity": "full", "expected_answer": None}

# HCCL takes 32 ports from HCCL_IF_BASE_PORT, 60000 by default (CANN 8.5 environment-variable reference).
HCCL_BASE_PORT = 60000
HCCL_PORTS = 32


def select(catalogue, model=None, suite=None):
    """Choose which models a run is about.

    :returns: (set of model names or None for all, [problem]).
    """
    if model is not None:
        if model not in catalogue["models"]:
            return set(), ["unknown model '%s'%s; known are %s" % (
                model, did_you_mean(model, catalogue["models"]), ", ".join(sorted(catalogue["models"])))]
        return set([model]), []
    if suite is not None:
        chosen = set(name for name, entry in catalogue["models"].items() if suite in entry.get("suites", ()))
        return chosen, [] if chosen else ["no model of the catalogue belongs to the suite '%s'" % suite]
    return None, []


def build(fleet, hosts, catalogue, patch_sets, lock, surveys=None, selection=None, render=None, overrides=None):
    """Make the plan.

    :param str fleet: the fleet's name.
    :param dict hosts: {host: settings as intent.read gave them}.
    :param dict catalogue: as catalogue.load gave it.
    :param dict patch_sets: {name: manifest with "id" and every sha256}, or a str with the problem in place of a manifest.
    :param dict lock: the lock file, {"images": {...}, "targets": {...}}; with "bundle" {image without its registry: entry} when one is deployed from.
    :param dict surveys: {host: survey}; None before the hosts were looked at, then devices, images and releases stay open.
    :param selection: set of model names the run is about, None for all.
    :param dict overrides: keys of an instance that this run lays over all others; "patch_set" only where there is one.
    :param render: callable(instance, engine name, engine path, state directory) -> release, or None to leave releases out.
    :returns: (plan, [one-line problem]); a plan with problems must not be acted upon.
    """
    problems = []
    plan = {"schema": 1, "fleet": fleet, "hosts": {}, "images": {}}
    for host in sorted(hosts):
        survey = (surveys or {}).get(host)
        settings = dict(hosts[host], run=overrides or {})
        plan["hosts"][host] = _plan_host(host, settings, catalogue, patch_sets, lock, survey, selection, plan["images"], problems)
    _span(list(hosts), hosts, plan, catalogue, surveys or {}, problems)
    if surveys is None:
        problems.extend(_missing_patch_sets(hosts, catalogue, patch_sets, selection))
    _choose_builders(plan)
    if render is not None:
        for entry in plan["hosts"].values():
            for instance in entry["instances"]:
                if instance["image_reference"] and instance["devices"] and entry["engine_path"]:
                    instance["release"] = render(instance, entry["engine"], entry["engine_path"], entry["state_directory"])
    plan["hash"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode("utf-8")).hexdigest()
    return plan, problems


def _span(order, hosts, plan, catalogue, surveys, problems):
    """Make groups of the instances that span hosts, and render their arguments once more."""
    instances = dict((host, plan["hosts"][host]["instances"]) for host in order)
    problems.extend(spanning.join(order, instances, surveys, dict((host, settings["fleet_address"]) for host, settings in hosts.items())))
    for instance in (each for some in instances.values() for each in some if each.get("group")):
        flags = catalogue["flags"].get((catalogue["images"].get(instance["image_name"]) or {}).get("vllm"), {})
        instance["arguments"] = _line(instance) + serve_arguments.render(instance["options"], flags)


def _line(instance):
    """The arguments that follow from the instance itself."""
    port = [] if spanning.is_member(instance) else ["--port", str(instance["port"])]
    return [instance["weights"]["path"], "--served-model-name", instance["served_model_name"]] + port + [
        "--shutdown-timeout", str(instance["shutdown_timeout_s"])]


def _missing_patch_sets(hosts, catalogue, patch_sets, selection):
    """What stops a model that a host may get, whatever platform its chips turn out to be."""
    names = set()
    for settings in hosts.values():
        declared = settings["fleet_instances"]
        for demand in [{"model": name} for name in selection or ()] if declared is None else declared:
            model = catalogue["models"].get(demand["model"], {})
            layers = [model] + [layer for _source, layer in _overrides(settings, demand["model"])] + [demand]
            names.update([layer["patch_set"] for layer in layers if "patch_set" in layer][-1:])
    return [patch_sets[name] for name in sorted(n for n in names if n) if isinstance(patch_sets.get(name), str)]


def _plan_host(host, settings, catalogue, patch_sets, lock, survey, selection, images, problems):
    survey = survey if survey and not survey.get("unreachable") else None
    engine = (survey or {}).get("engine") or {}
    machine = ((survey or {}).get("host") or {}).get("architecture")
    platform = _platform(host, settings, catalogue, survey, problems)
    entry = {
        "platform": platform["name"] if platform else None,
        "architecture": machine,
        "engine": engine.get("name"),
        "engine_path": engine.get("path"),
        "state_directory": settings["fleet_state_directory"],
        "notes": [],
        "conflict": None,
        "instances": [],
    }
    wanted = _wanted(host, settings, catalogue, platform, selection, entry["notes"], problems)
    ports = _ports(settings, wanted)
    hccl = 0
    for index, demand in enumerate(wanted):
        model = catalogue["models"][demand["model"]]
        instance = _resolve(host, settings, catalogue, platform, model, demand, ports[index], problems)
        version = (catalogue["images"].get(instance["image_name"]) or {}).get("vllm")
        if not catalogue["flags"].get(version):
            entry["notes"].append("%s: its arguments are not checked before the image is here: the catalogue has no flag table of vLLM %s "
                                  "(catalogue/engine_flags/README.md)" % (instance["name"], version))
        if instance["tensor_parallel_size"] > 1 or spanning.size(instance["span"]) > 1:
            instance["environment"].setdefault("HCCL_IF_BASE_PORT", str(HCCL_BASE_PORT + hccl * HCCL_PORTS))
            hccl += 1
        instance["selected"] = selection is None or demand["model"] in selection
        entry["instances"].append(instance)
        if survey is not None and platform is not None and MACHINES.get(machine):
            # Only what the run is about is built and pulled.
            shared = images if instance["selected"] else {}
            _attach_image(host, settings, catalogue, patch_sets, lock, platform, MACHINES[machine], instance, shared, problems, survey)
    if survey is not None and platform is not None and survey.get("chips"):
        _place(survey, platform, entry)
    for instance in entry["instances"]:
        _finish(instance, machine, platform, survey)
    # Placement and ports are decided over all instances of the host; the run is about the selected ones.
    entry["instances"] = [instance for instance in entry["instances"] if instance.pop("selected")]
    return entry


def _platform(host, settings, catalogue, survey, problems):
    named = settings["fleet_platform"]
    if named is not None and named not in catalogue["platforms"]:
        problems.append("%s: unknown fleet_platform '%s'%s; known are %s" % (
            host, named, did_you_mean(named, catalogue["platforms"]), ", ".join(sorted(catalogue["platforms"]))))
        return None
    if named is not None:
        return catalogue["platforms"][named]
    family = (survey or {}).get("family")
    for platform in catalogue["platforms"].values():
        if family is not None and family in platform["families"]:
            return platform
    return None


def _wanted(host, settings, catalogue, platform, selection, notes, problems):
    """The instances of a host: those that the inventory declares, else one of each selected model that its platform can run."""
    declared = settings["fleet_instances"]
    if declared is None:
        if platform is None or selection is None:
            return []
        chosen = [catalogue["models"][name] for name in sorted(selection)]
        chosen.sort(key=lambda model: (model["devices"], model["weights"].get("size_gb", 0)))
        fitting = [model for model in chosen if platform["name"] in model["platforms"]]
        if not fitting:
            notes.append("nothing to deploy: none of %s runs on %s" % (", ".join(sorted(selection)), platform.get("title", platform["name"])))
        return [{"model": model["name"], "name": slug(model["name"])} for model in fitting]
    wanted = []
    for demand in declared:
        if demand["model"] not in catalogue["models"]:
            problems.append("%s: unknown model '%s'%s; known are %s" % (
                host, demand["model"], did_you_mean(demand["model"], catalogue["models"]), ", ".join(sorted(catalogue["models"]))))
            continue
        wanted.append(demand)
    if selection is not None and not any(demand["model"] in selection for demand in wanted):
        notes.append("nothing to deploy: fleet_instances of this host names none of %s" % ", ".join(sorted(selection)))
    return wanted


def _ports(settings, wanted):
    """Explicit ports stand; the others get the next free number from fleet_first_port, in the order of the inventory."""
    taken = set(demand["port"] for demand in wanted if demand.get("port"))
    following = settings["fleet_first_port"]
    ports = []
    for demand in wanted:
        if demand.get("port"):
            ports.append(demand["port"])
            continue
        while following in taken:
            following += 1
        taken.add(following)
        ports.append(following)
    return ports


def _resolve(host, settings, catalogue, platform, model, demand, port, problems):
    """Lay the layers over each other, weakest first, and remember where each value came from."""
    where = "%s: instance '%s'" % (host, demand["name"])
    layers = [("built in", DEFAULTS)]
    if platform:
        layers.append((platform["_file"], dict((k, platform[k]) for k in ("environment", "arguments", "shm_size") if k in platform)))
    layers += [
        (model["_file"], dict((k, v) for k, v in model.items() if k in (
            "environment", "arguments", "image", "patch_set", "devices", "served_model_name", "ready_timeout_s", "expected_answer",
            "sanity", "group"))),
    ] + _overrides(settings, model["name"]) + [(_origin(settings, "fleet_instances"), demand)]
    values, provenance = {"environment": {}, "arguments": {}}, {}
    for source, layer in layers:
        for key, value in layer.items():
            if key in ("environment", "arguments"):
                value = serve_arguments.canonical(value) if key == "arguments" else value
                for name, item in value.items():
                    values[key].pop(name, None)
                    values[key][name] = item
                    provenance["%s.%s" % (key, name)] = source
            else:
                values[key] = value
                provenance[key] = source
    for key, value in (settings.get("run") or {}).items():
        if key != "patch_set" or values.get("patch_set"):
            values[key], provenance[key] = value, "this run: -e %s" % key
    if platform and platform["name"] not in model["platforms"]:
        problems.append("%s: %s is not supported on %s, only on %s" % (
            where, model["name"], platform["name"], ", ".join(model["platforms"])))
    devices = values["devices"]
    explicit = devices if isinstance(devices, list) else None
    count = len(devices) if explicit else devices
    version = (catalogue["images"].get(values["image"]) or {}).get("vllm")
    if values["image"] not in catalogue["images"]:
        problems.append("%s: unknown image '%s'%s" % (where, values["image"], did_you_mean(values["image"], catalogue["images"])))
    if values.get("patch_set") and values["patch_set"] not in catalogue["patch_sets"]:
        problems.append("%s: unknown patch set '%s'%s" % (where, values["patch_set"], did_you_mean(values["patch_set"], catalogue["patch_sets"])))
    flags = catalogue["flags"].get(version, {})
    if flags:
        problems.extend("%s: %s" % (where, text) for text in serve_arguments.check(values["arguments"], flags, version))
    hosts = spanning.size(values.get("group"))
    if hosts > 1:
        values["arguments"], added, wrong = spanning.ranks(values["arguments"], count, hosts)
        problems.extend("%s: %s" % (where, text) for text in wrong)
        provenance.update(("arguments." + name, spanning.BUILT_IN) for name in added)
    tensor = _whole(values["arguments"].get("tensor-parallel-size"), 1)
    ranks = tensor * _whole(values["arguments"].get("pipeline-parallel-size"), 1) * _whole(
        values["arguments"].get("data-parallel-size-local"), _whole(values["arguments"].get("data-parallel-size"), 1))
    if ranks != count:
        problems.append("%s: its arguments need %d NPUs but devices gives %d; make tensor-parallel-size and devices agree" % (where, ranks, count))
    provenance.setdefault("port", _origin(settings, "fleet_first_port"))
    provenance.setdefault("served_model_name", model["_file"])
    if settings["fleet_images"].get(values["image"]):
        provenance["image"] = _origin(settings, "fleet_images")
    weights = values.get("weights")
    if not isinstance(weights, str):
        weights = "%s/%s" % (settings["fleet_weights_directory"].rstrip("/"), model["weights"]["directory"])
        provenance["weights"] = _origin(settings, "fleet_weights_directory")
    served = values.get("served_model_name", model["name"])
    instance = {
        "name": demand["name"],
        "model": model["name"],
        "served_model_name": served,
        "unit": "%s%s.service" % (UNIT_PREFIX, demand["name"]),
        "container": UNIT_PREFIX + demand["name"],
        "device_count": count,
        "explicit_devices": explicit,
        "devices": [],
        "chips": [],
        "port": port,
        "tensor_parallel_size": tensor,
        "image_name": values["image"],
        "image": None,
        "image_reference": None,
        "patch_set": values.get("patch_set"),
        "weights": {"path": weights, "size_gb": model["weights"].get("size_gb")},
        "max_model_len": _whole(values["arguments"].get("max-model-len"), None),
        "default_max_model_len": model.get("default_max_model_len"),
        "environment": dict((name, str(value)) for name, value in values["environment"].items() if value is not None),
        "arguments": [],
        "options": values["arguments"],
        "mounts": [],
        "shm_size": values["shm_size"],
        "ready_timeout_s": values["ready_timeout_s"],
        "shutdown_timeout_s": values["shutdown_timeout_s"],
        "stop_timeout_s": values["shutdown_timeout_s"] + STOP_MARGIN_S,
        "stability_window_s": values["stability_window_s"],
        "sanity": values["sanity"],
        "expected_answer": values["expected_answer"],
        "secret": bool(settings["fleet_api_key"]),
        "release": None,
        "provenance": provenance,
        "span": values.get("group"),
    }
    return dict(instance, arguments=_line(instance) + serve_arguments.render(values["arguments"], flags))


def _attach_image(host, settings, catalogue, patch_sets, lock, platform, architecture, instance, images, problems, survey):
    """Give the instance its image; instances that need the same bytes share one entry of plan["images"]."""
    if instance["image_name"] not in catalogue["images"]:
        return
    entry = dict(catalogue["images"][instance["image_name"]], **settings["fleet_images"].get(instance["image_name"], {}))
    origin = "%s:%s%s" % (entry["repository"], entry["tag"], platform["image_suffix"])
    patch_set = patch_sets.get(instance["patch_set"]) if instance["patch_set"] else None
    if isinstance(patch_set, str):
        problems.append("%s: %s" % (instance["model"], patch_set))
        return
    registry = settings["fleet_registry"]
    if registry is None or not registry.get("address"):
        problems.append("%s: fleet_registry is not set; hosts pull one image from it, so name a registry that all of them reach, "
                        "such as {address: registry.example.net:5000}" % host)
        return
    target, plain = ("%s/%s:%s%s-%s-%s" % (
        registry["address"], registry.get("project", entry["repository"].split("/", 1)[1]), entry["tag"], platform["image_suffix"], kind, architecture)
        for kind in (patch_set["id"] if patch_set else "plain", "plain"))
    digest = (entry.get("digests") or {}).get(platform["name"]) or lock.get("images", {}).get(origin)
    # A target built on another base is not the one that is wanted.
    bundled = (lock.get("bundle") or {}).get(bundle.key(target))
    locked = lock.get("targets", {}).get(target) or bundled or {}
    target_digest = locked.get("digest") if digest is None or locked.get("base_digest") == digest else None
    # What registry.yml brought: the origin's image of one architecture.
    copied = lock.get("targets", {}).get(plain) or {}
    shared = images.setdefault(target, {
        "origin": origin, "architecture": architecture, "platform": platform["name"], "digest": digest, "vllm": entry.get("vllm"),
        "cann": locked.get("cann") or entry.get("cann"), "registry": origin.split("/", 1)[0],
        "registries": dict(catalogue["registries"], **settings["fleet_registries"]),
        "patch_set": patch_set, "target": target, "target_digest": target_digest, "builder": None, "hosts": [],
        "plain": plain, "plain_digest": copied.get("digest") if digest and copied.get("base_digest") == digest else None,
    })
    if bundled:
        shared["bundle"] = {"folder": bundled["folder"], "blobs": bundled["blobs"]}
    if host not in shared["hosts"]:
        shared["hosts"].append(host)
    instance["image"] = target
    if target_digest:
        instance["image_reference"] = _reference(target, target_digest, bundled, survey)
    if patch_set:
        instance["patch_set"] = {"name": patch_set["name"], "id": patch_set["id"]}


def _reference(target, digest, bundled, survey):
    """The image by digest: as the registry names it, unless the host has it, or will have it, from a bundle."""
    ours, other = "%s@%s" % (target.rsplit(":", 1)[0], digest), bundle.reference(target, digest)
    present = set(name for image in (survey or {}).get("images") or () for name in image["digests"])
    return other if ours not in present and (bundled or other in present) else ours


def _place(survey, platform, entry):
    chips = survey["chips"]
    by_device = dict((chip.get("device"), chip["index"]) for chip in chips if chip.get("device"))
    running = {}
    for container in survey.get("containers") or []:
        name = (container.get("labels") or {}).get(INSTANCE_LABEL)
        if name and container.get("state") == "running":
            running[name] = sorted(by_device[d] for d in container.get("devices") or [] if d in by_device)
    placed = placement.place(
        [{"name": i["name"], "devices": i["device_count"], "explicit": i["explicit_devices"]} for i in entry["instances"]],
        chips, platform, running)
    entry["placement"] = placed["why"]
    entry["conflict"] = placed["conflict"]
    devices = dict((chip["index"], chip.get("device")) for chip in chips)
    for instance in entry["instances"]:
        instance["chips"] = sorted(placed["assignments"].get(instance["name"]) or [])
        instance["devices"] = [devices[index] for index in instance["chips"] if devices.get(index)]


def _finish(instance, machine, platform, survey):
    """What follows from the host itself: what the process sees, mounts, library paths, the context length it will report."""
    install = ((survey or {}).get("install_info") or {}).get("Driver_Install_Path_Param") or DEFAULT_DRIVER_PATH
    # The container sees its devices counted from 0, whatever their numbers on the host.
    instance["environment"].setdefault("ASCEND_RT_VISIBLE_DEVICES", ",".join(str(n) for n in range(instance["device_count"])))
    # The plugin's CPU binding misreads the output of a localized lscpu in v0.18.0rc1.
    instance["environment"].setdefault("LC_ALL", "C")
    if machine:
        # The image keeps this in .bashrc, which a container's command never reads.
        instance["environment"].setdefault("LD_PRELOAD", "/usr/lib/%s-linux-gnu/libjemalloc.so.2" % machine)
    if platform:
        instance["common_devices"] = list(platform["common_devices"])
        sources = [mount.replace("{driver}", install) for mount in platform["mounts"]] + [instance["weights"]["path"]]
        if spanning.size(instance["span"]) > 1 and spanning.HCCN_CONF not in sources:
            sources.append(spanning.HCCN_CONF)
        instance["mounts"] = [{"source": source, "target": source, "read_only": True} for source in sources]
    found = ((survey or {}).get("weights") or {}).get(instance["weights"]["path"]) or {}
    config = found.get("config") or {}
    own = (config.get("text_config") or config).get("max_position_embeddings")
    instance["max_model_len"] = instance["max_model_len"] or own or instance["default_max_model_len"]


def _choose_builders(plan):
    for image in plan["images"].values():
        image["hosts"].sort()
    chosen = builders(plan["images"], sorted(plan["hosts"]))
    for target, image in plan["images"].items():
        image["builder"] = chosen[target]


def builders(images, hosts):
    """Who makes which image: one of the hosts that need it, so that those without a digest are made side by side.

    :param dict images: the plan's images, each with hosts in order. :param list hosts: who takes part.
    :returns: {target: host, or None where nobody who takes part needs it}.
    """
    result, load = {}, {}
    for target in sorted(images, key=lambda each: (len(images[each]["hosts"]), each)):
        image = images[target]
        able = [host for host in image["hosts"] if host in hosts]
        result[target] = min(able, key=lambda host: (load.get(host, 0), able.index(host))) if able else None
        if able and not image["target_digest"]:
            load[result[target]] = load.get(result[target], 0) + 1
    return result


def to_build(plan, host, hosts):
    """The images that a host has to make: those without a digest whose builder it is, or takes the place of one that left the run.

    :param list hosts: the hosts that are still in the run. :returns: sorted list of targets.
    """
    open_images = dict((target, image) for target, image in plan["images"].items() if not image["target_digest"])
    chosen = builders(open_images, hosts)
    return sorted(target for target, image in open_images.items() if (image["builder"] if image["builder"] in hosts else chosen[target]) == host)


def survey_request(settings, catalogue, selection):
    """What npu_info must look at beyond the host itself: {"ports", "paths", "weights"}, before the platform is known."""
    chosen = settings["fleet_instances"]
    if chosen is None:
        chosen = [{"model": name} for name in sorted(selection or ())]
    known = [demand for demand in chosen if demand["model"] in catalogue["models"]]
    root = settings["fleet_weights_directory"].rstrip("/")
    weights = set(weights_path(settings, catalogue["models"][demand["model"]], demand) for demand in known)
    mounts = set()
    for platform in catalogue["platforms"].values():
        mounts.update(mount.replace("{driver}", DEFAULT_DRIVER_PATH) for mount in platform["mounts"])
    groups = spanning.demanded(settings, catalogue, selection)
    mounts.update([spanning.HCCN_CONF] if groups else [])
    # The links between hosts are proven before ranks are to meet over them.
    return {"ports": sorted(_ports(settings, known)), "paths": sorted(mounts | set([root, "/dev/shm"])), "weights": sorted(weights), "deep": groups}


def weights_path(settings, model, demand):
    """Where on the host the weights of one entry of fleet_instances lie. ``model``: its entry of the catalogue."""
    layers = [layer for _source, layer in _overrides(settings, demand["model"])] + [demand]
    named = [layer["weights"] for layer in layers if layer.get("weights")]
    return named[-1] if named else "%s/%s" % (settings["fleet_weights_directory"].rstrip("/"), model["weights"]["directory"])


def _overrides(settings, model):
    """[(where it is said, keys of an instance)] that the inventory lays over a model, weakest first."""
    return [(source, layer) for source, about, layer in settings["overrides"] if about in (None, model)]


def _origin(settings, variable):
    """Where a variable is set, in words; a default of ours is built in."""
    return "%s: %s" % (settings["origins"].get(variable, "built in"), variable)


def _whole(value, default):
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
