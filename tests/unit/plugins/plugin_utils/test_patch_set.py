# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import hashlib

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import catalogue, patch_set

PATCH = b"--- a/m\n+++ b/m\n@@ -1 +1 @@\n-a\n+b\r\n"


@pytest.fixture
def manifest(tmp_path):
    for name in ("1.patch", "2.patch"):
        (tmp_path / name).write_bytes(PATCH + name.encode())
    return {"name": "set", "patches": [{"file": "1.patch", "tree": "/src/a"}, {"file": "2.patch", "tree": "/src/b", "sha256": None}],
            "python": {"pins": ["transformers==5.5.0"]}}


def test_load_fills_in_hashes_and_id_and_leaves_the_input_alone(manifest, tmp_path):
    before = copy.deepcopy(manifest)
    loaded = patch_set.load(manifest, str(tmp_path))
    assert manifest == before
    assert [each["sha256"] for each in loaded["patches"]] == [hashlib.sha256(PATCH + name).hexdigest() for name in (b"1.patch", b"2.patch")]
    assert len(loaded["id"]) == 12 and int(loaded["id"], 16) >= 0
    assert patch_set.load(loaded, str(tmp_path)) == loaded


@pytest.mark.parametrize("change", [
    lambda m: m["patches"].reverse(), lambda m: m["patches"][0].update(tree="/src/c"), lambda m: m["python"].update(pins=["transformers==5.5.1"]),
])
def test_id_follows_content(manifest, tmp_path, change):
    before = patch_set.load(manifest, str(tmp_path))["id"]
    change(manifest)
    assert patch_set.load(manifest, str(tmp_path))["id"] != before


def test_id_does_not_follow_names(manifest, tmp_path):
    before = patch_set.load(manifest, str(tmp_path))["id"]
    (tmp_path / "1.patch").rename(tmp_path / "renamed.patch")
    manifest["patches"][0]["file"] = "renamed.patch"
    manifest["name"] = "other"
    assert patch_set.load(manifest, str(tmp_path))["id"] == before


def test_every_bad_file_is_named_in_one_line(manifest, tmp_path):
    (tmp_path / "1.patch").unlink()
    manifest["patches"][1]["sha256"] = "0" * 64
    with pytest.raises(patch_set.PatchSetError) as caught:
        patch_set.load(manifest, str(tmp_path))
    text = str(caught.value)
    assert "1.patch cannot be read: No such file or directory" in text and "2.patch has sha256" in text and "wanted " + "0" * 64 in text
    assert "\n" not in text


def test_patch_dir_that_is_not_set(manifest):
    with pytest.raises(patch_set.PatchSetError) as caught:
        patch_set.load(manifest, None)
    assert "patch_dir is not set" in str(caught.value)


@pytest.mark.parametrize("patch, words", [
    ({"file": "1.patch"}, "has no 'tree'"), ({"tree": "/src"}, "has no 'file'"),
    ({"file": "1.patch", "tree": "src"}, "absolute tree"), ({"file": "../1.patch", "tree": "/src"}, "bare file name"),
])
def test_manifest_that_is_wrong(manifest, tmp_path, patch, words):
    manifest["patches"][0] = patch
    with pytest.raises(patch_set.PatchSetError) as caught:
        patch_set.load(manifest, str(tmp_path))
    assert words in str(caught.value)


def test_built_in_gemma4_set_is_exactly_pinned():
    manifest = catalogue.load()["patch_sets"]["gemma4-v0.18.0rc1"]
    assert [each["tree"] for each in manifest["patches"]] == ["/vllm-workspace/vllm", "/vllm-workspace/vllm-ascend"]
    assert "transformers==5.5.0" in manifest["python"]["pins"]
    assert all(pin.count("==") == 1 for pin in manifest["python"]["pins"])
