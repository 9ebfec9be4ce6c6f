# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet without a network: a bundle is made, the host loses all but the controller's SSH, and is deployed from the bundle."""

from __future__ import annotations

import json
import shutil
import urllib.request

import pytest
from fleet_operator import ADDRESSES, described, on, play

HOST, MODEL, PORT = "a2-1", "gemma-4-E2B-it", 8000
ONLY = ("--limit", HOST, "-e", json.dumps({"model": MODEL}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The folder that bundle.yml makes."""
    folder = tmp_path_factory.mktemp("bundle") / "it"
    play("playbooks/bundle.yml", *ONLY, "-e", f"bundle={folder}").succeeded()
    yield folder
    play("playbooks/remove.yml", "--limit", HOST).succeeded()
    shutil.rmtree(folder)


@pytest.fixture
def cut_off(bundle):
    """The host has nothing of ours and reaches nobody but its controller."""
    play("playbooks/remove.yml", "--limit", HOST).succeeded()
    on(HOST, f"""set -e; iptables -N cut-off; iptables -A cut-off -o lo -j RETURN; iptables -A cut-off -o docker0 -j RETURN
        iptables -A cut-off -d "${{SSH_CONNECTION%% *}}" -j RETURN; iptables -A cut-off -j REJECT
        iptables -I OUTPUT -j cut-off; iptables -I FORWARD -m conntrack --ctstate NEW ! -o docker0 -j DROP""")
    yield
    on(HOST, "iptables -D OUTPUT -j cut-off; iptables -F cut-off; iptables -X cut-off; iptables -D FORWARD -m conntrack --ctstate NEW ! -o docker0 -j DROP")


def deploy(folder, *more):
    return play("playbooks/deploy.yml", *ONLY, "-e", f"bundle={folder}", *more)


def test_a_host_without_a_network_is_deployed_from_a_bundle(bundle, cut_off):
    lock = described()[1] / "images.lock.yml"
    kept = lock.read_bytes()
    # The site has never seen these images: what it settles on comes out of the bundle.
    lock.unlink()
    try:
        assert "vllm-ascend" not in on(HOST, "docker images; docker ps --all")
        assert "rc 0" not in on(HOST, "curl -sk --max-time 5 https://registry.rehearsal:5000/v2/; echo rc $?")
        blob = max((bundle / "images/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        blob.rename(bundle.parent / "away")
        deploy(bundle).refused("lacks images/blobs/sha256/" + blob.name, "copy that file again", "no host was changed")
        (bundle.parent / "away").rename(blob)
        deploy(bundle, "-e", "bundle_root=" + "0" * 64).refused("bundle_root", "no host was changed")
        root = (bundle / "root.sha256").read_text().strip()
        deploy(bundle, "-e", f"bundle_root={root}").succeeded()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32, "temperature": 0}
        request = urllib.request.Request(f"http://{ADDRESSES[HOST]}:{PORT}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert "Paris" in json.load(answer)["choices"][0]["message"]["content"]
        (entry,) = json.loads((bundle / "bundle.json").read_text())["images"].values()
        assert entry["digest"] in on(HOST, "docker images --digests") and entry["digest"] in lock.read_text()
        assert "bundle" not in on(HOST, "ls /var/lib/vllm-ascend-fleet"), "nothing of the bundle stays on the host"
        assert set(deploy(bundle).succeeded().changed.values()) == {0}
        assert set(play("playbooks/deploy.yml", *ONLY).succeeded().changed.values()) == {0}, "without the bundle the same release is wanted"
        shorter = "-e", f"bundle={bundle}", "-e", json.dumps({"fleet_instance_defaults": {"arguments": {"max-model-len": 4096}}, "fleet_rollout": {"min_ready": 0}})
        assert "--max-model-len" in play("playbooks/plan.yml", *ONLY, *shorter).succeeded().output
        play("playbooks/upgrade.yml", *ONLY, *shorter).succeeded()
        assert " 4096" in on(HOST, "cat /etc/systemd/system/vllm-ascend-*.service")
    finally:
        lock.write_bytes(kept)
