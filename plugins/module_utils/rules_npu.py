# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about chips, driver and firmware."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import compatibility, placement
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import davinci, failed, passed, rule_in, unsure
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import INSTANCE_LABEL

RULES = []
rule = rule_in(RULES)
each = rule_in(RULES, each_instance=True)

REBOOT = "reboot the host (the new driver or firmware is not loaded before)"
# Failures of npu-smi that name their cause, by the return value of DCMI (-80xx) and npu-smi (-90xx).
REMEDY_BY_CODE = {
    -8002: "run the survey as root (become: true)", -9002: "run the survey as root (become: true)",
    -8005: REBOOT + "; on a host that was rebooted run as root or: usermod -aG HwHiAiUser <user>",
    -8006: "npu-smi info -t health -i 0; when it times out again: reboot",
    -9006: "npu-smi info -t health -i 0; when it times out again: reboot",
    -8012: "wait a minute, then npu-smi info; when it stays: reboot",
    -8013: "run the survey on the host itself, not inside a container",
    -8017: "wait for the firmware upgrade to end, then reboot",
    -8020: "cat /proc/uda/namespace_node names the holder of the devices; stop that container or process",
    -9005: "run the survey on the host itself, not inside a restricted container",
}
REMEDY_BY_KIND = {
    "command-not-found": "install the Ascend HDK driver, then reboot",
    "library-missing": "add the driver's libraries: ldconfig /usr/local/Ascend/driver/lib64/driver /usr/local/Ascend/driver/lib64/common",
    "wrong-architecture": "install the Ascend HDK driver of this machine's architecture (uname -m)",
    "permission-denied": "run the survey as root (become: true)",
    "sudo-password-required": "give the become password: --ask-become-pass",
    "device-occupied": REMEDY_BY_CODE[-8020],
    "dcmi-init-failed": REMEDY_BY_CODE[-8005],
    "device-upgrading": REMEDY_BY_CODE[-8017],
    "not-supported-in-container": REMEDY_BY_CODE[-8013],
}


@rule("npu.smi", "npu-smi answers with a table that can be accounted for",
      why="It is the only portable source of chips, health and users; silence or half a table is not 'all healthy'.",
      source="npu-smi command reference; its exit codes are DCMI's")
def smi(view):
    expected = "a complete table"
    tool = view.read("npu_smi")
    info = tool.get("info") or {}
    if tool.get("timed_out"):
        yield unsure("npu-smi did not answer within %s s" % tool.get("elapsed_s", "its deadline"), expected,
                     "timeout 60 npu-smi info; when it hangs: look for a process in state D (ps -eo pid,stat,args) and reboot")
    elif not tool.get("path"):
        yield failed("npu-smi is not installed", expected, REMEDY_BY_KIND["command-not-found"])
    elif "not executable" in str(info.get("reason")):
        yield failed("%s is not executable" % tool["path"], expected,
                     "chmod 0755 %s; reinstall the Ascend HDK driver when that is not it" % tool["path"])
    elif info.get("error"):
        found = "npu-smi: %s%s" % (info.get("kind"), " (%s)" % info["ret"] if info.get("ret") is not None else "")
        remedy = REMEDY_BY_CODE.get(info.get("ret")) or REMEDY_BY_KIND.get(info.get("kind"))
        if remedy:
            yield failed(found, expected, remedy)
        else:
            excerpt = " ".join(str(info.get("excerpt") or "").split())[:120]
            yield unsure("%s: %s%s" % (found, info.get("reason") or "", " '%s'" % excerpt if excerpt else ""), expected,
                         "npu-smi info; dmesg | grep -i -e davinci -e ascend | tail")
    elif not info.get("chips"):
        yield unsure("npu-smi printed no chip", expected, "npu-smi info; lspci -d 19e5:")
    elif tool.get("rc"):
        yield unsure("npu-smi printed a table and exited with %s" % tool["rc"], expected, "npu-smi info; echo $?")
    elif info.get("incomplete"):
        yield unsure("; ".join(info["incomplete"])[:200], expected, "npu-smi info; npu-smi info -t health -i 0")
    else:
        yield passed("%d chips" % len(info["chips"]), expected)


@rule("npu.family_supported", "The chips are of a family that vllm-ascend and the plan know", after=("npu.smi",),
      why="Images are built for one family; first-generation 910 and 310B have none.", source="vllm-ascend installation page and FAQ 1")
