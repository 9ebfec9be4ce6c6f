# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joins what was read on a host (``survey_sources.read``) to the survey of docs/architecture.md. Pure.

A source that could not be read leaves None where its facts would stand, and an entry in ``errors``. Sources that disagree
are unknown: None and an entry, never the more pleasant of the two.
"""
from __future__ import annotations

import hashlib
import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi, version_files
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import FIREWALL_UNIT, INSTANCE_LABEL, SERVICE

SCHEMA = 1
IN_USE = "Address already in use"
FILES = ("install_info", "driver", "firmware", "toolkit", "nnal")
UNIT_PROPERTIES = (
    "Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "NeedDaemonReload", "FragmentPath", "MainPID", "ControlGroup",
    "ActiveEnterTimestamp",
    # For the proof that follows in the same look, see release.SHOW.
    "Result", "ExecMainStatus", "InvocationID", "InactiveExitTimestampMonotonic", "Job",
)
HUAWEI = "0x19e5"
_BUS_ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{1,2}\Z")
_DAVINCI = re.compile(r"/dev/davinci([0-9]{1,6})\Z")
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_USERINFO = re.compile(r"://[^/@\s]{1,512}@")


def chip_family(name, has_phy_id):
    """Family of a chip by its printed name and the shape of its table, or None when that does not say it.

    ``910B`` without a digit is a first-generation 910; the bare ``Ascend910`` is an A3 die only beside a Phy-ID column.
    """
    plain = name or ""
    if plain.startswith("Ascend"):
        plain = plain[len("Ascend"):].lstrip(" ")
    if plain == "910" or plain.startswith("910_93"):
        return "910c" if has_phy_id else None
    for pattern, family in (
            (r"950", "950"), (r"910C", "910c"), (r"910B[0-9]", "910b"), (r"910(A|B|Pro[AB]|PremiumA)\Z", "910"),
            (r"310P", "310p"), (r"310B", "310b"), (r"310\Z", "310")):
        if re.match(pattern, plain):
            return family
    return None


def davinci_number(path):
    """``/dev/davinci7`` -> 7, None for any other path (``/dev/davinci_manager``)."""
    match = _DAVINCI.match(path)
    return int(match.group(1)) if match else None


def join_chips(info, devices, mapping=None):
    """Chips of a ``parse_info`` reading joined with the device nodes.

    info: a reading or a failure; devices: list of paths in /dev; mapping: a ``parse_mapping`` reading or None.
    Returns (family or None, chips as in the survey but without holders, [error sentences]).
    """
    if info.get("error"):
        return None, [], []
    errors = []
    numbers = sorted(number for number in (davinci_number(path) for path in devices) if number is not None)
    rows = info["chips"]
    families = set(chip_family(row["name"], row["phy_id"] is not None) for row in rows if row["name"])
    family = families.pop() if len(families) == 1 else None
    if family is None:
        errors.append("the chips %s are of no single known family" % ", ".join(sorted(set(str(row["name"]) for row in rows))))
    counts_agree = len(numbers) == len(rows)
    if not counts_agree:
        errors.append("npu-smi prints %d chips, /dev has %d davinci nodes" % (len(rows), len(numbers)))
    chips = []
    for row, index, certain in zip(rows, *_logic_ids(rows, mapping, errors)):
        number = _device_number(row, index, family, numbers, counts_agree) if certain else None
        if number is None:
            errors.append("no source tells the device node of NPU %s chip %s" % (row["npu_id"], row["chip_id"]))
        one_memory = row["hbm_total_mb"] is None
        chips.append({
            "index": index, "npu_id": row["npu_id"], "chip_id": row["chip_id"], "phy_id": row["phy_id"], "name": row["name"],
            "health": row["health"], "bus_id": row["bus_id"],
            "power_w": row["power_w"], "temp_c": row["temp_c"], "aicore_pct": row["aicore_pct"],
            "hbm_used_mib": row["mem_used_mb"] if one_memory else row["hbm_used_mb"],
            "hbm_total_mib": row["mem_total_mb"] if one_memory else row["hbm_total_mb"],
            "device": None if number is None else "/dev/davinci%d" % number,
            "device_present": number in numbers,
            "processes": [
                {"pid": process["pid"], "name": process["name"], "memory_mib": process["mem_mb"]} for process in info["processes"]
                if process["npu_id"] == row["npu_id"] and process["chip_id"] in (None, row["chip_id"])
            ],
        })
    taken = [chip["device"] for chip in chips if chip["device"]]
    for device in sorted(set(device for device in taken if taken.count(device) > 1)):
        errors.append("%s belongs to more than one chip" % device)
        for chip in chips:
            if chip["device"] == device:
                chip["device"], chip["device_present"] = None, False
    return family, chips, errors


def _logic_ids(rows, mapping, errors):
    """What the driver calls each row, and whether that is certain: (list of unique ints, list of bool).

    It is the Device column (310 family), else the place in the table; ``info -m`` must not say otherwise.
    """
    ids = [row["logic_id"] for row in rows]
    known = set(ids) - set([None])
    printed = len(known)
    certain = [number is not None or not printed for number in ids]
    if printed != len(ids) - ids.count(None):
        errors.append("the Device column has a number twice")
        ids, known, certain = [None] * len(rows), set(), [False] * len(rows)
    # A dropped row takes its number along; the chip still needs one of its own, if not a certain one.
    spare = (number for number in range(2 * len(rows)) if number not in known)
    ids = [next(spare) if number is None else number for number in ids]
    told = {}
    if mapping and not mapping.get("error"):
        told = dict(((chip["npu_id"], chip["chip_id"]), chip["logic_id"]) for chip in mapping["chips"])
    for place, (row, index) in enumerate(zip(rows, ids)):
        other = told.get((row["npu_id"], row["chip_id"]))
        if other not in (None, index):
            certain[place] = False
            errors.append("NPU %s chip %s: the table makes it chip %d, npu-smi info -m says %d" % (row["npu_id"], row["chip_id"], index, other))
    return ids, certain


def _device_number(row, index, family, numbers, ordered):
    """davinci number of a chip, None where no source tells. ordered: the n-th chip has the n-th node."""
    if family == "910c":
        return row["phy_id"]
    if family in ("910", "910b"):
        return row["npu_id"]
    if family == "950" and row["npu_id"] in numbers:
        return row["npu_id"]
    # NPU ids of the 310 family are slots, and davinci numbers may have gaps: only the order ties them together.
    return numbers[index] if ordered and index < len(numbers) else None


def join_bus(chips, on_bus, details):
    """Hold the chips' bus ids against sysfs and ``-t board``; a chip that they disagree on has no known device node.

    chips: as of ``join_chips``, changed in place (numa_node, device); on_bus: {bus id in lower case: {"vendor", "device", "numa_node"}}, all of
    Ascend's accelerators and whatever has a bus id that npu-smi prints; details: ``deep.npus``. Returns [error sentences].
    """
    errors, places = [], dict((chip["index"], bus_key(chip["bus_id"])) for chip in chips)
    for chip in chips:
        key, name = places[chip["index"]], "NPU %s chip %s" % (chip["npu_id"], chip["chip_id"])
        seen = on_bus.get(key) or {}
        chip["numa_node"] = seen.get("numa_node")
        board = (((details.get(str(chip["npu_id"])) or {}).get("board") or {}).get("npu") or {}).get("PCIe Bus Info")
        same_npu = [places[other["index"]] for other in chips if other["npu_id"] == chip["npu_id"]]
        # A container's sysfs may show none of them: then there is nothing to compare with.
        known = key and any(place in on_bus for place in places.values())
        problem = None
        if known and not seen:
            problem = "bus id %s is not on the PCI bus" % chip["bus_id"]
        elif known and seen["vendor"] != HUAWEI:
            problem = "bus id %s belongs to vendor %s" % (chip["bus_id"], seen["vendor"])
        elif key and any(places[other["index"]] == key and other["npu_id"] != chip["npu_id"] for other in chips) and "vir" not in str(chip["name"]):
            problem = "bus id %s is that of another NPU too" % chip["bus_id"]
        elif key and board and _BUS_ID.match(board) and bus_key(board) not in same_npu:
            problem = "npu-smi info prints bus id %s, -t board %s" % (chip["bus_id"], board)
        if problem:
            errors.append("%s: %s" % (name, problem))
            chip["device"], chip["device_present"] = None, False
    if any(place in on_bus for place in places.values()):
        for key in sorted(set(on_bus) - set(places.values())):
            errors.append("an NPU at %s is on the PCI bus, npu-smi does not list it" % key)
    return errors


def bus_key(bus_id):
    """``0000:C1:00.0`` as sysfs writes it; None and what is no bus id stay as they are."""
    if not bus_id or not _BUS_ID.match(bus_id):
        return bus_id
    domain, _colon, rest = bus_id.lower().partition(":")
    return "%04x:%s" % (int(domain, 16), rest)


def is_npu(vendor, device, pci_class):
    """Whether a PCI function is an Ascend chip: a processing accelerator of Huawei, not one of Kunpeng's own."""
    return vendor == HUAWEI and (pci_class or "").startswith("0x1200") and (device or "").startswith("0xd")


