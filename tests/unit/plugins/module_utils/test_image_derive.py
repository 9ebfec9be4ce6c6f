# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import tarfile
import time

import pytest
from fake_engine import QUIET, FakeEngine, image
from stub_registry import StubRegistry

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import image_derive, image_supply

PATCHES = [{"file": "0001-a.patch", "tree": "/src/a", "sha256": "1" * 64}, {"file": "0002-b.patch", "tree": "/src/b", "sha256": "2" * 64}]
SET = {"id": "abcdef012345", "name": "set", "patches": PATCHES, "python": {"pins": ["transformers==5.5.0"], "constraints": ["numpy<2"]}}
BASE = "sha256:" + "b" * 64


def test_dockerfile_keeps_what_the_base_runs():
    text = image_derive.dockerfile("r/n@" + BASE, image_derive.labels(SET, BASE, "8.5.1"), "nonce")
    lines = text.splitlines()
    assert lines[0] == "FROM r/n@" + BASE and lines[1].startswith("LABEL ")
    for word in ('"vllm-ascend-fleet.patch-set"="abcdef012345"', '"vllm-ascend-fleet.base-digest"="%s"' % BASE, '"vllm-ascend-fleet.cann"="8.5.1"',
                 '"vllm-ascend-fleet.patches"="%s,%s"' % ("1" * 64, "2" * 64), '"vllm-ascend-fleet.build"="nonce"'):
        assert word in lines[1]
    assert [line.split()[0] for line in lines] == ["FROM", "LABEL", "COPY", "RUN", "RUN"]


@pytest.mark.parametrize("change, pinned, expected", [
    ({}, BASE, True), ({}, None, True),
    ({"vllm-ascend-fleet.patch-set": "0" * 12}, BASE, False),
    ({"vllm-ascend-fleet.base-digest": "sha256:" + "c" * 64}, BASE, False),
    ({"vllm-ascend-fleet.base-digest": "sha256:" + "c" * 64}, None, True),
    ({"vllm-ascend-fleet.patches": "1" * 64}, None, False),
])
def test_is_wanted(change, pinned, expected):
    assert image_derive.is_wanted(dict(image_derive.labels(SET, BASE, None), **change), SET, pinned) is expected


def test_image_without_labels_is_not_wanted():
    assert not image_derive.is_wanted(None, SET, None) and not image_derive.is_wanted({}, SET, None)


@pytest.mark.parametrize("text, expected", [
    ('Step 4\nvllm-ascend-fleet: {"error": "x"}\nremoved', {"error": "x"}),
    ('#9 0.31 vllm-ascend-fleet: {"id": "y"}\n', {"id": "y"}),
    ("Step 4\n", None), ("vllm-ascend-fleet: {cut", None),
])
def test_result_is_dug_out_of_the_builders_output(text, expected):
    assert image_derive.marked(text) == expected


# --- a whole derivation, with an engine in memory and registries on loopback


class World:
    def __init__(self, folder):
        self.folder = folder
        self.origin, self.fleet = StubRegistry(), StubRegistry()
        self.base = self.origin.put_image("v1")
        self.origin_reference = self.origin.host + "/ascend/vllm-ascend:v1"
        self.base_name = "%s/ascend/vllm-ascend@%s" % (self.origin.host, self.base)
        self.target = self.fleet.host + "/fleet/vllm-ascend:v1-x"
        self.engine = FakeEngine(remote={self.base_name: image(self.base, name=self.origin.host + "/ascend/vllm-ascend")})
        self.engine.on_push = self.push
        self.engine.build = dict(QUIET, stdout='vllm-ascend-fleet: {"record_sha256": "5e", "verdicts": [{"patch": "0001-a.patch", "verdict": "applies"}]}\n')
        self.staged = os.path.join(str(folder), "staged")
        for number, patch in enumerate(PATCHES):
            path = os.path.join(self.staged, "patches", image_derive.stored_name(number, patch["file"]))
            os.makedirs(os.path.dirname(path))
            with open(path, "wb") as stream:
                stream.write(b"patch\r\n")

    def push(self, reference):
        """The registry has it now."""
        labels = image_derive.labels(SET, self.base, "8.5.1")
        digest = self.fleet.put_image("v1-x", labels=labels)
        return digest

    def run(self, check_mode=False, **more):
        private = os.path.join(str(self.folder), "private%d" % len(os.listdir(str(self.folder))))
        os.makedirs(private)
        options = dict({"origin": self.origin_reference, "digest": None, "mirrors": [], "registries": {}, "architecture": "amd64", "patch_set": SET,
                        "staged": self.staged, "pip_index_url": None, "target": self.target, "nearby": None, "registry_username": None,
                        "registry_password": None}, **more)
        return image_derive.Derivation(self.engine, options, private, check_mode, time.monotonic() + 60).run()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.origin.close()
    made.fleet.close()


