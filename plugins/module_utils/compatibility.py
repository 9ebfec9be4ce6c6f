# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver, firmware, CANN and vllm-ascend: which of them go together. The data is catalogue/compatibility.yml."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.version_files import in_ranges

_TAG = re.compile(r"^v?(\d+\.\d+\.\d+(?:\.?(?:rc|post)\d+)*)(?=-|$)", re.IGNORECASE)


def series(version):
    """(major, minor) of a driver version, or None: the notes of CANN list drivers by series, such as 25.3.X."""
    match = re.match(r"\s*v?(\d+)\.(\d+)", str(version or ""))
    return (int(match.group(1)), int(match.group(2))) if match else None


def plugin_version(origin):
    """The vllm-ascend version that an image's tag names, such as "0.18.0rc1"; None for other tags."""
    match = _TAG.match(str(origin or "").rsplit("/", 1)[-1].partition(":")[2].partition("@")[0])
    return match.group(1).lower() if match else None


def cann_versions(origin, matrix):
    """Every CANN version that is published for an image.

    :returns: (list of versions, source).
    """
    row = (matrix.get("vllm_ascend") or {}).get(plugin_version(origin)) or {}
    return [str(version) for version in row.get("cann") or []], row.get("source")


def check_driver(driver_version, cann_version, matrix):
    """Judge a driver for a CANN.

    :param str driver_version: as the driver's version.info has it.
    :param str cann_version: as the toolkit's install info has it.
    :param dict matrix: catalogue/compatibility.yml.
    :returns: ("pass" | "fail" | "unknown", the row used as a dict or None).
    """
    driver = series(driver_version)
    if driver is None or not cann_version:
        return "unknown", None
    row = _row(cann_version, matrix)
    if row is None:
        return "unknown", None
    listed = [series(item) for item in row["drivers"]]
    if driver in listed:
        return "pass", row
    if driver in [series(item) for item in row.get("unsupported") or []] or driver < min(listed):
        return "fail", row
    return "unknown", row


def _row(cann_version, matrix):
    """The most precise row for a CANN version: "8.5.2" before "8.5"."""
    wanted = str(cann_version).lower()
    best = None
    for row in matrix.get("cann_drivers") or []:
        prefix = str(row["cann"]).lower()
        if (wanted == prefix or wanted.startswith(prefix + ".")) and (best is None or len(prefix) > len(str(best["cann"]))):
            best = row
    return best


def check_firmware(firmware_version, ranges):
    """Judge a firmware by the ranges that the driver declares in compatible_version_fw.

    :param list ranges: [[lowest, highest], ...].
    :returns: "pass" | "fail" | "unknown".
    """
    return {True: "pass", False: "fail", None: "unknown"}[in_ranges(firmware_version, ranges)]