def without_userinfo(text):
    """``http://user:password@host`` -> ``http://***@host``; other text as it is."""
    return _USERINFO.sub("://***@", text) if text else text


def container_devices(inspect, default_runtime):
    """/dev/davinci* that an inspected container was given, by --device or by the Ascend runtime's variable."""
    host = inspect.get("HostConfig") or {}
    found = set()
    for device in host.get("Devices") or []:
        path = device.get("PathOnHost") or device.get("path") or ""
        if davinci_number(path) is not None:
            found.add(path)
    environment = dict(item.partition("=")[::2] for item in (inspect.get("Config") or {}).get("Env") or [])
    if (host.get("Runtime") or default_runtime) == "ascend" or environment.get("ASCEND_DOCKER_RUNTIME") == "True":
        virtual = "VIRTUAL" in environment.get("ASCEND_RUNTIME_OPTIONS", "")
        for number in expand_numbers(environment.get("ASCEND_VISIBLE_DEVICES", "")):
            found.add("/dev/%sdavinci%d" % ("v" if virtual else "", number))
    return sorted(found, key=lambda path: (len(path), path))


def expand_numbers(text):
    """``0-2,4`` -> [0, 1, 2, 4]; pieces that are not numbers are left out (``void``)."""
    numbers = set()
    for piece in text.split(","):
        low, _dash, high = piece.strip().partition("-")
        if low.isdigit() and (high or low).isdigit() and len(low) < 6 and len(high) < 6:
            numbers.update(range(int(low), int(high or low) + 1))
    return sorted(numbers)