def family_supported(view):
    families = view.compatibility.get("families") or {}
    names = sorted(set(chip.get("name") or "?" for chip in view.peek("chips") or []))
    family, planned = view.peek("family"), view.plan.get("platform")
    known = families.get(family) or {}
    shown = "%s (%s)" % (known.get("title") or "unknown family", ", ".join(names))
    expected = ", ".join(sorted(str(name) for name, row in families.items() if row.get("supported")))
    if not known:
        yield unsure(shown, expected, "npu-smi info -t board -i 0; take %s out of the inventory if the chip is not supported" % view.host)
    elif not known.get("supported"):
        yield failed(shown, "%s; %s" % (expected, known.get("source")), "take %s out of the inventory" % view.host)
    elif planned not in (None, known.get("platform")):
        yield failed(shown, "chips of fleet_platform %s" % planned, "set fleet_platform: %s for %s" % (known.get("platform"), view.host))
    else:
        yield passed(shown, expected)


@rule("npu.chips_present", "Every planned chip is there", after=("npu.smi",),
      why="A chip that dropped off the bus is missing from the table, not marked in it.", source="the plan")
def chips_present(view):
    count, chips = (view.platform.get("npu_count") or 0) * (view.platform.get("chips_per_npu") or 1), view.read("chips")
    expected = "the planned chips"
    there = set(chip.get("device") for chip in chips)
    shown = "%d%s chips" % (len(chips), " of %d" % count if count and count != len(chips) else "")
    complete = True
    for instance in view.instances:
        absent = [path for path in davinci(instance) if path not in there]
        if absent:
            complete = False
            yield failed("%s; %s %s no chip" % (shown, ", ".join(absent), "have" if len(absent) > 1 else "has"), expected,
                         "lspci -d 19e5: ; dmesg | grep -i davinci; plan other devices or repair the card", instance["name"])
    if complete:
        yield passed(shown, expected)


@rule("npu.chip_healthy", "Every planned chip is healthy", after=("npu.smi",),
      why="npu-smi exits 0 with sick chips; only the Health column tells.",
      source="npu-smi command reference: OK, Warning, Alarm, Critical, UNKNOWN")
def chip_healthy(view):
    wanted, bad = set(), False
    for instance in view.instances:
        for chip in view.wanted_chips(instance):
            wanted.add(chip["index"])
            health, place = chip.get("health"), (chip.get("npu_id"), chip.get("chip_id"))
            if health != "OK":
                bad = True
                make = unsure if health is None else failed
                yield make("NPU %s chip %s (%s) health %s" % (place + (chip["device"], health or "not shown")), "OK",
                           "npu-smi info -t health -i %s -c %s; plan other devices until it is repaired" % place, instance["name"])
    if not bad:
        spare = ["NPU %s chip %s %s" % (c.get("npu_id"), c.get("chip_id"), c.get("health")) for c in view.peek("chips") or []
                 if c.get("health") != "OK" and c["index"] not in wanted]
        yield passed("%d planned chips OK%s" % (len(wanted), "; not planned: " + ", ".join(spare) if spare else ""), "OK")


@each("npu.chip_free", "No one else uses a planned chip", after=("npu.smi",),
      why="One NPU serves one container at a time; a second one fails with -8020, ret 87 or too little free memory.",
      source="vllm-ascend issues 632 and 2698; idle memory of each chip from public npu-smi tables")
def chip_free(view, instance):
    labels = dict((c.get("name"), c.get("labels") or {}) for c in view.read("containers"))
    own = [name for name, label in labels.items() if label.get(INSTANCE_LABEL) == instance["name"]]
    taken = False
    for chip in view.wanted_chips(instance):
        use = placement.foreign_use(chip, own, view.platform.get("idle_hbm_mib"))
        if use:
            taken = True
            yield failed("%s is %s" % (chip["device"], use), "free", _release(chip, own, labels, view.peek("engine.name")))
    if not taken:
        yield passed("%d chips free or ours" % len(view.wanted_chips(instance)), "free")


def _release(chip, own, labels, engine):
    foreign = [name for name in chip.get("holders") or [] if name not in own]
    ours = [labels.get(name, {}).get(INSTANCE_LABEL) for name in foreign]
    if foreign and all(ours):
        return "systemctl stop %s" % " ".join("vllm-ascend-%s.service" % name for name in ours)
    if foreign:
        return "ask the owner of container %s to stop it (%s stop %s), or plan other devices" % (
            ", ".join(foreign), engine or "docker", " ".join(foreign))
    if chip.get("processes"):
        return "ask its owner to end it: ps -o user,pid,lstart,args -p %s; or plan other devices" % ",".join(
            str(p.get("pid")) for p in chip["processes"])
    return "wait a minute (memory is released late) and run preflight again; then look for a hidden holder: cat /proc/uda/namespace_node"


@each("npu.device_node", "Planned chips have their device files", after=("npu.smi", "npu.chips_present"),
      why="A container gets a chip through its device file and three shared ones.",
      source="vllm-ascend installation page, docker run --device")
