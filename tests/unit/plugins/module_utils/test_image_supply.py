# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

import pytest
from fake_engine import FakeEngine, image
from stub_registry import StubRegistry

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import image_supply

OTHER = "sha256:" + "e" * 64


@pytest.fixture
def mirrors():
    made = [StubRegistry() for dummy in range(3)]
    yield made
    for each in made:
        each.close()


def options(reference, **more):
    return dict({"reference": reference, "digest": None, "mirrors": [], "architecture": None, "registry_username": None,
                 "registry_password": None}, **more)


def ensure(engine, wanted, check_mode=False):
    return image_supply.ensure(engine, wanted, check_mode, time.monotonic() + 60)


def references(mirrors):
    return [each.host + "/a/b:v1" for each in mirrors]


def by_digest(mirror, digest):
    return mirror.host + "/a/b@" + digest


def test_present_image_needs_no_network():
    engine = FakeEngine({"r.invalid/n@" + OTHER: image(OTHER)})
    found = ensure(engine, options("r.invalid/n@" + OTHER))
    assert not found["changed"] and found["local_reference"] == "r.invalid/n@" + OTHER and engine.calls == []


def test_present_under_the_name_of_a_mirror():
    engine = FakeEngine({"mirror.invalid/n@" + OTHER: image(OTHER)})
    found = ensure(engine, options("r.invalid/n:v1", digest=OTHER))
    assert not found["changed"] and found["local_reference"] == "mirror.invalid/n@" + OTHER


def test_present_but_for_another_architecture():
    engine = FakeEngine({"r.invalid/n@" + OTHER: image(OTHER, "amd64")})
    with pytest.raises(image_supply.SupplyError) as caught:
        ensure(engine, options("r.invalid/n@" + OTHER, architecture="arm64"))
    assert "already on this host, is for amd64, this host needs arm64" in str(caught.value)


def test_reference_and_digest_that_contradict_each_other():
    with pytest.raises(image_supply.SupplyError):
        ensure(FakeEngine(), options("r.invalid/n@" + OTHER, digest="sha256:" + "f" * 64))


def test_liar_is_put_aside_and_a_dying_mirror_passed_over(mirrors):
    wanted = mirrors[1].put_image("v1")
    mirrors[2].put_image("v1")
    mirrors[0].put_image("v1", labels={"evil": "yes"})
    engine = FakeEngine(remote={by_digest(mirrors[2], wanted): image(wanted), by_digest(mirrors[1], wanted): "unexpected EOF"})
    mirrors[2].answers = [(503, {})]  # a second later than the other: it comes last
    found = ensure(engine, options(references(mirrors)[1], digest=wanted, mirrors=references(mirrors), architecture="amd64"))
    assert found["changed"] and found["mirror"] == by_digest(mirrors[2], wanted)
    assert [each["reference"] for each in found["liars"]] == [references(mirrors)[0]]
    assert "unexpected EOF" in found["note"]
    assert engine.calls == [["pull", by_digest(mirrors[1], wanted)], ["pull", by_digest(mirrors[2], wanted)]]


def test_no_mirror_delivers(mirrors):
    wanted = mirrors[0].put_image("v1")
    with pytest.raises(image_supply.SupplyError) as caught:
        ensure(FakeEngine(), options(references(mirrors)[0], digest=wanted))
    assert "no mirror delivered" in str(caught.value) and "manifest unknown" in str(caught.value)


def test_only_liars_name_them(mirrors):
    mirrors[0].put_image("v1")
    with pytest.raises(image_supply.SupplyError) as caught:
        ensure(FakeEngine(), options(references(mirrors)[0], digest=OTHER))
    assert caught.value.facts["liars"][0]["reference"] == references(mirrors)[0]


def test_single_architecture_copy_is_refused_before_the_pull(mirrors):
    wanted = mirrors[0].put_image("v1", "amd64")
    engine = FakeEngine()
    with pytest.raises(image_supply.SupplyError) as caught:
        ensure(engine, options(references(mirrors)[0], digest=wanted, architecture="arm64"))
    assert "is for amd64, this host needs arm64" in str(caught.value) and engine.calls == []


