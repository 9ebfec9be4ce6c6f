# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blobs on a host: collected from a registry, proven when they come, served to the engine, and gone afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request

import pytest
from fake_engine import FakeEngine, image
from stub_registry import MANIFEST, StubRegistry

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, bundle_host, container_cli, image_job, registry
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_supply import SupplyError


def sha(data):
    return hashlib.sha256(data).hexdigest()


LAYER = b"layer" * 1000
CONFIG = json.dumps({"architecture": "amd64", "config": {}}).encode()
TEXT = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": "sha256:" + sha(CONFIG), "size": len(CONFIG)},
                   "layers": [{"digest": "sha256:" + sha(LAYER), "size": len(LAYER)}]}).encode()
BLOBS = {sha(each): each for each in (LAYER, CONFIG, TEXT)}
REFERENCE = bundle.reference("r/n:1", "sha256:" + sha(TEXT))


@pytest.fixture
def options(tmp_path):
    return {"reference": REFERENCE, "digest": None, "mirrors": [], "architecture": "amd64", "engine": "docker", "engine_path": "/bin/true",
            "state_directory": str(tmp_path), "registry_username": None, "registry_password": None, "timeout_s": 30,
            "blobs": {name: len(data) for name, data in BLOBS.items()}}


@pytest.fixture
def folder(options):
    place = bundle_host.folder_of(options)
    os.makedirs(place)
    for name, data in BLOBS.items():
        with open(os.path.join(place, name), "wb") as stream:
            stream.write(data)
    return place


@pytest.fixture
def server(folder):
    made = bundle_host.serve(folder, ("127.0.0.1", 0))
    yield "http://127.0.0.1:%d" % made.server_address[1]
    made.shutdown()
    made.server_close()


def test_the_blobs_of_an_image_come_from_its_registry(options, monkeypatch):
    source = StubRegistry()
    try:
        for data in (LAYER, CONFIG):
            source.put(data)
        source.put(TEXT, MANIFEST)
        monkeypatch.setattr(container_cli, "Engine", lambda name, path: FakeEngine())
        said = []
        found = bundle_host.collect(dict(options, reference="%s/n@sha256:%s" % (source.host, sha(TEXT))), said.append)
        assert found["blobs"] == options["blobs"] and said[-1].startswith("0.0 MB of 0.0 MB from 127.0.0.1")
        place = bundle_host.folder_of(options)
        assert {name: sha(open(os.path.join(place, name), "rb").read()) for name in os.listdir(place)} == {name: name for name in BLOBS}
        source.blobs["sha256:" + sha(LAYER)] = b"another"
        os.unlink(os.path.join(place, sha(LAYER)))
        monkeypatch.setattr(registry, "retry_delay", lambda *given: 0.0)
        with pytest.raises(registry.RegistryError, match="do not hash to it"):
            bundle_host.collect(dict(options, reference="%s/n@sha256:%s" % (source.host, sha(TEXT))), said.append)
        assert not os.path.exists(os.path.join(place, sha(LAYER)))
    finally:
        source.close()


def test_only_what_is_lacking_is_copied(options, folder, monkeypatch):
    engine = FakeEngine()
    monkeypatch.setattr(container_cli, "Engine", lambda name, path: engine)
    os.unlink(os.path.join(folder, sha(LAYER)))
    given = {"options": options, "blobs": options["blobs"]}
    assert bundle_host.lacking(given) == {"blobs": [sha(LAYER)]}
    # Under another name it is of no use to a release that names this one.
    engine.images["r/n@sha256:" + sha(TEXT)] = image("sha256:" + sha(TEXT))
    assert bundle_host.lacking(given) == {"blobs": [sha(LAYER)]}
    engine.images[REFERENCE] = image("sha256:" + sha(TEXT))
    assert bundle_host.lacking(given)["blobs"] is None
    with pytest.raises(SupplyError, match="make room"):
        engine.images.clear()
        bundle_host.lacking({"options": options, "blobs": {sha(LAYER): 1 << 60}})


def test_a_blob_that_was_damaged_on_its_way_is_not_taken(options, folder, tmp_path):
    os.unlink(os.path.join(folder, sha(LAYER)))
    incoming = tmp_path / "incoming"
    incoming.write_bytes(LAYER[:-1])
    with pytest.raises(SupplyError, match="damaged on its way"):
        bundle_host.take({"options": options, "path": str(incoming), "name": sha(LAYER)})
    assert sha(LAYER) not in os.listdir(folder)
    incoming.write_bytes(LAYER)
    bundle_host.take({"options": options, "path": str(incoming), "name": sha(LAYER)})
    assert sha(LAYER) in os.listdir(folder) and not incoming.exists()


def test_an_engine_gets_manifests_and_blobs_and_nothing_else(server):
    with urllib.request.urlopen(server + "/v2/n/manifests/sha256:" + sha(TEXT)) as answer:
        assert answer.read() == TEXT and answer.headers["Content-Type"] == MANIFEST and answer.headers["Docker-Content-Digest"] == "sha256:" + sha(TEXT)
    with urllib.request.urlopen(server + "/v2/n/blobs/sha256:" + sha(LAYER)) as answer:
        assert answer.read() == LAYER
    assert urllib.request.urlopen(server + "/v2/").status == 200
    for path in ("/v2/n/blobs/sha256:../../etc/passwd", "/v2/n/blobs/sha256:" + "0" * 64, "/v2/n/tags/list", "/"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(server + path)


def test_an_image_is_loaded_and_its_blobs_are_gone(options, folder, monkeypatch):
    monkeypatch.setattr(bundle_host, "serve", lambda place, real=bundle_host.serve: real(place, ("127.0.0.1", 0)))
    said = []
    engine, teller = FakeEngine(remote={REFERENCE: image("sha256:" + sha(TEXT))}), image_job.Teller(said.append, lambda: 0.0)
    found = bundle_host.load(engine, options, 1e12, teller)
    assert found["changed"] and found["local_reference"] == REFERENCE and found["digest"] == "sha256:" + sha(TEXT)
    assert teller.sizes == {sha(LAYER)[:12]: len(LAYER)} and not os.path.exists(folder)


def test_a_pull_that_fails_leaves_the_blobs_for_the_next_run(options, folder, monkeypatch):
    monkeypatch.setattr(bundle_host, "serve", lambda place, real=bundle_host.serve: real(place, ("127.0.0.1", 0)))
    with pytest.raises(container_cli.CommandError):
        bundle_host.load(FakeEngine(), options, 1e12, image_job.Teller(lambda text: None, lambda: 0.0))
    assert len(os.listdir(folder)) == 3