def join_containers(listed, inspected, default_runtime):
    """Containers of both engines' listings: [{"id", "name", "state", "pid", "image", "image_id", "labels", "devices", "ports", "privileged"}]."""
    containers = []
    for entry in listed:
        identity = entry.get("Id") or entry.get("ID") or ""
        names = entry.get("Names") or []
        inspect = inspected.get(identity) or {}
        containers.append({
            "id": identity, "name": (names[0] if names else identity[:12]).lstrip("/"), "state": (entry.get("State") or "unknown").lower(),
            "pid": (inspect.get("State") or {}).get("Pid"), "image": entry.get("Image"), "image_id": entry.get("ImageID"),
            "labels": entry.get("Labels") or {}, "devices": container_devices(inspect, default_runtime),
            "ports": sorted(set(port for port in (item.get("PublicPort") or item.get("host_port") for item in entry.get("Ports") or []) if port)),
            "privileged": bool((inspect.get("HostConfig") or {}).get("Privileged")),
        })
    return containers


def join_images(listed, inspected):
    """Images of both engines' listings, ``<none>`` left out of tags and digests; architecture and SOC_VERSION where inspected."""
    images = []
    for entry in listed:
        identity = entry.get("Id") or entry.get("ID") or ""
        if identity and not identity.startswith("sha256:"):
            identity = "sha256:" + identity
        inspect = inspected.get(identity) or {}
        environment = dict(item.partition("=")[::2] for item in (inspect.get("Config") or {}).get("Env") or [])
        images.append({
            "id": identity, "tags": [tag for tag in entry.get("RepoTags") or entry.get("Names") or [] if "<none>" not in tag],
            "digests": [digest for digest in entry.get("RepoDigests") or [] if "<none>" not in digest],
            "labels": entry.get("Labels") or {}, "architecture": inspect.get("Architecture"), "size_bytes": entry.get("Size"),
            "soc_version": environment.get("SOC_VERSION"),
        })
    return images


