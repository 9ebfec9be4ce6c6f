# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of module bundle: a bundle is sealed, proven, and refused when anything is wrong with it."""

from __future__ import annotations

import hashlib
import json
import pathlib
import types

import pytest
import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.action import bundle
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle as domain
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import bundling, workspace

MANIFEST = b'{"config": {}}'
NAME = hashlib.sha256(MANIFEST).hexdigest()
DIGEST = "sha256:" + NAME
TARGET = "r:5000/ascend/vllm-ascend:v1-f00-amd64"
PLAN = {"hosts": {"a2-1": {"engine": "docker", "engine_path": "/bin/docker", "state_directory": "/var/lib/f"}}, "images": {TARGET: {
    "origin": "quay.io/a:v1", "digest": DIGEST, "architecture": "amd64", "target_digest": DIGEST, "hosts": ["a2-1"],
    "patch_set": {"id": "f00", "patches": [{"file": "1.patch", "sha256": "0" * 64}], "python": {"pins": ["rich==15.0.0"]}}}}}


@pytest.fixture
def act(monkeypatch, tmp_path):
    """Run the action. Returns its result."""
    kept = {"plan": PLAN}
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(workspace, "load", lambda name, default=None: kept[name])
    monkeypatch.setattr(workspace, "save", kept.__setitem__)

    def run(check_mode=False, **args):
        made = object.__new__(bundle.ActionModule)
        made._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        made._display = types.SimpleNamespace(display=lambda line: None)
        made.validate_argument_spec = lambda spec: (None, dict({name: value.get("default") for name, value in spec.items()}, **args))
        return made.run(task_vars={"inventory_hostname": "a2-1", "ansible_play_hosts": ["a2-1"]})

    run.kept = kept
    return run


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """What a bundle is made of; the arguments of the stage seal."""
    for name, files in (("patches", ["1.patch"]), ("wheels", ["rich-15.0.0-py3-none-any.whl"]), ("python", ["paramiko-5.1.0-py3-none-any.whl"]),
                        ("models/m", ["model.safetensors"])):
        (tmp_path / name).mkdir(parents=True)
        for file in files:
            (tmp_path / name / file).write_text(file)
    monkeypatch.setattr(bundling, "controller_pins", lambda: ["paramiko==5.1.0"])
    monkeypatch.setattr(bundling, "collection", lambda target: target.mkdir(exist_ok=True) or (target / "c.tar.gz").write_text("c") and "0.1.0")
    blobs = tmp_path / "made" / domain.BLOBS
    blobs.mkdir(parents=True)
    (blobs / NAME).write_bytes(MANIFEST)
    (blobs / ("f" * 64)).write_text("of an image that is no longer wanted")
    (tmp_path / "made" / "images" / "part.0.json").write_text(json.dumps({domain.key(TARGET): {
        "digest": DIGEST, "blobs": {NAME: len(MANIFEST)}, "media_type": "m"}}))
    (tmp_path / "lock.yml").write_text(yaml.safe_dump({"targets": {TARGET: {"digest": DIGEST, "base_digest": DIGEST, "cann": "8.5.1"}}}))
    return {"path": str(tmp_path / "made"), "patch_directory": str(tmp_path / "patches"), "wheelhouse": str(tmp_path / "wheels"),
            "python": str(tmp_path / "python"), "weights": str(tmp_path / "models"), "images_lock": str(tmp_path / "lock.yml")}


def test_what_is_sealed_is_whole(act, parts):
    sealed = act(stage="seal", **parts)
    assert sealed["changed"], sealed
    root = pathlib.Path(parts["path"])
    assert sorted(domain.parse_manifest((root / domain.MANIFEST).read_text())) == [
        "bundle.json", "collection/c.tar.gz", "images.lock.yml", "images/blobs/sha256/" + NAME, "images/index.json", "images/oci-layout", "patches/1.patch",
        "python/paramiko-5.1.0-py3-none-any.whl", "sbom.cdx.json", "weights/manifest.json", "wheels/rich-15.0.0-py3-none-any.whl"]
    assert act(stage="verify", path=parts["path"], root=sealed["root"])["images"] == [domain.key(TARGET)]
    (entry,) = act.kept["bundle"]["images"].values()
    assert entry["digest"] == DIGEST and entry["cann"] == "8.5.1" and entry["folder"] == parts["path"]
    assert act.kept["bundle"]["lock"]["images"] == {"quay.io/a:v1": DIGEST}