def device_node(view, instance):
    present, nodes = view.read("devices"), view.peek("device_nodes") or {}
    wanted = davinci(instance) + list(instance.get("common_devices") or view.platform.get("common_devices") or [])
    absent = [path for path in wanted if path not in present]
    absent += [c["device"] for c in view.wanted_chips(instance) if c.get("device_present") is False and c["device"] not in absent]
    odd = [path for path in wanted if path in nodes and not _usable(nodes[path])]
    expected = "all of %d device files" % len(wanted)
    if odd:
        yield failed("unusable: " + ", ".join("%s (mode %s%s)" % (
            path, nodes[path].get("mode"), "" if nodes[path].get("character") else ", no character device") for path in odd),
            expected, "ls -l %s; it is a character device of HwHiAiUser, mode 0660: load the driver again (reboot)" % " ".join(odd))
    elif absent:
        yield failed("missing: " + ", ".join(absent), expected,
                     "lsmod | grep -e drv_devdrv -e davinci; load the driver (reboot) or repair it")
    else:
        yield passed("all there", expected)


def _usable(node):
    return node.get("character") and int(node.get("mode") or "0", 8) & 0o600 == 0o600


@rule("npu.reboot_pending", "The driver in use is the installed one", after=("npu.smi",),
      why="After an upgrade the old driver runs until the reboot, and containers get the new one's libraries.",
      source="driver version.info against the Version: of npu-smi")
def reboot_pending(view):
    installed, loaded = view.read("driver.version"), (view.peek("npu_smi.info") or {}).get("driver_version")
    if not loaded:
        yield unsure("npu-smi shows no driver version", installed, "npu-smi info -t board -i 0")
    elif str(installed).lower() != str(loaded).lower():
        yield failed("driver %s is installed, %s is running" % (installed, loaded), "one version", REBOOT)
    else:
        yield passed("driver %s" % installed, "one version")


@rule("npu.driver_version", "The driver is published as compatible with the image's CANN", after=("npu.reboot_pending",),
      why="Drivers outside the range fail at SetDevice (507033), at graph capture or hang in collectives.",
      source="catalogue/compatibility.yml, cann_drivers")
def driver_version(view):
    driver = view.read("driver.version")
    for name in sorted(set(i["image"] for i in view.instances if i.get("image"))):
        image = view.images.get(name) or {}
        origin = image.get("origin") or name
        published, _source = compatibility.cann_versions(origin, view.compatibility)
        versions = [str(image["cann"])] if image.get("cann") else published
        if not versions:
            yield unsure("driver %s, the CANN of %s is not known" % (driver, origin), "a CANN version",
                         "set cann for this image in fleet_images (ascend_toolkit_install.info inside it says which)")
            continue
        verdicts = [(compatibility.check_driver(driver, cann, view.compatibility), cann) for cann in versions]
        (status, row), cann = max(verdicts, key=lambda v: ("pass", "unknown", "fail").index(v[0][0]))
        found = "driver %s with CANN %s of %s" % (driver, cann, origin.rsplit("/", 1)[-1])
        expected = "HDK %s (%s)" % (", ".join(item + ".X" for item in row["drivers"]), row["source"]) if row else "a row for CANN %s" % cann
        if status == "pass":
            older = compatibility.series(driver) < compatibility.series(row["recommended"])
            yield passed(found + ("; HDK %s is recommended" % row["recommended"] if older else ""), expected)
        elif status == "fail":
            yield failed(found, expected, "install HDK %s: firmware first, then driver, then reboot" % row["recommended"])
        else:
            yield unsure(found + ": nobody published this pair", expected,
                         "install HDK %s, or waive npu.driver_version with the reason" % row["recommended"] if row else
                         "read the HDK table in the release notes of CANN %s and add it to a catalogue of your own" % cann)


@rule("npu.firmware_compatible", "The firmware is one that the driver accepts", after=("npu.reboot_pending",),
      why="A firmware outside the driver's range makes devices fail in ways that look like bad hardware.",
      source="compatible_version_fw in the driver's version.info")
def firmware_compatible(view):
    ranges, firmware, driver = view.peek("driver.compatible_firmware"), view.read("firmware.version"), view.read("driver.version")
    shown, expected = "firmware %s with driver %s" % (firmware, driver), "firmware %s" % _in_words(ranges)
    status = compatibility.check_firmware(firmware, ranges)
    if not ranges and view.peek("firmware.compatible_driver"):
        # Old drivers do not say it; then the firmware's own list counts, which cannot know of newer drivers.
        expected = "driver %s" % _in_words(view.peek("firmware.compatible_driver"))
        status = compatibility.check_firmware(driver, view.peek("firmware.compatible_driver"))
    if status == "pass":
        yield passed(shown, expected)
    elif status == "fail":
        yield failed(shown, expected, "install the firmware of the driver's own HDK release, then reboot")
    else:
        yield unsure(shown, expected, "npu-smi info -t board -i 0 | grep -i compat")


def _in_words(ranges):
    return " or ".join("%s .. %s" % tuple(pair) for pair in ranges or []) or "in a range that version.info gives"