def join_engine(raw):
    """The engine's own facts out of its version and info answers of either engine (docker's form, podman's libpod form)."""
    version, info = raw.get("version") or {}, raw.get("info") or {}
    components = dict((item.get("Name"), item.get("Version")) for item in version.get("Components") or [])
    host, store = info.get("host") or {}, info.get("store") or {}
    return {
        "name": raw.get("name"), "path": raw.get("path"),
        "version": version.get("Version"), "api_version": version.get("ApiVersion") or version.get("APIVersion"),
        "data_root": info.get("DockerRootDir") or store.get("graphRoot"), "cgroup_driver": info.get("CgroupDriver") or host.get("cgroupManager"),
        "cgroup_version": info.get("CgroupVersion") or (host.get("cgroupVersion") or "").lstrip("v") or None,
        "storage_driver": info.get("Driver") or store.get("graphDriverName"), "default_runtime": info.get("DefaultRuntime") or None,
        "runtimes": sorted(info.get("Runtimes") or {}), "containerd_version": components.get("containerd"),
        "security_options": info.get("SecurityOptions") or [],
        "proxies": dict((key, without_userinfo(info[name])) for key, name in (
            ("http_proxy", "HttpProxy"), ("https_proxy", "HttpsProxy"), ("no_proxy", "NoProxy")) if info.get(name)),
        "error": raw.get("error"),
    }


def parse_units(text):
    """``systemctl show`` of several units -> {unit name: {property: value}}."""
    units = {}
    for block in (text or "").split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.strip().split("\n") if "=" in line)
        if values.get("Id"):
            units[values["Id"]] = values
    return units


def parse_hccn(query, text):
    """One answer of ``hccn_tool -i N -<query> -g``: {"status": the word after the last colon or None, "values": {key: value}, "text"}.

    The tool prints ``link status: UP``, ``net health status: Success``, ``ipaddr:10.0.0.1``, ``tls switch[0](0:disable, 1:enable), …``.
    """
    values = {}
    for line in text.split("\n"):
        switch = re.search(r"tls switch\[([01])\]", line)
        key, colon, value = line.partition(":")
        if switch:
            values["tls switch"] = switch.group(1)
        elif colon and value.strip():
            values[key.strip()] = value.strip()
    wanted = {"link": "link status", "net_health": "net health status", "ip": "ipaddr", "tls": "tls switch"}[query]
    return {"status": values.get(wanted), "values": values, "text": text.strip()[:500]}


def parse_ping(text):
    """What ``hccn_tool -i N -ping -g address A`` says: "3 of 3" packets came back, or None when it does not say."""
    match = re.search(r"(\d+) packets? transmitted, (\d+) received", text)
    return "%s of %s" % (match.group(2), match.group(1)) if match else None


def parse_listeners(text, ports):
    """``/proc/net/tcp`` or ``tcp6`` -> {port: {"inodes": set of listening sockets, "lingering": sockets in other states}} of those ports."""
    found = {}
    for line in text.split("\n")[1:]:
        words = line.split()
        if len(words) < 10:
            continue
        port = int(words[1].rpartition(":")[2], 16)
        if port in ports:
            entry = found.setdefault(port, {"inodes": set(), "lingering": 0})
            if words[3] == "0A":
                entry["inodes"].add(words[9])
            else:
                entry["lingering"] += 1
    return found


def owner_of(cgroup, containers, unit_prefix):
    """Who a process belongs to by its control group: (container or None, our instance or None)."""
    # A host that is a container itself shows its own id before that of the container within.
    inside = set(match.group(0) for match in _CONTAINER_ID.finditer(cgroup or ""))
    container = next((item for item in containers or [] if item["id"] in inside), None)
    if container:
        return container, container["labels"].get(INSTANCE_LABEL)
    unit = re.search(r"/(%s[\w.@-]{1,200})\.service(?:/|$)" % re.escape(unit_prefix), cgroup or "", re.ASCII | re.MULTILINE)
    return None, unit.group(1)[len(unit_prefix):] if unit else None


