# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the rehearsal engine image, its patches and its wheels."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[3] / "roles" / "rehearsal_fleet" / "files"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FILES / "engine" / (name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def image():
    return load("build_image")


@pytest.fixture
def wheelhouse():
    return load("wheelhouse")


@pytest.mark.parametrize("name, kept", [
    ("vllm-0.18.0/setup.py", True), ("vllm-0.18.0/vllm/_C.abi3.so", True), ("vllm-0.18.0/tests/models/registry.py", True),
    ("vllm-0.18.0/tests/image.png", False), ("vllm-0.18.0/docs/models/a.md", True), ("vllm-0.18.0/csrc/a.cu", False)])
def test_the_image_keeps_what_patches_meet(image, name, kept):
    assert image.wanted(name, "vllm") is kept


def test_trees_keep_every_byte(image, tmp_path):
    with tarfile.open(tmp_path / "vllm.tar.gz", "w:gz") as archive:
        for name, content in (("vllm-0.18.0/vllm/a.py", b"one\r\ntwo\r\n"), ("vllm-0.18.0/csrc/b.cu", b"b")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    image.trees([(tmp_path / "vllm.tar.gz", "vllm", "vllm")], tmp_path / "trees.tar")
    with tarfile.open(tmp_path / "trees.tar") as made:
        assert made.getnames() == ["vllm/vllm/a.py"]
        assert made.extractfile("vllm/vllm/a.py").read() == b"one\r\ntwo\r\n"


def test_a_source_package_that_is_another_one_is_refused(image, tmp_path, monkeypatch):
    def fetch(words):
        if "--download" in words:
            (tmp_path / "sources" / "x.tar.gz").write_bytes(b"other")
        return ""

    monkeypatch.setattr(image, "run", lambda words, remedy, **environment: fetch(words))
    with pytest.raises(image.Failed, match="expected sha256 0000, found d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"):
        image.source(tmp_path, "x==1", "x.tar.gz", "0000")


def test_sources_come_from_the_index_that_pip_uses(image, monkeypatch):
    said = ":env:.index-url='https://mirror.example.net/simple'\nglobal.cert='/ca.pem'\nglobal.index-url='https://other.example.net/simple'\n"
    monkeypatch.setattr(image, "run", lambda words, remedy: said)
    assert image.index_of_pip() == (["--index-url", "https://mirror.example.net/simple"], {"SSL_CERT_FILE": "/ca.pem"})


def test_a_change_of_the_base_changes_the_inputs(image):
    assert image.inputs_hash("sha256:a") == image.inputs_hash("sha256:a") != image.inputs_hash("sha256:b")


def test_a_missing_tool_is_one_sentence(image):
    with pytest.raises(image.Failed, match="no-such-tool not found; install it"):
        image.run(["no-such-tool"], "install it")


def test_pins_are_exact_and_closed_around_transformers(wheelhouse):
    pins = dict(pin.split("==") for pin in wheelhouse.read_pins(FILES / "patches" / "python-pins.txt"))
    assert pins["transformers"] == "5.5.0"
    assert pins["numpy"].startswith("1.")
    assert {"huggingface-hub", "hf-xet", "httpx", "regex", "tokenizers", "typer"} <= set(pins)


def test_wheels_are_known_by_name_version_and_architecture(wheelhouse, tmp_path):
    for name in ("hf_xet-1.8.0-cp38-abi3-manylinux2014_x86_64.whl", "PyYAML-6.0.3-cp311-cp311-manylinux_2_28_aarch64.whl",
                 "typer-0.21.2-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert wheelhouse.wheel_of("hf-xet==1.8.0", tmp_path, "x86_64") == "hf_xet-1.8.0-cp38-abi3-manylinux2014_x86_64.whl"
    assert wheelhouse.wheel_of("hf-xet==1.8.0", tmp_path, "aarch64") is None
    assert wheelhouse.wheel_of("pyyaml==6.0.3", tmp_path, "aarch64") == "PyYAML-6.0.3-cp311-cp311-manylinux_2_28_aarch64.whl"
    assert wheelhouse.wheel_of("typer==0.21.2", tmp_path, "aarch64") == "typer-0.21.2-py3-none-any.whl"
    assert wheelhouse.wheel_of("typer==0.21", tmp_path, "x86_64") is None


def test_a_full_wheelhouse_is_left_alone_and_check_fetches_nothing(wheelhouse, tmp_path, monkeypatch):
    monkeypatch.setattr(wheelhouse.subprocess, "run", lambda *words, **options: pytest.fail("fetched"))
    assert wheelhouse.fill(tmp_path, ["typer==1"], "x86_64", "3.11", check=True) is True
    (tmp_path / "typer-1-py3-none-any.whl").touch()
    assert wheelhouse.fill(tmp_path, ["typer==1"], "x86_64", "3.11") is False


def test_the_second_patch_keeps_the_line_ends_of_its_files():
    first, second = (path.read_bytes() for path in sorted((FILES / "patches").glob("*.patch")))
    assert b"\r" not in first
    assert second.count(b"\r\n") == 16
    assert b"Rehearsal stand-in" in first
    assert b"Rehearsal stand-in" in second
