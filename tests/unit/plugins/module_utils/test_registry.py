# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading

import pytest
from stub_registry import StubRegistry, digest_of

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import registry

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ORIGIN = "quay.io/ascend/vllm-ascend:v0.18.0rc1"


@pytest.fixture
def stub():
    made = StubRegistry()
    yield made
    made.close()


def client(stub, **options):
    slept = []
    made = registry.Client(stub.host, options.pop("deadline_s", 30.0), insecure=True, sleep=slept.append, **options)
    made.bases = ["http://" + stub.host]
    made.slept = slept
    return made


# --- references


@pytest.mark.parametrize("text, expected", [
    (ORIGIN, ("quay.io", "ascend/vllm-ascend", "v0.18.0rc1", None)),
    ("registry:5000/a/b@" + A, ("registry:5000", "a/b", None, A)),
    ("localhost/a:1@" + A, ("localhost", "a", "1", A)),
    ("127.0.0.1:5000/a", ("127.0.0.1:5000", "a", None, None)),
    ("ubuntu:22.04", ("docker.io", "library/ubuntu", "22.04", None)),
    ("vllm/vllm-openai", ("docker.io", "vllm/vllm-openai", None, None)),
    ("m.daocloud.io/quay.io/ascend/vllm-ascend:x", ("m.daocloud.io", "quay.io/ascend/vllm-ascend", "x", None)),
])
def test_parse_reference(text, expected):
    parts = registry.parse_reference(text)
    assert (parts["registry"], parts["repository"], parts["tag"], parts["digest"]) == expected


@pytest.mark.parametrize("text, words", [
    ("quay.io/a@sha256:12", "is not a digest"), ("quay.io/UPPER", "is not a repository name"), ("quay.io/a:-x", "is not a tag"), ("", "repository name"),
])
def test_parse_reference_names_the_wrong_part(text, words):
    with pytest.raises(registry.RegistryError) as caught:
        registry.parse_reference(text)
    assert words in str(caught.value)


def test_mirror_references_in_the_order_given():
    mirrors = [{"kind": "prefix", "host": "m.daocloud.io"}, {"kind": "host", "host": "quay.nju.edu.cn"}, {"kind": "origin"}, {"kind": "origin"}]
    assert registry.mirror_references(ORIGIN, mirrors) == [
        "m.daocloud.io/quay.io/ascend/vllm-ascend:v0.18.0rc1", "quay.nju.edu.cn/ascend/vllm-ascend:v0.18.0rc1", ORIGIN]
    assert registry.mirror_references(ORIGIN, []) == [ORIGIN]
    with pytest.raises(registry.RegistryError):
        registry.mirror_references(ORIGIN, [{"kind": "proxy", "host": "x.example.net"}])


def test_by_digest_drops_the_tag():
    assert registry.by_digest(ORIGIN, A) == "quay.io/ascend/vllm-ascend@" + A


# --- who is believed


def answer(reference, digest=None, elapsed_s=1.0, error=None):
    return {"reference": reference, "digest": digest, "error": error, "elapsed_s": elapsed_s}


def test_pinned_digest_names_the_liar_and_orders_the_rest_by_time():
    choice = registry.choose([answer("m1", A, 0.5), answer("m2", B, 0.1), answer("m3", A, 0.2), answer("m4", error="refused")], A)
    assert choice["digest"] == A and choice["trusted"] == ["m3", "m1"]
    assert choice["liars"] == [{"reference": "m2", "digest": B}]
    assert choice["silent"] == [{"reference": "m4", "error": "refused"}]
    assert choice["note"] == ""


def test_nobody_has_the_pinned_digest():
    choice = registry.choose([answer("m1", B), answer("m2", error="timed out")], A)
    assert choice["digest"] is None and choice["trusted"] == []
    assert A in choice["note"] and "m1 has " + B in choice["note"] and "m2: timed out" in choice["note"]


def test_without_a_pin_the_origin_decides_against_a_majority():
    choice = registry.choose([answer("m1", B), answer("m2", B), answer("origin", A)], None, "origin")
    assert choice["digest"] == A and [liar["reference"] for liar in choice["liars"]] == ["m1", "m2"]
    assert "taken from the origin" in choice["note"]


def test_without_a_pin_and_origin_the_majority_decides_and_the_first_of_a_tie():
    silent = answer("origin", error="timed out")
    assert registry.choose([answer("m1", B), answer("m2", A), answer("m3", A), silent], None, "origin")["digest"] == A
    tie = registry.choose([answer("m1", B), answer("m2", A), silent], None, "origin")
    assert tie["digest"] == B and "1 of 2 mirrors" in tie["note"]