def test_build_and_publish_then_nothing(world):
    seen = {}

    def look(args):
        folder = args[-1]
        seen["files"] = sorted(os.path.relpath(os.path.join(where, name), folder) for where, dummy, names in os.walk(folder) for name in names)
        with open(os.path.join(folder, "context", "recipe.json")) as stream:
            seen["recipe"] = json.load(stream)
        with open(os.path.join(folder, "context", "patches", "0000", "0001-a.patch"), "rb") as stream:
            seen["patch"] = stream.read()

    world.engine.on_build = look
    done = world.run()
    assert done["changed"] and done["digest"] == world.fleet.tags["v1-x"] and done["base_digest"] == world.base and done["cann"] == "8.5.1"
    assert done["patches"] == {"0001-a.patch": "1" * 64, "0002-b.patch": "2" * 64}
    assert world.engine.verbs() == ["pull", "run", "build", "build", "images", "push"]
    assert world.engine.labelled == 'FROM %s\nLABEL "vllm-ascend-fleet.record"="5e"\n' % world.target
    assert done["actions"] == ["pull " + world.base_name, "build " + world.target, "push " + world.target]
    assert seen["files"] == ["Dockerfile", "context/image_build.py", "context/patch_series.py", "context/patches/0000/0001-a.patch",
                             "context/patches/0001/0002-b.patch", "context/recipe.json"]
    assert seen["patch"] == b"patch\r\n" and seen["recipe"]["base_digest"] == world.base and seen["recipe"]["pins"] == ["transformers==5.5.0"]
    world.engine.calls = []
    again = world.run()
    assert not again["changed"] and again["digest"] == done["digest"] and again["cann"] == "8.5.1" and world.engine.calls == []


def test_check_mode_asks_and_does_nothing(world):
    told = world.run(check_mode=True, staged=None)
    assert told["changed"] and told["actions"] == ["pull " + world.base_name, "build " + world.target, "push " + world.target]
    assert world.engine.calls == []


def test_files_are_asked_for_before_any_work(world):
    assert world.run(staged=None)["needs_files"] and world.engine.calls == []


def test_wheelhouse_goes_in_and_the_network_is_off(world):
    wheel = world.folder / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    with tarfile.open(os.path.join(world.staged, "wheelhouse.tar"), "w") as archive:
        archive.add(str(wheel), arcname=wheel.name)
    found = []
    world.engine.on_build = lambda args: found.append((args, os.listdir(os.path.join(args[-1], "context", "wheelhouse"))))
    world.run()
    args, wheels = found[0]
    assert args[args.index("--network") + 1] == "none" and wheels == [wheel.name]


def test_pins_without_a_wheelhouse_need_the_network(world):
    found = []
    world.engine.on_build = found.append
    world.run()
    assert "--network" not in found[0]


def test_wheelhouse_archive_with_a_path_in_it(world):
    with tarfile.open(os.path.join(world.staged, "wheelhouse.tar"), "w") as archive:
        archive.add(os.path.join(world.staged, "patches", "0000", "0001-a.patch"), arcname="../evil.whl")
    with pytest.raises(image_supply.SupplyError):
        world.run()


def test_failed_build_tells_the_reason_and_leaves_nothing(world):
    world.engine.build = dict(QUIET, rc=1, stdout='vllm-ascend-fleet: {"error": "0002-b.patch conflicts with /src/b: m.py hunk 2"}\n', stderr="exit code 1")
    with pytest.raises(image_supply.SupplyError) as caught:
        world.run()
    assert str(caught.value) == world.target + " was not built: 0002-b.patch conflicts with /src/b: m.py hunk 2"
    assert "push" not in world.engine.verbs() and world.target not in world.engine.images
    assert world.engine.calls[-1][:3] == ["images", "--quiet", "--no-trunc"] and "dangling=true" in world.engine.calls[-1]


