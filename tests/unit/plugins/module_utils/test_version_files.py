# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import version_files

DRIVER = """Version=25.0.rc1.1
ascendhal_version=7.35.19
aicpu_version=1.0
tdt_version=1.0
log_version=1.0
prof_version=2.0
dvppkernels_version=1.1
tsfw_version=1.0
Innerversion=V100R001C21SPC002B220
compatible_version=[V100R001C30],[V100R001C13],[V100R001C15],[V100R001C17],[V100R001C18],[V100R001C19],[V100R001C20],[V100R001C21]
compatible_version_fw=[7.0.0,7.7.99]
package_version=25.0.rc1.1
"""
FIRMWARE = """Version=7.7.0.1.231
firmware_version=1.0
package_version=25.0.rc1.1
compatible_version_drv=[23.0.0,23.0.0.],[24.0,24.0.],[24.1,24.1.],[25.0,25.0.]
"""
INSTALL = """UserName=HwHiAiUser
UserGroup=HwHiAiUser
Driver_Install_Type=full
Driver_Install_Path_Param=/opt/Ascend
Driver_Install_For_All=no
Driver_Install_Mode=normal
Firmware_Install_Type=full
Firmware_Install_Path_Param=/usr/local/Ascend
"""
TOOLKIT = """package_name=Ascend-cann-toolkit
version=8.5.1
innerversion=V100R001C25SPC001B220
compatible_version=[V100R001C15],[V100R001C18]
arch=aarch64
os=linux
path=/usr/local/Ascend/cann-8.5.1/aarch64-linux
"""
COMPONENT = """Version=8.2.0.0.201
version_dir=8.2.RC1
timestamp=20250711_000013148
required_package_driver="[23.0.0,23.0.0.],[24.0,24.0.]"
"""
NNAL = """    Ascend-cann-atb : 8.2.RC1
    Ascend-cann-atb Version : 8.2.RC1.B150
    Platform : aarch64
    branch : 8.2.rc1-0702
    commit id : 0123abc
"""


def test_driver():
    assert version_files.parse_driver(DRIVER) == {
        "version": "25.0.rc1.1", "package_version": "25.0.rc1.1", "inner_version": "V100R001C21SPC002B220",
        "compatible_firmware": [["7.0.0", "7.7.99"]], "error": None,
    }


def test_firmware_is_not_one_point_zero():
    firmware = version_files.parse_firmware(FIRMWARE)
    assert firmware["version"] == "7.7.0.1.231"
    assert firmware["compatible_driver"] == [["23.0.0", "23.0.0"], ["24.0", "24.0"], ["24.1", "24.1"], ["25.0", "25.0"]]
    assert version_files.in_ranges("25.0.rc1.1", firmware["compatible_driver"]) is True   # by the prefix "25.0."
    assert version_files.in_ranges("24.1.0.3", firmware["compatible_driver"]) is True
    assert version_files.in_ranges("24.2.0", firmware["compatible_driver"]) is False


@pytest.mark.parametrize("text", ["", "firmware_version=1.0\n", "\x00\x01", None])
def test_unreadable_firmware_says_so(text):
    firmware = version_files.parse_firmware(text)
    assert firmware["version"] is None
    assert "no Version=" in firmware["error"]


def test_install_info():
    info = version_files.parse_install_info(INSTALL)
    assert info["UserName"] == "HwHiAiUser"
    assert version_files.install_paths(info) == {"driver": "/opt/Ascend", "firmware": "/usr/local/Ascend"}
    assert version_files.install_paths(None) == {"driver": "/usr/local/Ascend", "firmware": "/usr/local/Ascend"}


def test_toolkit():
    assert version_files.parse_toolkit(TOOLKIT)["version"] == "8.5.1"
    assert version_files.parse_toolkit("arch=aarch64\n")["error"].startswith("no version=")


def test_component_has_two_numbers_and_quoted_ranges():
    info = version_files.parse_version_info(COMPONENT)
    assert (info["version"], info["release"]) == ("8.2.0.0.201", "8.2.RC1")
    assert info["ranges"] == {"required_package_driver": [["23.0.0", "23.0.0"], ["24.0", "24.0"]]}


def test_nnal():
    info = version_files.parse_version_info(NNAL)
    assert (info["version"], info["release"], info["values"]["Platform"]) == ("8.2.RC1.B150", "8.2.RC1", "aarch64")


ORDER = [
    "20.2.2", "20.2.2.spc001", "21.0.rc1", "21.0.2", "23.0.rc1.b050", "23.0.rc1", "23.0.rc3", "23.0.0", "23.0.7", "24.1.t52.b060", "24.1.rc2",
    "24.1.rc3", "24.1.rc3.7", "24.1.0.b033", "24.1.0", "24.1.0.spc1", "24.1.0.3", "25.0.rc1.b033", "25.0.RC1", "25.0.rc1.1", "25.0.0", "25.2.0",
    "25.5.0", "25.5.1", "26.0.RC1", "26.0.rc2", "26.1.0",
]


@pytest.mark.parametrize("low, high", list(zip(ORDER, ORDER[1:])))
def test_order(low, high):
    assert version_files.parse_version(low) < version_files.parse_version(high)


@pytest.mark.parametrize("one, other", [("24.1", "24.1.0"), ("26.0.RC1", "26.0.rc1"), ("8.3.RC2", "8.3.0.rc2"), ("v8.5.1", "8.5.1")])
def test_equal(one, other):
    assert version_files.parse_version(one) == version_files.parse_version(other)


@pytest.mark.parametrize("text", ["", "NA", None, 25, "latest", "24.1.xyz3", "1" * 65])
def test_not_a_version(text):
    with pytest.raises(ValueError, match="not a version"):
        version_files.parse_version(text)


@pytest.mark.parametrize("version, low, high, inside", [
    ("7.7.0.1.231", "7.0.0", "7.7.99", True), ("7.7.99.4", "7.0.0", "7.7.99", True), ("7.8.0", "7.0.0", "7.7.99", False),
    ("6.4.12", "7.0.0", "7.7.99", False), ("24.1.rc1", "24.1.rc1", "24.1.rc1", True), ("24.1.rc2", "24.1.rc1", "24.1.rc1", False),
    ("25.5.1", "25.5", "25.5", True), ("25.5.rc1", "25.5.0", "25.5.9", False),
    ("25.0.rc1.1", "25.0", "25.0", True), ("24.1.rc3.7", "24.1.rc1", "24.1.rc2", False),
])
def test_ranges(version, low, high, inside):
    assert version_files.version_in_range(version, low, high) is inside


def test_in_ranges_does_not_guess():
    assert version_files.in_ranges(None, [["1", "2"]]) is None
    assert version_files.in_ranges("7.1.0", []) is None
    assert version_files.in_ranges("7.1.0", [["x", "y"]]) is None