def test_nobody_answers_at_all():
    assert registry.choose([answer("m1", error="refused")], None)["note"] == "no mirror has the image: m1: refused"


# --- the protocol


def test_digest_by_head_alone(stub):
    wanted = stub.put_image("v1")
    assert client(stub).digest("a/b", "v1") == wanted
    assert [(method, path) for method, path, dummy in stub.seen] == [("HEAD", "/v2/a/b/manifests/v1")]


@pytest.mark.parametrize("head, announce", [(False, True), (True, False), (False, False)])
def test_digest_is_hashed_here_where_head_says_nothing(stub, head, announce):
    wanted = stub.put_image("v1")
    stub.head, stub.announce = head, announce
    assert client(stub).digest("a/b", "v1") == wanted
    assert stub.seen[-1][0] == "GET"


def test_body_that_is_not_what_was_announced(stub):
    stub.put_image("v1")
    stub.lie = A
    with pytest.raises(registry.RegistryError) as caught:
        client(stub).manifest("a/b", "v1")
    assert A in str(caught.value) and "hashes to" in str(caught.value)


def test_truncated_body(stub):
    stub.put_image("v1")
    stub.truncate = True
    with pytest.raises(registry.RegistryError) as caught:
        client(stub).manifest("a/b", "v1")
    assert "closed" in str(caught.value) or "reached" in str(caught.value)


def test_image_of_an_index_for_one_architecture(stub):
    index = stub.put_index("v1", amd64=stub.put_image("x", "amd64", {"k": "amd"}), arm64=stub.put_image("y", "arm64", {"k": "arm"}))
    found = client(stub).image("a/b", "v1", "arm64")
    assert found["digest"] == index and found["architectures"] == ["amd64", "arm64"]
    assert (found["architecture"], found["labels"]) == ("arm64", {"k": "arm"})
    assert client(stub).image("a/b", "v1", "riscv64")["labels"] is None


def test_image_of_one_architecture(stub):
    stub.put_image("v1", "amd64")
    assert client(stub).image("a/b", "v1", "arm64")["architectures"] == ["amd64"]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_authentication(scheme):
    stub = StubRegistry("fleet", "s3cret", scheme)
    wanted = stub.put_image("v1")
    assert client(stub, username="fleet", password="s3cret").digest("a/b", "v1") == wanted
    stub.close()


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
@pytest.mark.parametrize("username", [None, "fleet"])
def test_refused_credentials_make_no_storm_and_are_not_shown(scheme, username):
    stub = StubRegistry("fleet", "s3cret", scheme)
    speaker = client(stub, username=username, password="wr0ng" if username else None)
    with pytest.raises(registry.RegistryError) as caught:
        speaker.digest("a/b", "v1")
    assert caught.value.status == 401 and "registry_password" in str(caught.value) and "wr0ng" not in str(caught.value)
    assert len(stub.seen) <= 2 and speaker.slept == []
    stub.close()


def test_credentials_do_not_follow_a_redirect(stub):
    wanted = stub.put_image("v1")
    front = StubRegistry("fleet", "s3cret")
    front.tags, front.blobs, front.types = stub.tags, dict(stub.blobs), stub.types
    speaker = client(front, username="fleet", password="s3cret")
    assert speaker.digest("a/b", "v1") == wanted
    front.answers = [(307, {"Location": "http://%s/v2/a/b/blobs/%s" % (stub.host, wanted)})]
    speaker.request("/v2/a/b/blobs/" + wanted)
    assert stub.seen[-1][2] is None
    front.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_back_off_then_success(stub, status):
    wanted = stub.put_image("v1")
    stub.answers = [(status, {}), (status, {})]
    speaker = client(stub)
    assert speaker.digest("a/b", "v1") == wanted
    assert len(speaker.slept) == 2 and 0.5 <= speaker.slept[0] < 1.5 and 1.0 <= speaker.slept[1] < 3.0


def test_retry_after_is_honoured(stub):
    stub.put_image("v1")
    stub.answers = [(429, {"Retry-After": "7"})]
    speaker = client(stub)
    speaker.digest("a/b", "v1")
    assert 7 <= speaker.slept[0] < 8


def test_back_off_is_bounded(stub):
    stub.answers = [(503, {})] * 20
    with pytest.raises(registry.RegistryError) as caught:
        client(stub).digest("a/b", "v1")
    assert caught.value.status == 503 and len(stub.seen) == registry.TRIES