def test_base_that_cannot_run_python(world):
    world.engine.cann = dict(QUIET, rc=127, stderr='exec: "python3": executable file not found in $PATH')
    with pytest.raises(image_supply.SupplyError) as caught:
        world.run()
    assert "cannot run python3" in str(caught.value)


def test_registry_that_holds_something_else_after_the_push(world):
    def push(reference):
        world.fleet.put_image("v1-x", labels={"someone": "else"})
        return BASE

    world.engine.on_push = push
    with pytest.raises(image_supply.SupplyError) as caught:
        world.run()
    assert "was pushed as %s, but the registry holds %s" % (BASE, world.fleet.tags["v1-x"]) in str(caught.value)


def test_fleets_registry_that_is_down(world):
    with pytest.raises(image_supply.SupplyError) as caught:
        world.run(target="127.0.0.1:1/fleet/x:v1")
    assert "the fleet's registry does not answer" in str(caught.value)


def test_index_with_credentials_is_refused(world):
    with pytest.raises(image_supply.SupplyError) as caught:
        world.run(pip_index_url="https://me:s3cret@index.example.net/simple")
    assert "s3cret" not in str(caught.value) and world.engine.calls == []


def test_another_base_is_built_anew(world):
    world.run()
    world.engine.calls = []
    newer = world.origin.put_image("v1", labels={"newer": "yes"})
    name = "%s/ascend/vllm-ascend@%s" % (world.origin.host, newer)
    world.engine.remote[name] = image(newer)
    assert world.run(digest=newer)["base_digest"] == newer and "build" in world.engine.verbs()


def test_without_a_patch_set_the_base_is_copied_once(world):
    def push(reference):
        world.fleet.blobs.update(world.origin.blobs)
        world.fleet.types.update(world.origin.types)
        world.fleet.tags["v1-x"] = world.base
        return world.base

    world.engine.on_push = push
    done = world.run(patch_set=None, staged=None)
    assert done["changed"] and done["digest"] == world.base and world.engine.verbs() == ["pull", "run", "tag", "push"]
    world.engine.calls = []
    again = world.run(patch_set=None, staged=None)
    assert not again["changed"] and again["base_digest"] == world.base and world.engine.calls == []


def test_mirrors_come_from_the_catalogue(world):
    mirror = {"registries": {"quay.invalid": {"mirrors": [{"kind": "host", "host": world.origin.host}, {"kind": "origin"}]}}}
    done = world.run(origin="quay.invalid/ascend/vllm-ascend:v1", digest=world.base, **mirror)
    assert done["actions"][0] == "pull " + world.base_name


def test_what_the_fleets_registry_has_of_the_base_is_not_brought_over_the_wan(world):
    inner = world.fleet.put_image("v1-plain-amd64")
    nearby = "%s/fleet/vllm-ascend@%s" % (world.fleet.host, inner)
    world.engine.remote[nearby] = image(inner, name=world.fleet.host + "/fleet/vllm-ascend")
    done = world.run(digest=world.base, nearby=nearby)
    assert done["actions"][0] == "pull " + nearby and done["base_digest"] == world.base and not world.origin.seen


def test_what_the_fleets_registry_lacks_after_all_comes_from_the_mirrors(world):
    nearby = "%s/fleet/vllm-ascend@sha256:%s" % (world.fleet.host, "0" * 64)
    done = world.run(digest=world.base, nearby=nearby)
    assert done["actions"][0] == "pull " + world.base_name and nearby in done["note"]


def test_the_origin_never_hears_of_the_fleets_password(world):
    world.origin.answers.append((401, {"WWW-Authenticate": 'Basic realm="origin"'}))
    with pytest.raises(image_supply.SupplyError):
        world.run(registry_username="fleet", registry_password="secret")
    assert world.origin.seen and not [each for each in world.origin.seen if each[2]]
