# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import surveys

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import compatibility

MATRIX = surveys.COMPATIBILITY


@pytest.mark.parametrize("driver,cann,status", [
    ("25.5.0", "8.5.1", "pass"), ("25.0.rc1.1", "8.5.1", "pass"), ("25.3.RC1", "8.5.0", "pass"), ("24.1.rc3", "8.5.1", "fail"),
    ("23.0.7", "8.5.1", "fail"),
    ("26.0.rc1", "8.5.1", "unknown"), ("26.0.RC1", "8.5.2", "pass"), ("26.1.0", "9.0.0", "pass"), ("25.0.rc1", "9.1.0", "fail"),
    ("25.2.0", "9.1.0", "pass"),
    ("27.0.0", "9.1.0", "unknown"), ("25.1.rc2", "8.5.1", "unknown"), ("25.5.0", "10.0.0", "unknown"), ("25.5.0", "8.50", "unknown"),
    (None, "8.5.1", "unknown"),
    ("25.5.0", None, "unknown"), ("garbage", "8.5.1", "unknown"),
])
def test_drivers(driver, cann, status):
    found, row = compatibility.check_driver(driver, cann, MATRIX)
    assert found == status
    assert status == "unknown" or row["source"]


@pytest.mark.parametrize("firmware,ranges,status", [
    ("7.7.0.1.231", [["7.0.0", "7.7.99"]], "pass"), ("7.7.99.5", [["7.0.0", "7.7.99"]], "pass"), ("7.8.0.1", [["7.0.0", "7.7.99"]], "fail"),
    ("6.4.12.1.241", [["7.0.0", "7.7.99"]], "fail"), ("9.1.0", [["7.0.0", "7.7.99"], ["9.0.0", "9.9.9"]], "pass"),
    (None, [["7.0.0", "7.7.99"]], "unknown"),
    ("7.7.0", [], "unknown"), ("nonsense!", [["7.0.0", "7.7.99"]], "unknown"),
])
def test_firmware(firmware, ranges, status):
    assert compatibility.check_firmware(firmware, ranges) == status


@pytest.mark.parametrize("origin,version", [
    ("quay.io/ascend/vllm-ascend:v0.18.0rc1", "0.18.0rc1"), ("quay.io:443/ascend/vllm-ascend:v0.18.0rc1-a3-openeuler", "0.18.0rc1"),
    ("quay.io/ascend/vllm-ascend:v0.7.3.post1", "0.7.3.post1"), ("quay.io/ascend/vllm-ascend:nightly-main-a3", None),
    ("quay.io/ascend/vllm-ascend@sha256:aa", None), ("localhost:5000/x", None), ("", None), (None, None),
])
def test_version_in_a_tag(origin, version):
    assert compatibility.plugin_version(origin) == version


def test_the_two_numbers_of_0_18_0():
    assert compatibility.cann_versions("quay.io/ascend/vllm-ascend:v0.18.0-310p", MATRIX)[0] == ["8.5.1", "9.0.0"]
    assert compatibility.cann_versions("quay.io/ascend/vllm-ascend:v9.9.9", MATRIX) == ([], None)


def test_every_row_has_a_source():
    rows = MATRIX["cann_drivers"] + list(MATRIX["vllm_ascend"].values()) + list(MATRIX["native_models"].values())
    rows += [row for row in MATRIX["families"].values() if not row["supported"]]
    assert [row for row in rows if not row.get("source")] == []


def test_families_and_platforms_agree():
    for name, platform in surveys.PLATFORMS.items():
        for family in platform["families"]:
            assert MATRIX["families"][family]["platform"] == name
            assert MATRIX["families"][family]["image_suffix"] == platform["image_suffix"]
