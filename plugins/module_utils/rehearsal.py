# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rehearsal fleet consists of: simulated hosts and registries as container descriptions. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal_models

LABEL = "vllm-ascend-fleet.rehearsal"
CONTENT_LABEL = "vllm-ascend-fleet.rehearsal-content"
# Inside the container of the registries: plain HTTP, published on the controller's loopback.
PUBLISH_PORT = 5001

A2_BUSES = ("C1", "01", "C2", "02", "81", "41", "82", "42")
A3_BUSES = ("9D", "9F", "99", "9B", "95", "97", "91", "93", "8D", "8F", "89", "8B", "85", "87", "81", "83")
DUO_BUSES = ("01", "01", "02", "02", "81", "81", "82", "82")

# memory: which column of npu-smi holds it; totals: MiB of the chips of one NPU; idle: what the driver itself keeps.
PLATFORMS = {
    "a2": {"product": "Atlas 800I A2", "chip_name": "910B3", "memory": "hbm", "phy": False, "first_npu": 0, "chips_per_npu": 1,
           "chips": 8, "totals": (65536,), "idle": (3445, 3402), "buses": A2_BUSES, "aicores": 20, "power": 96.5},
    "a3": {"product": "Atlas 800I A3", "chip_name": "Ascend910", "memory": "hbm", "phy": True, "first_npu": 0, "chips_per_npu": 2,
           "chips": 16, "totals": (65536, 65536), "idle": (3430, 3188), "buses": A3_BUSES, "aicores": 20, "power": 180.2},
    # Card ids of 310P hosts do not start at zero.
    "310p": {"product": "Atlas 300I Duo", "chip_name": "310P3", "memory": "memory", "phy": False, "first_npu": 1, "chips_per_npu": 2,
             "chips": 4, "totals": (44280, 43693), "idle": (1836, 1784), "buses": DUO_BUSES, "aicores": 8, "power": 16.0},
    # A host without NPU: gateway, registry, monitoring.
    "none": {},
}
# What the name of an inventory group tells about the platform of its hosts.
GROUP_WORDS = re.compile(r"(?<![a-z])(910b|910c|a2|a3|310p?|duo)(?![0-9])")
GROUP_PLATFORMS = {"a2": "a2", "910b": "a2", "a3": "a3", "910c": "a3", "310": "310p", "310p": "310p", "duo": "310p"}

# Of a simulated host, beside what the user sets: seen in `docker inspect` and nowhere else.
RUN_OPTIONS = (
    "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
    "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns=host",
    "--device-cgroup-rule=c *:* rwm", "--env=container=docker",
)


class RehearsalError(ValueError):
    """Bad input; the message is one sentence for the user."""


def chips(platform, count=None):
    """The chips of one host as npu-smi counts them; ``count`` overrides the platform's number."""
    shape = PLATFORMS[platform]
    count = shape["chips"] if count is None else int(count)
    per_npu = shape["chips_per_npu"]
    if count < per_npu or count % per_npu or count > len(shape["buses"]):
        raise RehearsalError("rehearsal_fleet_chips is %d; a host of platform %s has %d to %d in steps of %d"
                             % (count, platform, per_npu, len(shape["buses"]), per_npu))
    found = []
    for index in range(count):
        die = index % per_npu
        found.append({"index": index, "npu": shape["first_npu"] + index // per_npu, "chip": die, "phy": index,
                      "bus": "0000:%s:00.0" % shape["buses"][index], "total": shape["totals"][die],
                      "idle": shape["idle"][index % 2], "power": shape["power"], "temp": 36 + index % 4})
    return found