def test_wrong_architecture_after_the_pull_is_removed_again(mirrors):
    wanted = mirrors[0].put_index("v1", amd64=mirrors[0].put_image("x", "amd64"), arm64=mirrors[0].put_image("y", "arm64"))
    engine = FakeEngine(remote={by_digest(mirrors[0], wanted): image(wanted, "amd64")})
    with pytest.raises(image_supply.SupplyError):
        ensure(engine, options(references(mirrors)[0], digest=wanted, architecture="arm64"))
    assert engine.verbs() == ["pull", "rmi"] and engine.images == {}


def test_engine_that_knows_the_image_by_another_digest(mirrors):
    wanted = mirrors[0].put_image("v1")
    engine = FakeEngine(remote={by_digest(mirrors[0], wanted): image(OTHER)})
    with pytest.raises(image_supply.SupplyError) as caught:
        ensure(engine, options(references(mirrors)[0], digest=wanted))
    assert OTHER in str(caught.value) and wanted in str(caught.value)


def test_check_mode_asks_but_does_not_pull(mirrors):
    wanted = mirrors[0].put_image("v1")
    engine = FakeEngine()
    found = ensure(engine, options(references(mirrors)[0], digest=wanted), check_mode=True)
    assert found["changed"] and found["actions"] == ["pull " + by_digest(mirrors[0], wanted)] and engine.calls == []


def test_without_a_digest_what_the_registry_says_is_taken(mirrors):
    wanted = mirrors[0].put_image("v1")
    engine = FakeEngine(remote={by_digest(mirrors[0], wanted): image(wanted)})
    first = ensure(engine, options(references(mirrors)[0]))
    assert first["changed"] and first["digest"] == wanted and "no digest was pinned" in first["note"]
    assert not ensure(engine, options(references(mirrors)[0]))["changed"]


def test_shares_of_the_time(monkeypatch):
    """A crawling mirror gets half of the time left, the last one all of it."""
    given = []

    class Crawling(FakeEngine):
        def run(self, args, timeout_s=60.0, **more):
            given.append(round(timeout_s))
            return FakeEngine.run(self, args, **more)

    monkeypatch.setattr(image_supply.time, "monotonic", lambda: 1000.0)
    with pytest.raises(image_supply.SupplyError):
        image_supply.pull_first(Crawling(), ["a", "b", "c"], 1800.0, {})
    assert given == [400, 400, 800]


def test_the_fastest_mirror_by_measurement_comes_first(mirrors):
    """The one that answers first is not the one that delivers fastest."""
    layers = [b"small", b"x" * 400000]
    wanted = [each.put_image("v1", layers=layers) for each in mirrors][0]
    mirrors[0].pause_s, mirrors[1].pause_s = 0.1, 0.02
    mirrors[2].answers = [(503, {})]
    engine = FakeEngine(remote={by_digest(each, wanted): image(wanted) for each in mirrors})
    found = ensure(engine, options(references(mirrors)[0], digest=wanted, mirrors=references(mirrors), architecture="amd64"))
    assert [each["reference"] for each in found["speeds"]] == [by_digest(mirrors[number], wanted) for number in (2, 1, 0)]
    assert engine.calls == [["pull", by_digest(mirrors[2], wanted)]] and all(each["bytes_per_s"] > 0 for each in found["speeds"])


def test_one_mirror_is_not_measured(mirrors):
    wanted = mirrors[0].put_image("v1", layers=[b"x" * 400000])
    engine = FakeEngine(remote={by_digest(mirrors[0], wanted): image(wanted)})
    assert "speeds" not in ensure(engine, options(references(mirrors)[0], digest=wanted))
    assert not [path for dummy, path, header in mirrors[0].seen if "/blobs/" in path]


def test_a_mirror_that_crawls_is_held_to_the_next_one(mirrors):
    given = []

    class Watched(FakeEngine):
        def run(self, args, least_bytes_per_s=0.0, silence_s=None, **more):
            given.append((args[1], least_bytes_per_s, silence_s is None))
            return FakeEngine.run(self, args)

    with pytest.raises(image_supply.SupplyError):
        image_supply.pull_first(Watched(), ["a", "b", "c"], time.monotonic() + 60, {"a": 5000.0, "b": 4000.0, "c": None})
    assert given == [("a", 400.0, False), ("b", 0.0, False), ("c", 0.0, True)]
