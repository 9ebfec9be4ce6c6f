# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull as a job: what it says on its way, what it leaves, and where the password goes."""

from __future__ import annotations

import json
import os

import pytest
from fake_engine import FakeEngine, image

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_job, image_supply, job_host, registry

DIGEST = "sha256:" + "a" * 64
NAME = "r.invalid:5000/n@" + DIGEST
OPTIONS = {"reference": NAME, "digest": None, "mirrors": [], "architecture": None, "state": "present", "engine": "docker", "engine_path": "/bin/true",
           "registry_username": "fleet", "registry_password": "s3cret", "timeout_s": 100, "state_directory": "/nowhere", "systemctl": "systemctl",
           "systemd_run": "systemd-run", "patience_s": 300}


@pytest.mark.parametrize("layers, whole, sizes, rate, words", [
    ({"a": 1e6}, set(), {"a": 3e6, "b": 1e6}, None, "1.0 MB of 4.0 MB (25 %), from r"),
    ({"a": 1e6}, {"b"}, {"a": 3e6, "b": 1e6}, 2.5e6, "2.0 MB of 4.0 MB (50 %), 2.5 MB/s, from r"),
    ({"a": 2.9e6}, {"a"}, {"a": 3e9, "b": 1e9}, 1e6, "3.0 GB of 4.0 GB (75 %), 1.0 MB/s, from r"),
    ({"a": 2e6}, {"a", "b"}, {"a": 3e6, "b": 1e6}, 1e6, "4.0 MB are here, unpacking"),
    ({"a": 2e6}, {"b"}, {}, 1e6, "2.0 MB, 1.0 MB/s, from r"),
])
def test_how_far_it_is(layers, whole, sizes, rate, words):
    assert image_job.progress_text(layers, whole, sizes, rate, "r") == words


def test_the_rate_is_that_of_the_last_seconds():
    said, now = [], [0.0]
    teller = image_job.Teller(said.append, lambda: now[0])
    teller.begin(NAME, {"a": 900e6})
    for second in range(31):
        now[0] = float(second)
        # Five times faster after the tenth second.
        teller.progress({"a": 1e6 * min(second, 10) + 5e6 * max(0, second - 10)}, set())
    assert said[0] == "pulling from r.invalid:5000" and said[6].startswith("5.0 MB of 900.0 MB (0 %), 1.0 MB/s") and ", 5.0 MB/s," in said[-1]
    teller.begin(NAME, {})
    teller.progress({"a": 1e6}, set())
    assert said[-1] == "1.0 MB, from r.invalid:5000", "another mirror begins anew"


def test_what_is_here_needs_no_job(monkeypatch):
    monkeypatch.setattr(container_cli, "Engine", lambda name, path: FakeEngine({NAME: image(DIGEST)}))
    found = image_job.begin({"options": OPTIONS, "program": "x"})
    assert found["job"] is None and not found["changed"] and found["local_reference"] == NAME


def test_the_password_goes_nowhere_but_into_the_secrets(monkeypatch):
    given = {}
    monkeypatch.setattr(container_cli, "Engine", lambda name, path: FakeEngine())
    monkeypatch.setattr(job_host, "run", lambda params, check: given.update(params) or ({"job": {"state": "running"}}, None))
    assert image_job.begin({"options": dict(OPTIONS), "program": "x"})["job"]["state"] == "running"
    assert given["secrets"] == {image_job.PASSWORD: "s3cret"} and given["rerun"] and given["timeout_s"] > 100
    assert "s3cret" not in json.dumps(dict(given, secrets=None)) and json.loads(given["files"]["request.json"])["reference"] == NAME
    assert given["id"] == image_job.job_id(dict(OPTIONS, mirrors=["x"])) != image_job.job_id(dict(OPTIONS, reference="r/n:2"))


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The job's program with an engine in memory. Returns (what it left, what it said last)."""
    engine = FakeEngine()
    monkeypatch.setattr(image_supply, "engine_for", lambda options, folder, reference: engine)
    monkeypatch.setattr(registry, "select", lambda *args, **more: {"trusted": [NAME], "liars": [], "note": "", "digest": DIGEST})
    monkeypatch.setenv(image_job.PASSWORD, "s3cret")

    def run(remote):
        engine.remote = {NAME: remote}
        (tmp_path / "request.json").write_text(json.dumps({key: value for key, value in OPTIONS.items() if key != "registry_password"}))
        told = image_job.main({"folder": str(tmp_path)})
        left = json.loads((tmp_path / "result.json").read_text())
        assert told["failed"] == bool(left.get("failed")) and sorted(os.listdir(str(tmp_path))) == ["progress", "request.json", "result.json"]
        return left, (tmp_path / "progress").read_text()

    return run


def test_the_job_leaves_the_result_of_the_module(job):
    left, said = job(image(DIGEST))
    assert left["changed"] and left["mirror"] == NAME and said == "pulling from r.invalid:5000\n"
    assert left["diff"] == {"before": {"image": None}, "after": {"image": NAME}}


def test_the_job_says_why_it_failed(job):
    left, dummy = job("the disk is full")
    assert left["failed"] and "no mirror delivered the image" in left["msg"] and "the disk is full" in left["msg"] and "s3cret" not in json.dumps(left)