def label(name):
    """An inventory name as part of a container's name, a file's name and a host name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", str(name)).strip("-.") or "host"


def platform_of(node):
    """The platform of a host that an inventory describes.

    ``node``: name, plain, and what the inventory says: platform (rehearsal_fleet_platform), fleet_platform, groups. A plain host has no NPU.
    Raises RehearsalError when nothing tells, or the groups tell two.
    """
    platform = node.get("platform") or ("none" if node.get("plain") else node.get("fleet_platform"))
    if platform:
        return platform
    told = {}
    for group in node.get("groups") or ():
        for word in GROUP_WORDS.findall(group.lower()):
            told.setdefault(GROUP_PLATFORMS[word], group)
    if len(told) == 1:
        return list(told)[0]
    seen = " and ".join("%s by its group %s" % (platform, told[platform]) for platform in sorted(told))
    raise RehearsalError("node %s: its platform is %s; set rehearsal_fleet_platform (a2, a3, 310p or none) or fleet_platform for it" % (
        node["name"], "both " + seen if told else "not told by the name of a group (one with a2, a3, 310 or duo in it)"))


def addressed(registries, nodes, subnet):
    """(registries, nodes), all with an address inside the subnet.

    One that the inventory gives is kept when it lies inside; others are given out in order: registries from the subnet's begin, hosts from
    the one that ends in 11.
    """
    try:
        network = ipaddress.ip_network(str(subnet))
    except ValueError as error:
        raise RehearsalError("rehearsal_fleet_subnet %s: %s" % (subnet, error))
    taken = set([next(network.hosts())])
    made = [dict(entry) for entry in registries], [dict(entry) for entry in nodes]
    for entry in made[0] + made[1]:
        entry["address"] = _inside(entry.get("address"), network)
        taken.add(entry["address"])
    for entries, first in zip(made, (2, 11)):
        free = (address for address in _from(network, first) if address not in taken)
        for entry in entries:
            if entry["address"] is None:
                entry["address"] = next(free, None)
                if entry["address"] is None:
                    raise RehearsalError("rehearsal_fleet_subnet %s has no address left for %s; take a larger one" % (network, entry["name"]))
                taken.add(entry["address"])
            entry["address"] = str(entry["address"])
    return made


def _inside(address, network):
    try:
        found = ipaddress.ip_address(str(address))
    except ValueError:
        return None
    return found if found in network else None


def _from(network, first):
    """The network's addresses, beginning with the one at that place where there are enough."""
    first = first if network.num_addresses > 4 * first else 1
    return (network[index] for index in list(range(first, network.num_addresses - 1)) + list(range(1, first)))


def resolved(registries, nodes, subnet):
    """addressed(), with the platform of every node in place of what tells it."""
    registries, nodes = addressed(registries, nodes, subnet)
    known = {}
    for node in nodes:
        node["platform"] = platform_of(node)
        for key in ("plain", "fleet_platform", "groups"):
            node.pop(key, None)
        other = known.setdefault(label(node["name"]), node["name"])
        if other != node["name"]:
            raise RehearsalError("hosts %s and %s would both be called %s; rename one" % (other, node["name"], label(node["name"])))
    return registries, nodes


def describe_node(node):
    """What a simulated host is told about itself (its node.json).

    ``node``: name, platform, and optionally chips, driver_version, firmware_version, models, models_directory, weights.
    Raises RehearsalError for an unknown platform or model.
    """
    platform = node.get("platform")
    if platform not in PLATFORMS:
        raise RehearsalError("node %s: rehearsal_fleet_platform is %r; it must be one of %s"
                             % (node["name"], platform, ", ".join(sorted(PLATFORMS))))
    shape = PLATFORMS[platform]
    if not shape:
        return {"name": node["name"], "platform": platform}
    unknown = [name for name in node.get("models") or () if name not in rehearsal_models.MODELS]
    if unknown:
        raise RehearsalError("node %s: rehearsal_fleet_models names %s; known are %s"
                             % (node["name"], ", ".join(unknown), ", ".join(sorted(rehearsal_models.MODELS))))
    described = {key: shape[key] for key in ("product", "chip_name", "memory", "phy", "chips_per_npu", "aicores")}
    described.update(
        name=node["name"], platform=platform, chips=chips(platform, node.get("chips")),
        driver_version=str(node.get("driver_version") or "25.5.0"), firmware_version=str(node.get("firmware_version") or "7.8.0.5.216"),
        weights=rehearsal_models.folders(dict(node, models_directory=node.get("models_directory") or "/models")))
    return described