def join_instances(state, units, unit_prefix):
    """Instances of the state directory and of unit files, with their unit's state from systemd."""
    shown = parse_units(units.get("text"))
    files = units.get("sha256") or {}
    known = set(state)
    # Services of ours that are no instance: the gateway, the firewall, a registry.
    known.update(name[len(unit_prefix):-len(".service")] for name in files if not name.startswith(unit_prefix + SERVICE))
    instances = {}
    for name in sorted(known):
        unit_name = "%s%s.service" % (unit_prefix, name)
        values = shown.get(unit_name)
        unit = None
        if values:
            unit = {
                "name": unit_name, "load_state": values.get("LoadState"), "active_state": values.get("ActiveState"),
                "sub_state": values.get("SubState"), "unit_file_state": values.get("UnitFileState") or None,
                "restarts": int(values["NRestarts"]) if (values.get("NRestarts") or "").isdigit() else None,
                "needs_reload": values.get("NeedDaemonReload") == "yes", "unit_sha256": files.get(unit_name),
                "main_pid": int(values.get("MainPID") or 0) or None, "active_since": values.get("ActiveEnterTimestamp") or None,
            }
        instances[name] = dict(state.get(name) or {"release": None, "previous": None, "manifest": None, "sha256": {}, "secret": None}, unit=unit)
    return instances


def join_firewall(units):
    """{"sha256" of its unit, "active": whether systemd and the kernel have it}; None when there is none."""
    values = parse_units(units.get("text")).get(FIREWALL_UNIT) or {}
    sha256 = (units.get("sha256") or {}).get(FIREWALL_UNIT)
    return sha256 and {"sha256": sha256, "active": values.get("ActiveState") == "active" and bool(units.get("guarded"))}


def join_ports(raw, containers, unit_prefix):
    """Bind tests joined with the listener of each taken port."""
    ports = {}
    for port, seen in raw.items():
        refused = ["%s: %s" % (family, error) for family, error in sorted(seen["bind"].items()) if error]
        listener = None
        if seen.get("listener"):
            container, instance = owner_of(seen["listener"]["cgroup"], containers, unit_prefix)
            if container is None and instance is None:   # the engine listens in the container's place
                container = next((item for item in containers or [] if port in item["ports"]), None)
                instance = container["labels"].get(INSTANCE_LABEL) if container else None
            listener = {
                "pid": seen["listener"]["pid"], "command": seen["listener"]["command"], "instance": instance,
                "container": container["name"] if container else None,
            }
        elif IN_USE not in seen["bind"].values():
            pass   # refused for another reason, which refused already tells
        elif seen.get("lingering"):
            refused.append("nobody listens, %d closed connections still linger, for up to a minute" % seen["lingering"])
        elif not seen.get("listening"):
            refused.append("nobody listens yet: a server that is still loading holds it")
        ports[str(port)] = {"free": not refused, "error": "; ".join(refused) or None, "listener": listener}
    return ports


def _read_files(files):
    """The parsed version files: (driver, firmware, install_info, cann)."""
    files = dict((name, files.get(name) or {"path": None, "text": None, "error": "not read"}) for name in FILES)

    def parsed(name, parser):
        raw = files[name]
        values = parser(raw["text"])
        if raw["error"]:
            values["error"] = raw["error"]
        return dict(values, path=raw["path"])
    driver = parsed("driver", version_files.parse_driver)
    driver.update(install_path=files["driver"].get("install_path"), changed_epoch_s=files["driver"].get("mtime"))
    firmware = parsed("firmware", version_files.parse_firmware)
    install = None if files["install_info"]["error"] else version_files.parse_install_info(files["install_info"]["text"])
    nnal = parsed("nnal", version_files.parse_version_info)
    cann = {
        "toolkit": None if files["toolkit"]["error"] else parsed("toolkit", version_files.parse_toolkit),
        "nnal": None if files["nnal"]["error"] else dict((key, nnal[key]) for key in ("version", "release", "path", "error")),
    }
    return driver, firmware, install, cann


