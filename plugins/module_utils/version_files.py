# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of the version files that driver, firmware, CANN toolkit and NNAL leave on a host, and the order of their versions. Pure."""
from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z][\w.-]{0,127}\Z", re.ASCII)
_RANGE = re.compile(r"\[([^\[\],]{1,64}),([^\[\],]{1,64})\]")
_PART = re.compile(r"[0-9]+|[a-z]+")
_VERSION = re.compile(r"v?[0-9][0-9a-z.+-]*\Z")
# What a word in a version means for its order, seen from the release (0): pre-releases below, service packs above.
_WORDS = {"dev": -5, "alpha": -4, "a": -4, "t": -4, "beta": -3, "rc": -2, "c": -2, "b": -1, "spc": 1, "sp": 1, "post": 1}


def parse_pairs(text):
    """``key=value`` and ``key : value`` lines -> ({key: value without quotes}, [lines that are neither])."""
    values, strange = {}, []
    for line in (text or "").lstrip("\ufeff").split("\n"):
        line = line.strip()
        if not line or line[0] in "#;[":
            continue
        cut = [at for at in (line.find("="), line.find(":")) if at > 0]
        key = line[:min(cut)].strip() if cut else ""
        if key and all(_KEY.match(word) for word in key.split()):
            values[key] = line[min(cut) + 1:].strip().strip("\"'").strip()
        else:
            strange.append(line[:200])
    return values, strange


def parse_ranges(value):
    """``[7.0.0,7.7.99]``, ``"[23.0.0,23.0.0.],[24.0,24.0.]"`` -> [["7.0.0", "7.7.99"], …]; the trailing dots are dropped: they
    mean "whatever starts so", which version_in_range grants to every upper bound."""
    return [[low.strip().strip("."), high.strip().strip(".")] for low, high in _RANGE.findall((value or "").replace('"', ""))]


def parse_driver(text):
    """``<driver>/version.info`` -> {"version", "package_version", "inner_version", "compatible_firmware": [[low, high]], "error"}."""
    values, _strange = parse_pairs(text)
    version = values.get("Version") or values.get("package_version")
    return {
        "version": version, "package_version": values.get("package_version"), "inner_version": values.get("Innerversion"),
        "compatible_firmware": parse_ranges(values.get("compatible_version_fw")),
        "error": None if version else "no Version= in it: %r" % (text or "")[:200],
    }


def parse_firmware(text):
    """``<firmware>/version.info`` -> {"version", "package_version", "compatible_driver": [[low, high]], "error"}.

    ``firmware_version=1.0`` is a constant of the file's format, not the version of the firmware: it is never read.
    """
    values, _strange = parse_pairs(text)
    version = values.get("Version")
    return {
        "version": version, "package_version": values.get("package_version"),
        "compatible_driver": parse_ranges(values.get("compatible_version_drv")),
        "error": None if version else "no Version= in it: %r" % (text or "")[:200],
    }


def parse_version_info(text):
    """Any ``version.info``: {"version": component's number, "release": the marketing number or None, "package_version", "values": all
    pairs, "ranges": {key: [[low, high]]} of what holds ranges, "error"}.

    Toolkit components carry two numbers: ``Version=8.2.0.0.201`` is the component's, ``version_dir=8.2.RC1`` the release's. NNAL
    writes ``Ascend-cann-atb : 8.2.RC1`` (release) and ``Ascend-cann-atb Version : 8.2.RC1.B150`` (component).
    """
    values, _strange = parse_pairs(text)
    version, release = values.get("Version"), values.get("version_dir")
    for key, value in values.items():
        if key.startswith("Ascend-cann-"):
            if key.endswith(" Version"):
                version = version or value
            else:
                release = release or value
    return {
        "version": version, "release": release, "package_version": values.get("package_version"), "values": values,
        "ranges": dict((key, parse_ranges(value)) for key, value in values.items() if _RANGE.search(value)),
        "error": None if version or release else "no version in it: %r" % (text or "")[:200],
    }


def parse_install_info(text):
    """``/etc/ascend_install.info`` and ``ascend_*_install.info`` -> {key: value} as they are, {} when nothing could be read."""
    return parse_pairs(text)[0]


def install_paths(info):
    """Directories that the parsed ``/etc/ascend_install.info`` (or None) names, with the defaults: {"driver", "firmware"}."""
    base = "/usr/local/Ascend"
    info = info or {}
    return {
        "driver": info.get("Driver_Install_Path_Param") or base,
        "firmware": info.get("Firmware_Install_Path_Param") or info.get("Driver_Install_Path_Param") or base,
    }


def parse_toolkit(text):
    """``ascend_toolkit_install.info`` -> {"version": "8.5.1", "inner_version", "architecture", "path", "error"}."""
    values, _strange = parse_pairs(text)
    return {
        "version": values.get("version"), "inner_version": values.get("innerversion"), "architecture": values.get("arch"),
        "path": values.get("path"), "error": None if values.get("version") else "no version= in it: %r" % (text or "")[:200],
    }


def _version_parts(text):
    """``24.1.RC3.7`` -> [24, 1, "rc", 3, 7]; ValueError for what is not a version."""
    plain = text.strip().lower() if isinstance(text, str) else ""
    if len(plain) > 64 or not _VERSION.match(plain):
        raise ValueError("not a version: %r" % (text,))
    parts = [int(part) if part.isdigit() else part for part in _PART.findall(plain.lstrip("v").split("+")[0])]
    strange = [part for part in parts if not isinstance(part, int) and part not in _WORDS]
    if strange:
        raise ValueError("not a version: %r has the unknown part %r" % (text, strange[0]))
    return parts


def parse_version(text):
    """A key that sorts versions of HDK, CANN and firmware: ``24.1.rc3`` < ``24.1.rc3.7`` < ``24.1.0`` = ``24.1`` < ``24.1.0.spc1`` < ``24.1.0.3``.

    Upper and lower case are equal (26.0.RC1). Words are seen from the release that they follow: t and alpha, then beta, then
    rc, then b (a build before the release) stand below it, spc above. Raises ValueError for what is not a version.
    """
    key = [[0]]
    for part in _version_parts(text):
        if isinstance(part, int):
            key[-1].append(part)
        else:
            key.append([_WORDS[part]])
    # Padding makes 24.1 equal to 24.1.0; the last element is the release itself, against which words are compared.
    return tuple(tuple(piece + [0] * (7 - len(piece))) for piece in key) + ((0,),)


def version_in_range(version, low, high):
    """Whether ``low <= version <= high``; an upper bound includes all that it is a prefix of: 7.7.99.1 is in 7.0.0 .. 7.7.99, and
    25.0.rc1.1 is in 25.0 .. 25.0 although it stands below the release (that is how the files mean ``[25.0,25.0.]``).

    Raises ValueError when one of the three is not a version.
    """
    value, bottom, top = parse_version(version), parse_version(low), parse_version(high)
    prefix = _version_parts(high)
    return bottom <= value <= top or _version_parts(version)[:len(prefix)] == prefix


def in_ranges(version, ranges):
    """True or False by a list of [low, high]; None when the version or the list is missing or unreadable."""
    if not version or not ranges:
        return None
    try:
        return any(version_in_range(version, low, high) for low, high in ranges)
    except ValueError:
        return None
