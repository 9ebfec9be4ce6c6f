# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds, what is wrong with one, and what it means for a plan."""

from __future__ import annotations

import copy
import hashlib

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle

A, B = "a" * 64, "b" * 64
DIGEST = "sha256:" + A
TARGET = "registry.example.net:5000/ascend/vllm-ascend:v1-f00-amd64"
NAME = "ascend/vllm-ascend:v1-f00-amd64"


def test_the_manifest_is_sorted_and_comes_back():
    text = bundle.manifest_text({"b": B, "a/x": A})
    assert text == f"{A}  a/x\n{B}  b\n"
    assert bundle.parse_manifest(text) == {"b": B, "a/x": A}
    assert bundle.root_hash(text) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("line", ["short  a", f"{A}  ../a", f"{A}  /etc/passwd", f"{A} a"])
def test_a_manifest_of_another_kind_is_refused(line):
    with pytest.raises(bundle.BundleError, match="none of ours"):
        bundle.parse_manifest(line)


@pytest.mark.parametrize("found, words", [
    ({"a": A}, ["/b lacks c", "copy that file again"]), ({"a": B, "c": B}, ["a was altered", "copy that file again"]),
    ({"a": A, "c": B, "d": A}, ["holds d", "remove it"]), ({"a": A, "c": B}, [])])
def test_a_file_that_is_wrong_is_named_with_its_remedy(found, words):
    said = bundle.problems("/b", {"a": A, "c": B}, found)
    assert len(said) == bool(words) and all(word in said[0] for word in words)


@pytest.mark.parametrize("claimed, wanted, words", [(A, "", None), (A, A, None), (B, "", "copy the bundle again"), (A, B, "bundle_root")])
def test_the_root_hash_holds_the_manifest(claimed, wanted, words):
    said = bundle.root_problem("/b", A, claimed, wanted)
    assert said is None if words is None else words in said


@pytest.mark.parametrize("file, package", [
    ("huggingface_hub-1.33.0-py3-none-any.whl", ("huggingface-hub", "1.33.0")), ("PyYAML-6.0.3-cp311-cp311-manylinux_2_28_x86_64.whl", ("pyyaml", "6.0.3")),
    ("typing_extensions-4.16.0.tar.gz", ("typing-extensions", "4.16.0")), ("README.md", None)])
def test_a_package_by_its_file(file, package):
    assert bundle.package_of(file) == package


def test_a_pin_without_a_package_is_named():
    files = ["huggingface_hub-1.33.0-py3-none-any.whl", "pyyaml-6.0.2-cp311-cp311-linux_x86_64.whl"]
    assert bundle.lacking(["Huggingface.Hub==1.33.0", "pyyaml==6.0.3"], files) == ["pyyaml==6.0.3"]
    with pytest.raises(bundle.BundleError, match="would lack pyyaml==6.0.3 of the pins: no such package in /w; put it there"):
        bundle.refuse_lacking(["pyyaml==6.0.3"], files, "the pins", "/w")


def test_an_image_is_named_without_its_registry():
    assert bundle.key(TARGET) == NAME
    assert bundle.reference(TARGET, DIGEST) == "127.0.0.1:5380/ascend/vllm-ascend@" + DIGEST


@pytest.mark.parametrize("name, blob", [(A, True), ("../" + A, False), (A[:-1], False), (A.upper(), False)])
def test_only_a_hash_is_a_blob(name, blob):
    assert bundle.is_blob(name) is blob


def test_an_image_that_is_not_there_or_another_is_refused():
    bundle.refuse_lacking_images("/b", {NAME: {"digest": DIGEST}}, {TARGET: {"target_digest": DIGEST}})
    with pytest.raises(bundle.BundleError, match="has no image .*; it has none; make it anew with"):
        bundle.refuse_lacking_images("/b", {}, {TARGET: {"target_digest": DIGEST}})
    with pytest.raises(bundle.BundleError, match="the lock file wants sha256:bb.*delete that target"):
        bundle.refuse_lacking_images("/b", {NAME: {"digest": DIGEST}}, {TARGET: {"target_digest": "sha256:" + B}})


def test_what_the_fleet_has_settled_on_comes_first_and_learns_the_rest():
    lock = {"images": {"o:1": "sha256:" + B}, "targets": {}, "patches": {}}
    before = copy.deepcopy(lock)
    found = bundle.merged(lock, {NAME: {"digest": DIGEST}}, {"images": {"o:1": DIGEST, "o:2": DIGEST}, "patches": {"p": A}})
    assert found["images"] == {"o:1": "sha256:" + B, "o:2": DIGEST} and found["patches"] == {"p": A} and lock == before
    (entry,) = bundle.learned({TARGET: {"origin": "o:2"}, "r/other:1": {"origin": "o:1"}}, {NAME: {"digest": DIGEST, "base_digest": DIGEST}})
    assert entry["target"] == TARGET and entry["origin"] == "o:2" and entry["digest"] == DIGEST


def test_the_list_of_parts_names_each_and_is_the_same_for_the_same():
    hashes = {"wheels/rich-15.0.0-py3-none-any.whl": A, "patches/1.patch": B, "collection/c.tar.gz": A, "images/blobs/sha256/" + A: A}
    images, weights = {NAME: {"digest": DIGEST}}, {"m": {"model.safetensors": {"sha256": B, "bytes": 3}}}
    made = bundle.sbom("0.1.0", hashes, images, weights)
    assert made == bundle.sbom("0.1.0", dict(reversed(list(hashes.items()))), images, weights)
    assert made["bomFormat"] == "CycloneDX" and made["specVersion"] == "1.5"
    parts = {part["name"]: part for part in made["components"]}
    assert parts["ascend/vllm-ascend"]["purl"] == "pkg:oci/vllm-ascend@sha256%3A" + A
    assert parts["rich"]["purl"] == "pkg:pypi/rich@15.0.0" and parts["rich"]["hashes"] == [{"alg": "SHA-256", "content": A}]
    assert parts["patches/1.patch"]["type"] == "file" and parts["m"]["type"] == "machine-learning-model"
    assert parts["vllm_ascend.fleet"]["version"] == "0.1.0" and len(parts) == 5, "the blobs are told by their image"
    assert len({part["bom-ref"] for part in made["components"]}) == 5