def test_a_plan_without_images_makes_no_bundle(act, parts):
    act.kept["plan"] = dict(act.kept["plan"], images={})
    assert "there is nothing to bundle" in act(stage="seal", **parts)["msg"]


def test_a_second_seal_of_the_same_is_the_same(act, parts):
    first = act(stage="seal", **parts)
    assert act(stage="images", path=parts["path"])["changed"] is False
    second = act(stage="seal", **parts)
    assert second["root"] == first["root"] and not second["changed"]


@pytest.mark.parametrize("harm, words", [
    (lambda root: (root / "patches" / "1.patch").write_text("x"), "patches/1.patch was altered"),
    (lambda root: (root / domain.BLOBS / NAME).unlink(), "lacks images/blobs/sha256/" + NAME),
    (lambda root: (root / "patches" / "2.patch").write_text("x"), "holds patches/2.patch"),
    (lambda root: (root / domain.MANIFEST).write_text(""), "manifest.sha256 was altered"),
    (lambda root: (root / domain.ROOT).unlink(), "is no whole bundle")])
def test_what_was_tampered_with_is_refused_before_any_host(act, parts, harm, words):
    act(stage="seal", **parts)
    harm(pathlib.Path(parts["path"]))
    result = act(stage="verify", path=parts["path"])
    assert result["failed"] and words in result["msg"] and result["msg"].endswith("no host was changed") and "\n" not in result["msg"]
    assert "bundle" not in act.kept


@pytest.mark.parametrize("folder, pin", [("wheels", "rich==15.0.0 of the patch set's pins"), ("python", "paramiko==5.1.0 of the controller's Python")])
def test_a_pin_that_is_not_there_is_found_when_the_bundle_is_made(act, parts, tmp_path, folder, pin):
    for path in (tmp_path / folder).iterdir():
        path.rename(path.with_name(path.name.replace(".0-py3", ".9-py3")))
    result = act(stage="seal", **parts)
    assert result["failed"] and f"would lack {pin}" in result["msg"]
    assert not pathlib.Path(parts["path"], domain.ROOT).exists()


def test_check_mode_says_so_and_does_nothing(act, parts):
    before = sorted(pathlib.Path(parts["path"]).rglob("*"))
    assert act(stage="images", check_mode=True, path=parts["path"])["changed"] and act(stage="seal", check_mode=True, **parts)["changed"]
    assert sorted(pathlib.Path(parts["path"]).rglob("*")) == before


def test_an_image_comes_by_a_job_and_is_proven_here(act, tmp_path, monkeypatch):
    asked, path = [], tmp_path / "new"

    def execute(action, entry, given, task_vars):
        asked.append((entry, given))
        return {"job": {"state": "succeeded", "progress": "", "result": {"changed": False, "blobs": {NAME: len(MANIFEST)}}}}

    monkeypatch.setattr(bundle.lean, "execute", execute)
    content = [b"cut off", MANIFEST]
    connection = types.SimpleNamespace(fetch_file=lambda source, target: pathlib.Path(target).write_bytes(content.pop(0)))
    monkeypatch.setattr(bundle.ActionModule, "_connection", connection, raising=False)
    assert "damaged on its way" in act(stage="images", path=str(path))["msg"]
    assert act(stage="images", path=str(path), registry_username="fleet", registry_password="s3cret")["changed"]
    assert asked[0][0] == "image_job:begin" and asked[0][1]["options"]["reference"] == "r:5000/ascend/vllm-ascend@" + DIGEST
    assert asked[-1][0] == "bundle_host:clean"
    assert "s3cret" not in "".join(part.read_text() for part in path.rglob("*") if part.is_file())