def driver_files(described):
    """{path: text} of the version files that a driver and firmware package leave on a host."""
    driver, firmware = described["driver_version"], described["firmware_version"]
    base = "/usr/local/Ascend"
    files = {
        base + "/driver/version.info":
            "Version=%s\nascendhal_version=7.35.23\naicpu_version=1.0\ntdt_version=1.0\nlog_version=1.0\nprof_version=2.0\n"
            "dvppkernels_version=1.1\ntsfw_version=1.0\nInnerversion=V100R001C23SPC001B225\n"
            "compatible_version=[V100R001C19],[V100R001C20],[V100R001C21],[V100R001C23]\n"
            "compatible_version_fw=[7.0.0,8.9.9]\npackage_version=%s\n" % (driver, driver),
        base + "/firmware/version.info":
            "Version=%s\nfirmware_version=1.0\npackage_version=%s\n"
            "compatible_version_drv=[23.0.0,23.0.0.],[24.0,24.0.],[24.1,24.1.],[25.0,25.0.],[25.2,25.2.],[25.3,25.3.],[25.5,25.5.],"
            "[26.0,26.0.]\n" % (firmware, driver),
        "/etc/ascend_install.info":
            "UserName=HwHiAiUser\nUserGroup=HwHiAiUser\nDriver_Install_Type=full\nDriver_Install_Path_Param=%s\n"
            "Driver_Install_For_All=no\nDriver_Install_Mode=normal\nFirmware_Install_Type=full\n"
            "Firmware_Install_Path_Param=%s\n" % (base, base),
    }
    if described["memory"] == "hbm":
        files["/etc/hccn.conf"] = "".join("address_%d=10.20.%d.%d\nnetmask_%d=255.255.0.0\n" % (
            chip["index"], sum(described["name"].encode()) % 250, chip["index"] + 10, chip["index"]) for chip in described["chips"])
    return files


def _machine_id(fleet, name):
    """Hosts of one image would all have the same; an empty one would make systemd think that it was never booted."""
    return {"path": "/etc/machine-id", "mode": 0o444,
            "content": hashlib.sha256(("%s/%s" % (fleet["name"], name)).encode("utf-8")).hexdigest()[:32] + "\n"}


def node_container(node, fleet):
    """The description of a simulated host's container.

    ``fleet``: name, node_image, state_directory, registries (with address).
    Returns {name, hostname, aliases, address, image, hosts, volumes, files, publish}; a file has path, mode and content or src.
    """
    described, name = describe_node(node), label(node["name"])
    state = fleet["state_directory"]
    npu = bool(described.get("chips"))
    files = [{"path": path, "content": text, "mode": 0o644} for path, text in sorted(driver_files(described).items())] if npu else []
    files += [
        _machine_id(fleet, node["name"]),
        {"path": "/etc/rehearsal/node.json", "content": json.dumps(described, indent=1, sort_keys=True) + "\n", "mode": 0o644},
        {"path": "/etc/rehearsal/ca.crt", "src": state + "/ca.crt", "mode": 0o644},
        {"path": "/root/.ssh/authorized_keys", "src": state + "/id_ed25519.pub", "mode": 0o600},
        {"path": "/etc/ssh/ssh_host_ed25519_key", "src": "%s/host_keys/%s" % (state, name), "mode": 0o600},
        {"path": "/etc/ssh/ssh_host_ed25519_key.pub", "src": "%s/host_keys/%s.pub" % (state, name), "mode": 0o644},
    ]
    if not npu:
        files.append({"path": "/etc/rehearsal/no-engine", "content": "", "mode": 0o644})
    for registry in fleet["registries"]:
        files.append({"path": "/etc/docker/certs.d/%s/ca.crt" % registry_reference(registry), "src": state + "/ca.crt", "mode": 0o644})
    return {"name": "%s-%s" % (fleet["name"], name), "hostname": name[:63], "aliases": sorted(set([name, node["name"]])),
            "address": node["address"], "image": fleet["node_image"], "files": files, "publish": [],
            "hosts": {registry["name"]: registry["address"] for registry in fleet["registries"]},
            "volumes": {"/var/lib/docker": "%s-%s-docker" % (fleet["name"], name)} if npu else {}, "keep_volumes": False}


def registry_reference(registry):
    """How image references begin that name it."""
    return registry["name"] if registry["port"] == 443 else "%s:%d" % (registry["name"], registry["port"])


def only_registry(registries, kind):
    """The one of its kind."""
    found = [registry for registry in registries if registry["kind"] == kind]
    if len(found) != 1:
        raise RehearsalError("rehearsal_fleet_registries has %d entries of kind %s; exactly one is wanted" % (len(found), kind))
    return found[0]