def test_retry_after_beyond_the_deadline_is_not_waited_for(stub):
    stub.answers = [(429, {"Retry-After": "3600"})]
    speaker = client(stub)
    with pytest.raises(registry.RegistryError) as caught:
        speaker.digest("a/b", "v1")
    assert "deadline" in str(caught.value) and speaker.slept == []


@pytest.mark.parametrize("value, expected", [("3", 3.25), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.5), (None, 1.5)])
def test_retry_delay(value, expected):
    assert registry.retry_delay(1, value, 0.25) == expected


def test_missing_tag_is_not_retried(stub):
    with pytest.raises(registry.RegistryError) as caught:
        client(stub).digest("a/b", "nope")
    assert caught.value.status == 404 and len(stub.seen) == 1


def test_https_is_tried_first_and_http_only_when_allowed(stub):
    wanted = stub.put_image("v1")
    assert registry.Client(stub.host, 10.0, insecure=True).digest("a/b", "v1") == wanted
    with pytest.raises(registry.RegistryError) as caught:
        registry.Client(stub.host, 10.0, insecure=False, sleep=lambda seconds: None).digest("a/b", "v1")
    assert stub.host in str(caught.value)


# --- all mirrors at once


def test_select_with_a_liar_a_dead_one_and_a_stalled_one(monkeypatch):
    monkeypatch.setattr(registry, "GRACE_S", 1.5)
    good, liar, stalled = StubRegistry(), StubRegistry(), StubRegistry()
    stalled.stall = threading.Event()
    wanted = good.put_image("v1")
    liar.put_image("v1", labels={"evil": "yes"})
    references = ["%s/a/b:v1" % host for host in (liar.host, "127.0.0.1:1", stalled.host, good.host)]
    choice = registry.select(references, wanted, references[-1], deadline_s=60.0, insecure=lambda host: True)
    assert choice["trusted"] == [references[-1]]
    assert [each["reference"] for each in choice["liars"]] == [references[0]]
    assert [each["reference"] for each in choice["silent"]] == references[1:3]
    stalled.stall.set()
    for each in (good, liar, stalled):
        each.close()


def test_select_asks_by_digest_when_every_tag_has_moved(stub):
    old = stub.put_image("v1")
    stub.put_image("v1", labels={"newer": "yes"})
    choice = registry.select([stub.host + "/a/b:v1"], old, deadline_s=5.0, insecure=lambda host: True)
    assert choice["digest"] == old and choice["trusted"] == ["%s/a/b@%s" % (stub.host, old)]
    assert "the tag has moved" in choice["note"]


def test_credentials_reach_only_their_registry():
    own, mirror = StubRegistry("fleet", "s3cret"), StubRegistry("other", "x")
    own.put_image("v1")
    references = ["%s/a/b:v1" % mirror.host, "%s/a/b:v1" % own.host]
    answers = registry.ask_all(references, 5.0, credentials={own.host: ("fleet", "s3cret")}, insecure=lambda host: True)
    assert answers[1]["digest"] and not answers[0]["digest"]
    assert all(authorization is None for dummy, dummy2, authorization in mirror.seen)
    own.close()
    mirror.close()


def test_digest_of_the_stub_is_the_real_thing():
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_by_speed_keeps_the_order_of_what_was_not_measured():
    assert registry.by_speed(["a", "b", "c", "d"], {"a": None, "b": 1.0, "c": 2.0}) == ["c", "b", "a", "d"]
    assert registry.by_speed(["a", "b"], {}) == ["a", "b"]


def test_speed_asks_for_the_start_of_the_biggest_layer_of_the_architecture(stub):
    mine, other = stub.put_image("x", layers=[b"small", b"y" * 100000]), stub.put_image("z", "arm64", layers=[b"z" * 200000])
    stub.put_index("v1", amd64=mine, arm64=other)
    assert registry.Client(stub.host, insecure=True).speed("a/b", "v1", "amd64") > 0
    assert [path.rsplit("/", 1)[-1] for dummy, path, header in stub.seen if "/blobs/" in path] == [digest_of(b"y" * 100000)]


def test_an_image_without_layers_has_no_speed(stub):
    stub.put_image("v1")
    assert registry.Client(stub.host, insecure=True).speed("a/b", "v1") is None


def test_a_mirror_that_fails_while_it_is_measured_comes_last(stub):
    digest = stub.put_image("v1", layers=[b"y" * 1000])
    good, lost = stub.host + "/a/b@" + digest, stub.host + "/a/b@sha256:" + "0" * 64
    speeds = registry.measure([lost, good], insecure=lambda host: True)
    assert speeds[lost] == 0.0 and registry.by_speed([lost, good], speeds) == [good, lost]
