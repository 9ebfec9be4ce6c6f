# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs inside of the image, run here on a tree of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import image_build, patch_series

PATCH = b"""--- a/m.py
+++ b/m.py
@@ -1,2 +1,2 @@
 first = 1
-second = 2
+second = %s
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that is copied into an image, and a tree to patch."""
    (tmp_path / "patches" / "0000").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "m.py").write_bytes(b"first = 1\nsecond = 2\n")
    monkeypatch.setattr(image_build, "HERE", str(tmp_path))
    return tmp_path


def recipe(here, value=b"3", pins=()):
    data = PATCH % value
    (here / "patches" / "0000" / "1.patch").write_bytes(data)
    return {
        "id": "x" * 12,
        "name": "set",
        "record": str(here / "share" / "patch_set.json"),
        "base_digest": "sha256:1",
        "wheelhouse": False,
        "index_url": None,
        "pins": list(pins),
        "constraints": [],
        "patches": [{"file": "1.patch", "tree": str(here / "tree"), "sha256": hashlib.sha256(data).hexdigest(), "stored": "0000/1.patch"}],
    }


def test_build_leaves_a_record_for_attestation(here):
    told = image_build.build(recipe(here), patch_series)
    with open(recipe(here)["record"], "rb") as stream:
        data = stream.read()
    content = json.loads(data)
    assert told["record_sha256"] == hashlib.sha256(data).hexdigest() and content["imported"] == image_build.imported("vllm")
    with open(str(here / "tree" / "m.py"), "rb") as stream:
        assert content["files"] == {str(here / "tree"): {"m.py": hashlib.sha256(stream.read()).hexdigest()}}
    assert content["verdicts"] == [{"patch": "1.patch", "tree": str(here / "tree"), "verdict": "applies"}]


def test_patched_file_that_does_not_compile(here):
    with pytest.raises(image_build.BuildError) as caught:
        image_build.build(recipe(here, b"("), patch_series)
    assert "tree/m.py does not compile" in str(caught.value) and not (here / "share").exists()


def test_a_patched_tree_that_nobody_imports_is_refused(here, monkeypatch):
    (here / "tree" / "vllm").mkdir()
    (here / "tree" / "vllm" / "__init__.py").touch()
    monkeypatch.setattr(image_build, "imported", lambda name: "/usr/lib/python3/site-packages/vllm/__init__.py")
    with pytest.raises(image_build.BuildError) as caught:
        image_build.build(recipe(here), patch_series)
    assert "tree, but vllm is imported from /usr/lib/python3/site-packages/vllm" in str(caught.value) and not (here / "share").exists()
    monkeypatch.setattr(image_build, "imported", lambda name: str(here / "tree" / "vllm" / "__init__.py"))
    (here / "tree" / "m.py").write_bytes(b"first = 1\nsecond = 2\n")
    assert image_build.build(recipe(here), patch_series)["imported"] == str(here / "tree" / "vllm" / "__init__.py")


def test_conflict_is_one_line(here):
    (here / "tree" / "m.py").write_bytes(b"first = 1\nsecond = 99\n")
    with pytest.raises(image_build.BuildError) as caught:
        image_build.build(recipe(here), patch_series)
    assert "m.py hunk 1 (line 2): the text differs, expected 'second = 2', found 'second = 99'" in str(caught.value)


def test_runs_as_a_plain_file_beside_patch_series(here):
    for module in (image_build, patch_series):
        shutil.copy(module.__file__, str(here))
    with open(str(here / "recipe.json"), "w") as stream:
        json.dump(dict(recipe(here, b"("), pins=[]), stream)
    done = subprocess.run([sys.executable, str(here / "image_build.py"), "build"], stdout=subprocess.PIPE, check=False, cwd="/",
                          env={"PATH": os.environ["PATH"]})
    line = done.stdout.decode().splitlines()[-1]
    assert done.returncode == 1 and "does not compile" in json.loads(line[len(image_build.MARK):])["error"]


def test_cann_from_standard_input():
    with open(image_build.__file__, "rb") as stream:
        done = subprocess.run([sys.executable, "-", "cann"], stdin=stream, stdout=subprocess.PIPE, check=True)
    assert set(json.loads(done.stdout.decode()[len(image_build.MARK):])) == {"cann"}


def test_cann_version(tmp_path):
    info = tmp_path / "x86_64-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir()
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.5.1\ninnerversion=V100\n")
    assert image_build.read_cann((str(tmp_path / "*-linux" / info.name),)) == "8.5.1"
    assert image_build.read_cann((str(tmp_path / "nothing"),)) is None


def test_only_unmet_pins_are_installed():
    installed = {"transformers": "4.57.6", "typer": "0.21.2"}.get
    assert image_build.unmet_pins(["transformers==5.5.0", "typer==0.21.2", "hf-xet==1.8.0"], installed) == ["transformers==5.5.0", "hf-xet==1.8.0"]


@pytest.mark.parametrize("pin", ["transformers", "transformers>=5", "transformers==5.*", "transformers=="])
def test_pin_that_is_not_exact(pin):
    with pytest.raises(image_build.BuildError):
        image_build.unmet_pins([pin], lambda name: None)


def test_pip_from_a_wheelhouse_asks_no_index():
    command = image_build.pip_command(["a==1"], "/w", "https://index.example.net/simple", "/c.txt")
    assert command[-3:] == ["--constraint", "/c.txt", "a==1"]
    assert "--no-deps" in command and "--no-index" in command and "--index-url" not in command
    assert "--index-url" in image_build.pip_command(["a==1"], None, "https://index.example.net/simple", None)


def test_failed_import_tells_its_last_line(tmp_path, monkeypatch):
    (tmp_path / "broken_by_patch.py").write_text("raise RuntimeError('no huggingface-hub')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(image_build.BuildError) as caught:
        image_build.prove_imports(["json", "broken_by_patch"])
    assert str(caught.value) == "after patching, import broken_by_patch fails: RuntimeError: no huggingface-hub"


def test_transformers_is_imported_when_it_is_pinned():
    assert image_build.imports_of(["regex==1", "transformers==5.5.0"]) == ["transformers"]
    assert image_build.imports_of(["regex==1"]) == []