def assemble(raw, unit_prefix="vllm-ascend-"):
    """Raw readings of ``survey_sources.read`` -> the survey of docs/architecture.md (without ``elapsed_s``)."""
    errors = list(raw["errors"])
    info = raw["npu_smi"]["info"]
    if info.get("error"):
        errors.append({"source": "npu-smi info", "error": "%s: %s" % (info["kind"], info.get("reason") or info["excerpt"].strip()[:300])})
    errors.extend({"source": "npu-smi info", "error": line} for line in raw["npu_smi"]["warnings"])
    for sentence in info.get("incomplete") or []:
        errors.append({"source": "npu-smi info", "error": sentence})
    devices = sorted(raw["device_nodes"], key=lambda path: (davinci_number(path) is None, len(path), path))
    deep = raw.get("deep") or {}
    family, chips, sentences = join_chips(info, devices, deep.get("mapping"))
    errors.extend({"source": "chips", "error": sentence} for sentence in sentences)

    engine = join_engine(raw["engine"])
    if engine["error"]:
        errors.append({"source": "container engine", "error": engine["error"]})
    listed = raw["engine"].get("containers")
    containers = None if listed is None else join_containers(listed, raw["engine"].get("container_inspects") or {}, engine["default_runtime"])
    listed = raw["engine"].get("images")
    images = None if listed is None else join_images(listed, raw["engine"].get("image_inspects") or {})

    errors.extend({"source": "sysfs", "error": sentence} for sentence in join_bus(chips, raw.get("pci") or {}, deep.get("npus") or {}))
    for chip in chips:
        chip["holders"] = None if containers is None else [
            item["name"] for item in containers if item["state"] == "running" and chip["device"] and chip["device"] in item["devices"]]
        for process in chip["processes"]:
            seen = raw["pids"].get(process["pid"])
            container, instance = owner_of(seen["cgroup"] if seen else None, containers, unit_prefix)
            process.update(command=seen["command"] if seen else None, container=container["name"] if container else None, instance=instance)

    driver, firmware, install, cann = _read_files(raw["files"])
    for name, values in (("driver", driver), ("firmware", firmware)):
        if values["error"]:
            errors.append({"source": "%s version.info" % name, "error": values["error"]})
    if install is None:
        errors.append({"source": "/etc/ascend_install.info", "error": (raw["files"].get("install_info") or {}).get("error") or "not read"})

    survey = {
        "schema": SCHEMA, "host": raw["host"], "network": raw.get("network"), "npu_smi": raw["npu_smi"], "family": family, "chips": chips,
        "driver": driver, "firmware": firmware, "install_info": install, "cann": cann, "devices": devices, "device_nodes": raw["device_nodes"],
        "engine": engine, "images": images, "containers": containers, "device_plugins": raw["device_plugins"],
        "instances": join_instances(raw["instances"], raw["units"], unit_prefix), "ports": join_ports(raw["ports"], containers, unit_prefix),
        "firewall": join_firewall(raw["units"]),
        "paths": raw["paths"], "weights": raw["weights"], "errors": errors, "state": raw.get("state") or {},
        "lease": raw.get("lease") or {},
    }
    if raw.get("deep") is not None:
        survey["deep"] = deep
    return survey


def release_id(unit, environment, named):
    """The id of a release: a hash over unit and environment, in which the release's own name counts as nothing.

    :param str named: the id that the texts name, or None when they name none yet.
    """
    text = unit.replace(named, "-" * 12) if named else unit
    return hashlib.sha256(json.dumps([text, environment]).encode("utf-8")).hexdigest()[:12]


def read_manifest(text):
    """A release's manifest.json -> dict, or None when it is not JSON of that form."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def npu_smi_result(path, rc, timed_out, elapsed_s, stdout, stderr, error):
    """One run of ``npu-smi info`` -> the survey's ``npu_smi``. error: why it could not even run, or None."""
    text = stdout if "|" in stdout or not stderr.strip() else stdout + "\n" + stderr
    if error:
        info = npu_smi.failure(error[1], error[0])
    elif timed_out:
        info = npu_smi.failure(text, "timeout", "no answer within its deadline, %.0f s" % elapsed_s)
    else:
        info = npu_smi.parse_info(text)
        if rc and not info.get("error"):
            info.setdefault("incomplete", []).append("npu-smi ended with status %d after its table" % rc)
            info.setdefault("excerpt", text[:npu_smi.EXCERPT_CHARS])
    # It warns below the table of a driver that is not completely installed, and exits 0.
    warnings = [line.strip()[:300] for line in text.split("\n") if line.startswith("[WARNING]")][:5]
    return {"path": path, "rc": rc, "timed_out": timed_out, "elapsed_s": round(elapsed_s, 3), "info": info, "warnings": warnings}