def registry_container(fleet):
    """The description of the one container that plays all registries; images survive its re-creation in a volume."""
    state = fleet["state_directory"]
    upstream, own = only_registry(fleet["registries"], "upstream"), only_registry(fleet["registries"], "fleet")
    played = [dict(registry, store=registry["name"], prefix=registry.get("prefix") or "") for registry in fleet["registries"]]
    # Where the controller pushes: plain HTTP on its own loopback, which every engine accepts without any trust being set up.
    played.append({"name": "publish", "kind": "publish", "address": "0.0.0.0", "port": PUBLISH_PORT, "store": upstream["name"], "prefix": ""})
    files = [
        _machine_id(fleet, "registry"),
        {"path": "/etc/rehearsal/node.json", "mode": 0o644,
         "content": json.dumps({"name": "registry", "registries": played}, indent=1, sort_keys=True) + "\n"},
        {"path": "/etc/rehearsal/registry.crt", "src": state + "/registry.crt", "mode": 0o644},
        {"path": "/etc/rehearsal/registry.key", "src": state + "/registry.key", "mode": 0o600},
        {"path": "/etc/rehearsal/fleet_registry_password", "src": state + "/fleet_registry_password", "mode": 0o600},
    ]
    return {"name": fleet["name"] + "-registry", "hostname": "registry", "aliases": ["registry"], "address": own["address"],
            "image": fleet["registry_image"], "hosts": {}, "files": files,
            # Any free port of the loopback: whoever pushes asks which.
            "publish": ["127.0.0.1::%d" % PUBLISH_PORT],
            "volumes": {"/srv/registry": fleet["name"] + "-registry-data"}, "keep_volumes": True}


def containers(fleet):
    """All containers of a fleet, after checking names and addresses. ``fleet`` also has nodes and subnet."""
    network = ipaddress.ip_network(str(fleet["subnet"]))
    taken = {str(next(network.hosts())): "the network's gateway"}
    named = [("registry %s" % registry["name"], registry["address"]) for registry in fleet["registries"]]
    for who, address in named + [("node %s" % node["name"], node.get("address")) for node in fleet["nodes"]]:
        if _inside(address, network) is None:
            raise RehearsalError("%s: its address %s is outside rehearsal_fleet_subnet %s" % (who, address, network))
        if address in taken:
            raise RehearsalError("%s and %s share the address %s" % (taken[address], who, address))
        taken[address] = who
    return [registry_container(fleet)] + [node_container(node, fleet) for node in fleet["nodes"]]


def run_arguments(container, network, fleet_name, content):
    """The words after `docker create`."""
    words = ["--name", container["name"], "--hostname", container["hostname"], "--network", network, "--ip", container["address"],
             "--label", "%s=%s" % (LABEL, fleet_name), "--label", "%s=%s" % (CONTENT_LABEL, content), "--restart", "unless-stopped"]
    words += RUN_OPTIONS
    for name, address in sorted(container["hosts"].items()):
        words += ["--add-host", "%s:%s" % (name, address)]
    for alias in container["aliases"]:
        words += ["--network-alias", alias]
    for target, volume in sorted(container["volumes"].items()):
        words += ["--volume", "%s:%s" % (volume, target)]
    for published in container["publish"]:
        words += ["--publish", published]
    return words + [container["image"], "/sbin/init"]


def content_hash(container, image_id, file_hashes):
    """The identity of a container: another hash means that it has to be made anew.

    ``file_hashes``: {path: sha256 of what goes there}. Returns 64 hex digits.
    """
    told = {key: container[key] for key in ("name", "hostname", "aliases", "address", "hosts", "publish", "volumes")}
    told.update(image=image_id, options=RUN_OPTIONS, files=file_hashes, modes={file["path"]: file["mode"] for file in container["files"]})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()


def directory_hash(files, arguments):
    """The identity of an image build: ``files`` is {relative path: (mode, bytes)}, ``arguments`` the build arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode("utf-8"))
    for path in sorted(files):
        mode, content = files[path]
        digest.update(("\0%s\0%o\0%d\0" % (path, mode & 0o777, len(content))).encode("utf-8"))
        digest.update(content)
    return digest.hexdigest()
