# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from stub_registry import StubRegistry

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import registry, registry_copy
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_supply import SupplyError

LAYERS = (os.urandom(5000), os.urandom(3000))
NAME = "%s/ascend/vllm-ascend:v1"


class World:
    """Two mirrors, the second one the origin, that hold an index, and a registry with a password."""

    def __init__(self):
        self.mirror, self.origin, self.fleet = StubRegistry(), StubRegistry(), StubRegistry("fleet", "secret")
        for stub in (self.mirror, self.origin):
            other = stub.put_image("arm", "arm64", layers=(b"a" * 4000,))
            self.image = stub.put_image("intel", "amd64", layers=LAYERS)
            self.index = stub.put_index("v1", amd64=self.image, arm64=other)

    def run(self, check_mode=False, **more):
        options = dict({
            "origin": NAME % self.origin.host, "digest": None, "mirrors": [NAME % self.mirror.host, NAME % self.origin.host], "registries": {},
            "architecture": "amd64", "target": self.fleet.host + "/ascend/vllm-ascend:v1-plain-amd64", "known": None, "registry_username": "fleet",
            "registry_password": "secret", "timeout_s": 60}, **more)
        return registry_copy.Copy(options, check_mode, insecure=lambda registry: True, sleep=lambda seconds: None).run()

    def blobs_asked(self, stub):
        return [path for method, path, dummy in stub.seen if method == "GET" and "/blobs/" in path]


@pytest.fixture
def world():
    made = World()
    yield made
    for stub in (made.mirror, made.origin, made.fleet):
        stub.close()


def test_one_architecture_is_copied_byte_for_byte_and_only_once(world):
    first = world.run()
    assert first["changed"] and first["digest"] == world.image == world.fleet.tags["v1-plain-amd64"] and first["base_digest"] == world.index
    assert all(each in world.fleet.blobs.values() for each in LAYERS) and b"a" * 4000 not in world.fleet.blobs.values()
    assert first["bytes"] >= 8000 and not world.fleet.uploads
    again = world.run()
    assert not again["changed"] and again["bytes"] == 0 and again["digest"] == world.image


def test_credentials_go_to_the_fleets_registry_alone(world):
    world.run()
    assert not [each for stub in (world.mirror, world.origin) for each in stub.seen if each[2]]


def test_what_is_known_needs_no_mirror(world):
    first = world.run()
    for stub in (world.mirror, world.origin):
        stub.seen.clear()
    again = world.run(digest=first["base_digest"], known=first["digest"])
    assert not again["changed"] and again["digest"] == first["digest"] and not world.mirror.seen + world.origin.seen
    moved = world.run(digest=first["base_digest"], known="sha256:" + "0" * 64)
    assert not moved["changed"] and world.origin.seen, "another digest than the one that is known has to be proven"


def test_what_the_registry_has_already_is_not_asked_for(world):
    # The smaller one; of the bigger one a piece is asked for to measure the mirrors.
    digest = world.fleet.put(LAYERS[1])
    made = world.run()
    assert made["changed"] and not [path for stub in (world.mirror, world.origin) for path in world.blobs_asked(stub) if path.endswith(digest)]


def test_check_mode_takes_a_registry_that_is_to_come_for_empty(world):
    target = "127.0.0.1:9/ascend/vllm-ascend:v1-plain-amd64"
    made = world.run(check_mode=True, target=target)
    assert made["changed"] and made["digest"] is None and "127.0.0.1:9 does not answer and is taken for an empty one" in made["note"]
    with pytest.raises(SupplyError, match="the fleet's registry does not answer"):
        world.run(target=target)


def test_check_mode_writes_nothing(world):
    made = world.run(check_mode=True)
    assert made["changed"] and made["digest"] is None and made["actions"] and not world.fleet.blobs and not world.fleet.uploads


def test_where_one_breaks_off_the_next_goes_on(world, monkeypatch):
    monkeypatch.setattr(registry_copy, "BLOCK", 512)
    monkeypatch.setattr(registry, "measure", lambda references, *_rest, **_more: {each: 9.0 if world.mirror.host in each else 1.0 for each in references})
    true_image = registry.Client.blob

    def blob(self, repository, digest, offset=0):
        world.mirror.truncate = self.registry == world.mirror.host
        return true_image(self, repository, digest, offset)

    monkeypatch.setattr(registry.Client, "blob", blob)
    made = world.run()
    assert made["digest"] == world.image and "broke off" in made["note"] and not world.fleet.uploads
    assert all(each in world.fleet.blobs.values() for each in LAYERS)


def test_a_mirror_that_sends_damage_is_named_and_replaced(world, monkeypatch):
    monkeypatch.setattr(registry, "measure", lambda references, *_rest, **_more: {each: 9.0 if world.mirror.host in each else 1.0 for each in references})
    world.mirror.damage = world.mirror.put(LAYERS[0])
    made = world.run()
    assert made["digest"] == world.image and "damaged" in made["note"] and world.mirror.host in made["note"] and not world.fleet.uploads
    assert LAYERS[0] in world.fleet.blobs.values()


def test_damage_everywhere_leaves_nothing(world):
    for stub in (world.mirror, world.origin):
        stub.damage = stub.put(LAYERS[1])
    with pytest.raises(SupplyError, match="no mirror delivered sha256:"):
        world.run()
    assert "v1-plain-amd64" not in world.fleet.tags and not world.fleet.uploads


def test_a_mirror_with_another_digest_is_a_liar(world):
    world.mirror.put_image("v1", "amd64", layers=(b"evil" * 500,))
    made = world.run(digest=world.index)
    assert [each["reference"] for each in made["liars"]] == [NAME % world.mirror.host] and made["digest"] == world.image


def test_an_architecture_that_there_is_not(world):
    with pytest.raises(SupplyError, match="is for amd64, arm64, this fleet needs riscv64"):
        world.run(architecture="riscv64")
    with pytest.raises(SupplyError, match="is not for amd64"):
        world.run(mirrors=[(NAME % world.origin.host).replace(":v1", ":arm")])


def test_the_fleets_registry_refuses_the_password(world):
    with pytest.raises(SupplyError, match="the fleet's registry does not answer for .*credentials of fleet"):
        world.run(registry_password="wrong")
