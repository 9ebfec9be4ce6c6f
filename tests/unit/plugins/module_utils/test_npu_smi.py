# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import glob
import json
import os

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures", "npu-smi")
NAMES = sorted(os.path.basename(path)[:-5] for path in glob.glob(os.path.join(FIXTURES, "*.json")))
BOOKKEEPING = ("source", "url", "provenance", "notes", "driver_version_line")


def text_of(name):
    with open(os.path.join(FIXTURES, name + ".txt")) as stream:
        return stream.read()


def label_of(name):
    with open(os.path.join(FIXTURES, name + ".json")) as stream:
        return dict((key, value) for key, value in json.load(stream).items() if key not in BOOKKEEPING)


def reading(text):
    result = npu_smi.parse_info(text)
    result.pop("excerpt", None)
    return result


def test_there_are_fixtures():
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_fixture(name):
    assert reading(text_of(name)) == label_of(name)
